# Imports AD RMS trusted publishing domains into Azure RMS: a hand-over kit of
# Keyferry. Run it in Windows PowerShell 5.1, signed in as an administrator of
# the tenant's Rights Management service:
#
#     powershell.exe -ExecutionPolicy RemoteSigned -File import-tpds.ps1
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
# Keyferry drives and in a hand-over kit.

$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

# The versions of what runs this.
function Get-Versions {
    $framework = Get-ItemProperty -Path 'HKLM:\SOFTWARE\Microsoft\NET Framework Setup\NDP\v4\Full' -ErrorAction SilentlyContinue
    $module = Get-Module -ListAvailable -Name AIPService | Sort-Object -Property Version -Descending | Select-Object -First 1
    $versions = [ordered]@{
        powershell = [string]$PSVersionTable.PSVersion
        edition    = [string]$PSVersionTable.PSEdition
        framework  = 0
        module     = ''
    }
    if ($framework) { $versions.framework = [int]$framework.Release }
    if ($module) { $versions.module = [string]$module.Version }
    $versions
}

# Signs in, in a window of the module's own.
function Connect-Tenant($Environment) {
    Import-Module -Name AIPService
    if ($Environment) { $null = Connect-AipService -EnvironmentName $Environment }
    else { $null = Connect-AipService }
}

function Disconnect-Tenant {
    $null = Disconnect-AipService
}

# The keys of the tenant, one object each, of plain texts.
function Get-TenantKeys {
    foreach ($key in @(Get-AipServiceKeys)) {
        $public = $key.PublicKey
        if ($public -is [byte[]]) { $public = [Convert]::ToBase64String($public) }
        $created = $key.CreationTime
        if ($created -is [DateTime]) { $created = $created.ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ') }
        [ordered]@{
            key_identifier = ([string]$key.KeyIdentifier).Trim('{', '}')
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
# key without. The password is a SecureString. What -Verbose says goes to the
# log, since a wrong password shows there alone.
function Import-Tpd($File, $Password, $FriendlyName, $KeyUrl, $Log) {
    $more = @{}
    if ($FriendlyName) { $more.FriendlyName = $FriendlyName }
    if ($KeyUrl) { $more.KeyVaultKeyUrl = $KeyUrl }
    Import-AipServiceTpd -TpdFile $File -ProtectionPassword $Password @more -Force -Confirm:$false -Verbose 4>&1 |
        ForEach-Object -Process { if ($_ -is [System.Management.Automation.VerboseRecord]) { [void]$Log.Add($_.Message) } }
}

# Makes one key the active one; the service archives the former.
function Set-ActiveKey($KeyIdentifier, $Log) {
    Set-AipServiceKeyProperties -KeyIdentifier $KeyIdentifier -Active $true -Force -Confirm:$false -Verbose 4>&1 |
        ForEach-Object -Process { if ($_ -is [System.Management.Automation.VerboseRecord]) { [void]$Log.Add($_.Message) } }
}

# This is Windows PowerShell 5.1 on .NET Framework 4.8, with the AIPService module.
$versions = Get-Versions
if ($versions.edition -cne 'Desktop' -or -not $versions.powershell.StartsWith('5.1')) {
    throw "This is PowerShell $($versions.powershell) ($($versions.edition)): run this script in Windows PowerShell 5.1 (powershell.exe, not pwsh.exe)."
}
if ($versions.framework -lt 528040) {
    throw "The .NET Framework's release is $($versions.framework): install version 4.8 (528040) or later."
}
if (-not $versions.module -and -not $rehearsal) {
    throw 'The AIPService module is not installed: run Install-Module -Name AIPService.'
}

# The files are those that the kit was made with.
foreach ($tpd in $plan) {
    $tpd.Path = Join-Path -Path $PSScriptRoot -ChildPath $tpd.File
    $digest = (Get-FileHash -LiteralPath $tpd.Path -Algorithm SHA256).Hash
    if ($digest -ne $tpd.Sha256) {
        throw "$($tpd.File) is not the file that the kit was made with: its SHA-256 is $digest, not $($tpd.Sha256)."
    }
}

Connect-Tenant -Environment $environment
try {
    # What an earlier run of this script imported is not imported again.
    foreach ($tpd in $plan) {
        $there = @(Get-TenantKeys | Where-Object -FilterScript { $_.key_identifier -eq $tpd.KeyIdentifier })
        if ($there.Count -gt 0) {
            Write-Host "$($tpd.File): its key is in the tenant already"
            continue
        }
        if ($tpd.KeyUrl) { Write-Host "$($tpd.File): importing, with the key $($tpd.KeyUrl)" }
        else { Write-Host "$($tpd.File): importing, with the key in it, as a Microsoft-managed key" }
        $password = Read-Host -Prompt "Password of $($tpd.File): that of the export behind it, or its one-time password" -AsSecureString
        $log = New-Object System.Collections.ArrayList
        try {
            Import-Tpd -File $tpd.Path -Password $password -FriendlyName $tpd.FriendlyName -KeyUrl $tpd.KeyUrl -Log $log
        }
        catch {
            foreach ($line in $log) { Write-Host $line }
            throw
        }
        finally {
            $password.Dispose()
        }
    }
    if ($active) {
        Write-Host "making the key $active active"
        Set-ActiveKey -KeyIdentifier $active -Log (New-Object System.Collections.ArrayList)
    }

    # The result goes back to the machine where the kit was made.
    $result = [ordered]@{ format = 'keyferry-rms-result-v1'; kit = $kit; versions = $versions; tenant_keys = @(Get-TenantKeys) }
    $file = Join-Path -Path $PSScriptRoot -ChildPath 'keyferry-result.json'
    [IO.File]::WriteAllText($file, (ConvertTo-Json -InputObject $result -Depth 4), (New-Object Text.UTF8Encoding $false))
    Write-Host "Done. Take $file back."
}
finally {
    Disconnect-Tenant
}
