# A session: one request a line on standard input, one answer in JSON each on
# standard output. The words of a request after the first are base64 of UTF-8.
# The password of an import is the line after it; it is read character by
# character into a SecureString, so that it is in no text, no pipeline and no
# parameter that a log of PowerShell would keep.

# Constrained language has no SecureString that is filled so.
$language = [string]$ExecutionContext.SessionState.LanguageMode
if ($language -cne 'FullLanguage') {
    'keyferry ' + (ConvertTo-Json -InputObject @{ language = $language } -Compress)
    exit 0
}

# A system without languages has English alone.
try {
    [Threading.Thread]::CurrentThread.CurrentUICulture = 'en-US'
    [Globalization.CultureInfo]::DefaultThreadCurrentUICulture = 'en-US'
}
catch { $null = $_ }

# Windows Server 2012 R2 and 2016 begin with protocols that the service refuses.
[Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

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

function ConvertFrom-Word($Word) {
    [Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($Word))
}

# What says why a script may not run here: the policy, who sets it, the module's
# signature, and the mark that Windows puts on files from elsewhere.
function Get-Policy($Module) {
    $policy = [ordered]@{ effective = [string](Get-ExecutionPolicy); scopes = @(); signature = ''; marked = $false }
    foreach ($entry in @(Get-ExecutionPolicy -List)) {
        if ([string]$entry.ExecutionPolicy -cne 'Undefined') { $policy.scopes += [string]$entry.Scope + ' ' + $entry.ExecutionPolicy }
    }
    if (Get-Command -Name Get-AuthenticodeSignature -ErrorAction SilentlyContinue) {
        $policy.signature = [string](Get-AuthenticodeSignature -LiteralPath $Module.Path).Status
        $policy.marked = $null -ne (Get-Item -LiteralPath $Module.Path -Stream Zone.Identifier -ErrorAction SilentlyContinue)
    }
    $policy
}

$in = New-Object IO.StreamReader([Console]::OpenStandardInput(), (New-Object Text.UTF8Encoding $false))
$out = New-Object IO.StreamWriter([Console]::OpenStandardOutput(), (New-Object Text.UTF8Encoding $false))
$out.AutoFlush = $true
$module = $null
while ($null -ne ($line = $in.ReadLine())) {
    $words = $line.Split(' ')
    $password = $null
    if ($words[0] -ceq 'import') { $password = Read-Password -Reader $in }
    $said = @{ log = @(); warnings = @(); output = @() }
    $answer = [ordered]@{ to = $words[0]; error = ''; kind = ''; types = @() }
    try {
        switch -CaseSensitive ($words[0]) {
            'versions' {
                $module = Get-NewestModule
                $answer['versions'] = Get-Versions -Module $module
            }
            'load' { Import-Exactly -Module $module }
            'connect' { Connect-Tenant -Environment (ConvertFrom-Word -Word $words[1]) -Said $said }
            'keys' { $answer['tenant_keys'] = @(Get-TenantKeys -KeyIdentifier (ConvertFrom-Word -Word $words[1])) }
            'import' {
                $file = ConvertFrom-Word -Word $words[1]
                $name = ConvertFrom-Word -Word $words[2]
                $url = ConvertFrom-Word -Word $words[3]
                Import-Tpd -File $file -Password $password -FriendlyName $name -KeyUrl $url -Said $said
            }
            'activate' { Set-ActiveKey -KeyIdentifier (ConvertFrom-Word -Word $words[1]) -Said $said }
            'disconnect' { Disconnect-Tenant }
            default { throw 'unknown request' }
        }
    }
    catch {
        $answer['kind'] = [string]$_.FullyQualifiedErrorId
        $texts = @()
        for ($cause = $_.Exception; $null -ne $cause; $cause = $cause.InnerException) {
            $answer['types'] += $cause.GetType().FullName
            if ($texts -cnotcontains $cause.Message) { $texts += $cause.Message }
        }
        $answer['error'] = [string]($texts -join ': ')
        if ($words[0] -ceq 'load') {
            try { $answer['policy'] = Get-Policy -Module $module }
            catch { $said.log += [string]$_.Exception.Message }
        }
    }
    finally {
        if ($null -ne $password) { $password.Dispose() }
    }
    foreach ($kind in $said.Keys) { $answer[$kind] = $said[$kind] }
    $out.WriteLine()
    $out.WriteLine('keyferry ' + (ConvertTo-Json -InputObject $answer -Compress -Depth 4))
}
