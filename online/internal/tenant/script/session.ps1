# A session: one request a line on standard input, one answer in JSON each on
# standard output. The words of a request after the first are base64 of UTF-8.
# The password of an import is the line after it; it is read character by
# character into a SecureString, so that it is in no text, no pipeline and no
# parameter that a log of PowerShell would keep.

function Read-Password($Reader) {
    $password = New-Object System.Security.SecureString
    while ($true) {
        $character = $Reader.Read()
        if ($character -lt 0 -or $character -eq 10) { break }
        $password.AppendChar([char]$character)
    }
    $password.MakeReadOnly()
    $password
}

# The cmdlet wants a file. It is deleted at once; a key in it is encrypted.
function Import-Bytes($Bytes, $Password, $FriendlyName, $KeyUrl, $Log) {
    $file = [IO.Path]::Combine([IO.Path]::GetTempPath(), 'keyferry-' + [Guid]::NewGuid().ToString() + '.xml')
    try {
        [IO.File]::WriteAllBytes($file, $Bytes)
        Import-Tpd -File $file -Password $Password -FriendlyName $FriendlyName -KeyUrl $KeyUrl -Log $Log
    }
    finally {
        [IO.File]::Delete($file)
    }
}

function ConvertFrom-Word($Word) {
    [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($Word))
}

$in = $args[0]
$out = New-Object IO.StreamWriter([Console]::OpenStandardOutput(), (New-Object Text.UTF8Encoding $false))
$out.AutoFlush = $true
while ($null -ne ($line = $in.ReadLine())) {
    $words = $line.Split(' ')
    $password = $null
    if ($words[0] -ceq 'import') { $password = Read-Password -Reader $in }
    $log = New-Object System.Collections.ArrayList
    $answer = [ordered]@{ error = ''; kind = ''; log = $log }
    try {
        switch -CaseSensitive ($words[0]) {
            'versions' { $answer['versions'] = Get-Versions }
            'connect' { Connect-Tenant -Environment (ConvertFrom-Word -Word $words[1]) }
            'keys' { $answer['tenant_keys'] = @(Get-TenantKeys) }
            'import' {
                $bytes = [Convert]::FromBase64String($words[1])
                $name = ConvertFrom-Word -Word $words[2]
                $url = ConvertFrom-Word -Word $words[3]
                Import-Bytes -Bytes $bytes -Password $password -FriendlyName $name -KeyUrl $url -Log $log
            }
            'activate' { Set-ActiveKey -KeyIdentifier (ConvertFrom-Word -Word $words[1]) -Log $log }
            'disconnect' { Disconnect-Tenant }
            default { throw 'unknown request' }
        }
    }
    catch {
        $answer['error'] = [string]$_.Exception.Message
        $answer['kind'] = [string]$_.FullyQualifiedErrorId
    }
    finally {
        if ($null -ne $password) { $password.Dispose() }
    }
    $out.WriteLine()
    $out.WriteLine('keyferry ' + (ConvertTo-Json -InputObject $answer -Compress -Depth 4))
}
