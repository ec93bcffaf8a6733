# What is to be done. Nothing below depends on anything but these lines and the
# files beside this script.
#PLAN

#FUNCTIONS

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
