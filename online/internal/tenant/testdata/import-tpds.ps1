# Imports AD RMS trusted publishing domains into Azure RMS: a hand-over kit of
# Keyferry. Run it in Windows PowerShell 5.1, signed in as an administrator of
# the tenant's Rights Management service:
#
#     powershell.exe -NoProfile -ExecutionPolicy RemoteSigned -File import-tpds.ps1
#
# It asks for the password of each TPD, that of its export or a one-time password,
# and keeps it nowhere.

# What is to be done. Nothing below depends on anything but these lines and the
# files beside this script.
$kit = 'c9fb57f8051e72619f9b933a68118a90100f163d3825f1a1a31c3b1f69ab3feb'
$rehearsal = $false
$environment = ''
$active = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee'
$plan = @(
    @{
        File          = 'no_key_tpd_old.xml'
        Sha256        = 'a143bb93cf4aac252104eac862777e92a9c81c99f78f385ffb6ac849cdbeb53d'
        KeyIdentifier = '11111111-2222-3333-4444-555555555555'
        FriendlyName  = 'Old'
        KeyUrl        = 'https://contoso.vault.azure.net/keys/old/0a'
    }
    @{
        File          = 'no_key_tpd_new.xml'
        Sha256        = '63578eb7c5651dccffa5fa0b4a0800f382ffc80e912a7ba573e04c4442729a49'
        KeyIdentifier = 'aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee'
        FriendlyName  = 'O''Brien ‘‘RMS’’ $(x) `é'
        KeyUrl        = 'https://contoso.vault.azure.net/keys/new/0b'
    }
    @{
        File          = 'tpd_with_key_small.xml'
        Sha256        = '9c44bacfe34dfdae5dbd64bfaa94955f8e5195717fcd308ca48d060a3eda1f3a'
        KeyIdentifier = '01234567-89ab-cdef-0123-456789abcdef'
        FriendlyName  = 'Small'
        KeyUrl        = ''
    }
)

# What is asked of the AIPService module. The same lines run in a session that
# Keyferry drives and in a hand-over kit, in constrained language too.

Set-StrictMode -Off
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

# A PowerShell 7 further up leaves a search path that hides half of this module.
Import-Module -Name (Join-Path -Path $PSHOME -ChildPath 'Modules\Microsoft.PowerShell.Utility') -ErrorAction SilentlyContinue

# The newest version of the module that is installed, or nothing.
function Get-NewestModule {
    Get-Module -ListAvailable -Name AIPService | Sort-Object -Property Version -Descending | Select-Object -First 1
}

# The versions of what runs this.
function Get-Versions($Module) {
    $framework = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\NET Framework Setup\NDP\v4\Full' -ErrorAction SilentlyContinue
    $versions = [ordered]@{
        powershell = [string]$PSVersionTable.PSVersion
        edition    = [string]$PSVersionTable.PSEdition
        framework  = 0
        module     = ''
    }
    if ($framework) { $versions.framework = [int]$framework.Release }
    if ($Module) { $versions.module = [string]$Module.Version }
    $versions
}

# Loads exactly the version that was looked at: by its name alone, PowerShell
# takes the first folder's, however old.
function Import-Exactly($Module) {
    $loaded = Import-Module -ModuleInfo $Module -PassThru
    if ([string]$loaded.Version -cne [string]$Module.Version) {
        throw ('AIPService ' + $loaded.Version + ' was loaded, not ' + $Module.Version + ': start a new Windows PowerShell.')
    }
}

# Sorts what a cmdlet says, beside errors.
filter Add-Said($Said) {
    if ($_ -is [System.Management.Automation.VerboseRecord]) { $Said.log += [string]$_.Message }
    elseif ($_ -is [System.Management.Automation.WarningRecord]) { $Said.warnings += [string]$_.Message }
    elseif ($null -ne $_) { $Said.output += ([string](Out-String -InputObject $_ -Width 200)).Trim() }
}

# Signs in, in a window of the module's own.
function Connect-Tenant($Environment, $Said) {
    $more = @{}
    if ($Environment) { $more.EnvironmentName = $Environment }
    Connect-AipService @more -Verbose 3>&1 4>&1 6>&1 | Add-Said -Said $Said
}

function Disconnect-Tenant {
    $null = Disconnect-AipService
}

