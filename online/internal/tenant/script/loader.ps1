$in = New-Object IO.StreamReader([Console]::OpenStandardInput(), (New-Object Text.UTF8Encoding $false))
$text = New-Object Text.StringBuilder
while (($line = $in.ReadLine()) -cne '#end') {
    if ($null -eq $line) { exit 3 }
    [void]$text.AppendLine($line)
}
& ([ScriptBlock]::Create($text.ToString())) $in
