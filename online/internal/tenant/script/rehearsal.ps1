# A rehearsal: nothing is sent to Azure. A list in memory stands in for the
# tenant, and any password will do.
$practice = New-Object System.Collections.ArrayList

function Connect-Tenant($Environment) {
    Write-Host 'REHEARSAL: no service is asked, and nothing is imported anywhere.'
}

function Disconnect-Tenant { }

function Get-TenantKeys { $practice }

# The key's identifier is that of the TPD whose turn it is.
function Import-Tpd($File, $Password, $FriendlyName, $KeyUrl, $Log) {
    $type = 'MicrosoftManaged'
    if ($KeyUrl) { $type = 'CustomerManaged' }
    [void]$practice.Add([ordered]@{
        key_identifier = $tpd.KeyIdentifier
        friendly_name  = $FriendlyName
        status         = 'Archived'
        key_type       = $type
        key_url        = $KeyUrl
        public_key     = ''
        creation_time  = ''
    })
}

function Set-ActiveKey($KeyIdentifier, $Log) {
    foreach ($key in $practice) {
        $key.status = 'Archived'
        if ($key.key_identifier -eq $KeyIdentifier) { $key.status = 'Active' }
    }
}
