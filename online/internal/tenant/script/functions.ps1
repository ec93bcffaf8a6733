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
