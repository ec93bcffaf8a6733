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