# The keys of the tenant, or the one that is named: one object each, of plain
# texts, written alike in every culture.
function Get-TenantKeys($KeyIdentifier) {
    foreach ($key in @(Get-AipServiceKeys)) {
        $id = ([string]$key.KeyIdentifier).Trim('{', '}')
        if ($KeyIdentifier -and $id -ne $KeyIdentifier) { continue }
        $public = $key.PublicKey
        if ($public -is [byte[]]) { $public = 'hex:' + (($public | ForEach-Object -Process { '{0:x2}' -f $_ }) -join '') }
        $created = $key.CreationTime
        if ($created -is [DateTime]) { $created = $created.ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ', [CultureInfo]::InvariantCulture) }
        [ordered]@{
            key_identifier = $id
            friendly_name  = [string]$key.FriendlyName
            status         = [string]$key.Status
            key_type       = [string]$key.KeyType
            key_url        = [string]$key.KeyVaultKeyUrl
            public_key     = [string]$public
            creation_time  = [string]$created
        }
    }
}

# Imports one TPD: a keyless one with the URL of its key, one that carries its
# key without. The password is a SecureString. A wrong one shows in what
# -Verbose says alone.
function Import-Tpd($File, $Password, $FriendlyName, $KeyUrl, $Said) {
    $more = @{}
    if ($FriendlyName) { $more.FriendlyName = $FriendlyName }
    if ($KeyUrl) { $more.KeyVaultKeyUrl = $KeyUrl }
    Import-AipServiceTpd -TpdFile $File -ProtectionPassword $Password @more -Force -Confirm:$false -Verbose 3>&1 4>&1 6>&1 |
        Add-Said -Said $Said
}

# Makes one key the active one; the service archives the former.
function Set-ActiveKey($KeyIdentifier, $Said) {
    Set-AipServiceKeyProperties -KeyIdentifier $KeyIdentifier -Active $true -Force -Confirm:$false -Verbose 3>&1 4>&1 6>&1 |
        Add-Said -Said $Said
}

# What a cmdlet says beside errors is shown as it is.
function Show-Said($Said) {
    foreach ($line in $Said.log + $Said.output) { Write-Host ('    ' + $line) }
    foreach ($line in $Said.warnings) { Write-Warning -Message $line }
}

function New-Said { @{ log = @(); warnings = @(); output = @() } }

# Whether a file can be written to a folder.
function Test-Writable($Folder) {
    if (-not $Folder) { return $false }
    $file = Join-Path -Path $Folder -ChildPath 'keyferry-can-write.tmp'
    try {
        Set-Content -LiteralPath $file -Value '' -Encoding UTF8
        Remove-Item -LiteralPath $file
        $true
    }
    catch { $false }
}

# The SHA-256 of a text without blanks, in which each letter beyond ASCII counts
# as a question mark: a copy from the window has the same. Constrained language
# hashes files alone.
function Get-Digest($Text) {
    foreach ($folder in $PSScriptRoot, $env:TEMP, $env:TMPDIR) {
        if (-not (Test-Writable -Folder $folder)) { continue }
        $file = Join-Path -Path $folder -ChildPath 'keyferry-digest.tmp'
        Set-Content -LiteralPath $file -Value ($Text -creplace '[\x00-\x20]' -creplace '[^!-~]', '?') -Encoding ASCII -NoNewline
        $digest = (Get-FileHash -LiteralPath $file -Algorithm SHA256).Hash.ToLowerInvariant()
        Remove-Item -LiteralPath $file
        # Rows of eight bytes, each headed by the number of its first, as they are asked for.
        $rows = ''
        for ($i = 0; $i -lt 32; $i += 8) { $rows += '    {0,2}   {1}' -f ($i + 1), ($digest.Substring(2 * $i, 16) -creplace '(..)', '$1 ') + "`n" }
        return $rows
    }
}

# How Explorer's Run with PowerShell starts a script: its window closes at the end.
$clicked = $MyInvocation.Line -like '*Set-ExecutionPolicy*Bypass*'
$console = $PSScriptRoot -and -not $psISE
$failed = $false

# One statement to the end, so that a paste of this script does nothing else
# when it finds that it is one.
try {
    if (-not $console) {
        throw ('This script was pasted, or runs in the ISE. Save it with the files of its folder, and run it in the console of Windows PowerShell 5.1: ' +
            'powershell.exe -NoProfile -ExecutionPolicy RemoteSigned -File import-tpds.ps1')
    }

    # This is Windows PowerShell 5.1 on .NET Framework 4.8, with the AIPService module.
    $module = Get-NewestModule
    $versions = Get-Versions -Module $module
    if ($versions.edition -cne 'Desktop' -or -not $versions.powershell.StartsWith('5.1')) {
        throw "This is PowerShell $($versions.powershell) ($($versions.edition)): run this script in Windows PowerShell 5.1 (powershell.exe, not pwsh.exe)."
    }
    if ($env:PROCESSOR_ARCHITEW6432) { # a program of 32 bits has started this
        throw "This is a PowerShell of 32 bits: run this script in the one of 64 bits, $env:SystemRoot\Sysnative\WindowsPowerShell\v1.0\powershell.exe."
    }
    if ($versions.framework -lt 528040) {
        throw "The .NET Framework's release is $($versions.framework): install version 4.8 (528040) or later."
    }
    if (-not $rehearsal) {
        if (-not $module) {
            throw 'The AIPService module is not installed: run Install-Module -Name AIPService -Scope AllUsers.'
        }
        if ($module.Version -lt [version]'3.0.0.1') {
            throw "The AIPService module is of version $($versions.module), not 3.0.0.1 or later: run Update-Module -Name AIPService."
        }
        Import-Exactly -Module $module
    }
    # Windows Server 2012 R2 and 2016 begin with protocols that the service refuses.
    if ([string]$ExecutionContext.SessionState.LanguageMode -ceq 'FullLanguage') {
        [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
    }

    # The files are those that the kit was made with.
    foreach ($tpd in $plan) {
        $tpd.Path = Join-Path -Path $PSScriptRoot -ChildPath $tpd.File
        $digest = (Get-FileHash -LiteralPath $tpd.Path -Algorithm SHA256).Hash
        if ($digest -ne $tpd.Sha256) {
            throw "$($tpd.File) is not the file that the kit was made with: its SHA-256 is $digest, not $($tpd.Sha256)."
        }
    }
    $resultFile = Join-Path -Path $PSScriptRoot -ChildPath 'keyferry-result.json'
    $writable = Test-Writable -Folder $PSScriptRoot
    if (-not $writable) { Write-Warning -Message 'This folder cannot be written: the result will be shown at the end, to be copied.' }

    Write-Host 'A TPD goes into one tenant only, and cannot be taken back out of it: sign in to the tenant that is meant.'
    Write-Host 'The window of the sign-in may stand behind this one.'
    $said = New-Said
    try { Connect-Tenant -Environment $environment -Said $said }
    finally { Show-Said -Said $said }
    try {
        # What an earlier run of this script imported is not imported again.
        $there = @(Get-TenantKeys)
        foreach ($tpd in $plan) {
            if (@($there | Where-Object -FilterScript { $_.key_identifier -eq $tpd.KeyIdentifier }).Count -gt 0) {
                Write-Host "$($tpd.File): its key is in the tenant already"
                continue
            }
            if ($tpd.KeyUrl) { Write-Host "$($tpd.File): importing as '$($tpd.FriendlyName)', with the key $($tpd.KeyUrl)" }
            else { Write-Host "$($tpd.File): importing as '$($tpd.FriendlyName)', with the key in it, as a Microsoft-managed key" }
            $prompt = "Password of $($tpd.File): that of the export behind it, or its one-time password"
            for ($try = 1; ; $try++) {
                $password = Read-Host -Prompt $prompt -AsSecureString
                $said = New-Said
                try {
                    if ($password.Length -eq 0) { throw "No password was given for $($tpd.File)." }
                    Import-Tpd -File $tpd.Path -Password $password -FriendlyName $tpd.FriendlyName -KeyUrl $tpd.KeyUrl -Said $said
                    break
                }
                catch {
                    # A wrong password is told in every language in other words: what is surely something else ends this.
                    $text = ($said.log -join ' ') + $_.Exception.Message
                    $other = $text -match 'KeyVault|failed to add|Connect-AipService|AADSTS|is denied|not authorized|permission'
                    if ($try -ge 3 -or $other -or $password.Length -eq 0) { throw }
                    Write-Host ('    ' + $_.Exception.Message)
                    $prompt = "If the password was mistyped, type that of $($tpd.File) again; Enter alone stops"
                }
                finally {
                    Show-Said -Said $said
                    $password.Dispose()
                }
            }
        }
        if ($active) {
            $key = @(Get-TenantKeys -KeyIdentifier $active)
            if ($key.Count -eq 1 -and $key[0].status -eq 'Active') { Write-Host "the key $active is active already" }
            else {
                Write-Host "making the key $active active"
                $said = New-Said
                try { Set-ActiveKey -KeyIdentifier $active -Said $said }
                finally { Show-Said -Said $said }
            }
        }
        $keys = @(Get-TenantKeys)
    }
    finally {
        try { Disconnect-Tenant }
        catch { Write-Host "signing out did not go well, which changes nothing in the tenant: $($_.Exception.Message)" }
    }

    # The result goes back to the machine where the kit was made.
    $json = ConvertTo-Json -InputObject ([ordered]@{ format = 'keyferry-rms-result-v2'; kit = $kit; versions = $versions; tenant_keys = $keys }) -Depth 4
    $digest = Get-Digest -Text $json
    if ($writable) {
        try { Set-Content -LiteralPath $resultFile -Value $json -Encoding UTF8 }
        catch { $writable = $false }
    }
    if ($writable) { Write-Host "Done. Take $resultFile back." }
    else {
        Write-Host 'Done. Copy the lines between the two rules into a file named keyferry-result.json, and take it back.'
        Write-Host '----------------'
        Write-Host $json
        Write-Host '----------------'
    }
    if ($digest) { Write-Host "Write this digest of the result down, and give it where the result is taken back:`n$digest" }
    else { Write-Host 'No digest of the result can be made here, since no file can be written.' }
}
catch {
    $failed = $true
    Write-Host "FAILED: $($_.Exception.Message)" -ForegroundColor Red
    for ($inner = $_.Exception.InnerException; $inner; $inner = $inner.InnerException) { Write-Host "    $($inner.Message)" -ForegroundColor Red }
    Write-Host 'This script may be run again: what was done is not done twice.'
}
if ($clicked) { $null = Read-Host -Prompt 'Press Enter to close this window' }
if ($failed -and $console) { exit 1 }
