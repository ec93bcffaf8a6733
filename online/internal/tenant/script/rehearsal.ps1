# A rehearsal: nothing is sent to Azure. A list in memory stands in for the
# tenant, and any password will do.
$practice = @()

function Connect-Tenant($Environment, $Said) {
    Write-Host 'REHEARSAL: no service is asked, and nothing is imported anywhere.'
}

function Disconnect-Tenant { }

function Get-TenantKeys($KeyIdentifier) {
    $script:practice | Where-Object -FilterScript { -not $KeyIdentifier -or $_.key_identifier -eq $KeyIdentifier }
}

# The key's identifier is that of the TPD whose turn it is.
function Import-Tpd($File, $Password, $FriendlyName, $KeyUrl, $Said) {
    $type = 'Microsoft-managed'
    if ($KeyUrl) { $type = 'Customer-managed (BYOK)' }
    $script:practice += [ordered]@{
        key_identifier = $tpd.KeyIdentifier
        friendly_name  = $FriendlyName
        status         = 'Archived'
        key_type       = $type
        key_url        = $KeyUrl
        public_key     = ''
        creation_time  = ''
    }
}

function Set-ActiveKey($KeyIdentifier, $Said) {
    foreach ($key in $script:practice) {
        $key.status = 'Archived'
        if ($key.key_identifier -eq $KeyIdentifier) { $key.status = 'Active' }
    }
}
