# SPDX-License-Identifier: Apache-2.0

<#
.SYNOPSIS
Plays the ceremony of docs\ceremony.md as a rehearsal, on this one machine, and
prints each command before it runs it. Nothing leaves the machine.

.DESCRIPTION
Wants nothing but what lies beside this script and, for the disconnected side,
SoftHSM 2 for Windows (https://github.com/disig/SoftHSM2-for-Windows), which it
finds in its usual places, or another build of it that -HsmModule names.

If Windows refuses to run it: files from the internet bear a mark. Compare
SHA256SUMS first (docs\build.md), then, here:  Get-ChildItem -Recurse | Unblock-File
It runs from a local disk, not from a share:
  powershell -ExecutionPolicy Bypass -File .\rehearse.ps1

.PARAMETER HsmModule
SoftHSM's DLL of 64 bits.

.PARAMETER Online
The connected side alone, against a bundle that was recorded: needs no SoftHSM.

.PARAMETER Dir
Where to play; must not exist, or be empty. Default: a new folder in $env:TEMP.

.EXAMPLE
.\rehearse.ps1
.EXAMPLE
.\rehearse.ps1 -Online
#>
param([string]$HsmModule = '', [switch]$Online, [string]$Dir = '')

$ErrorActionPreference = 'Stop'
$here = $PSScriptRoot
$offlineExe = Join-Path $here 'offline.exe'
$onlineExe = Join-Path $here 'online.exe'
$tpd = Join-Path $here 'sample\contoso-mode2.xml'

function Step([string]$text) { Write-Output ''; Write-Output "== $text" }

# Play prints a command as it can be typed, runs it, and stops where it fails. What
# it says is shown, and kept for Heard.
function Play([string]$exe, [string[]]$words) {
    $shown = foreach ($word in $words) { if ($word -match '\s') { "'" + $word + "'" } else { $word } }
    Write-Host ''
    Write-Host ('PS> & ''' + $exe + ''' ' + ($shown -join ' '))
    $script:said = & $exe $words
    $code = $LASTEXITCODE
    $script:said | ForEach-Object { Write-Host $_ }
    if ($code -ne 0) {
        Write-Host "rehearse.ps1: stopped with exit code $code; everything is left in $Dir"
        exit $code
    }
}
function Offline { Play $offlineExe ($args + @('--state', $offlineState)) }
function Online { Play $onlineExe ($args + @('--state', $onlineState)) }

# Heard is the fingerprint that the last command wants to be read aloud.
function Heard {
    $lines = @($script:said)
    for ($i = 0; $i -lt $lines.Count - 1; $i++) { if ($lines[$i] -match 'read aloud at') { return $lines[$i + 1] } }
}

if ($Dir -eq '') { $Dir = Join-Path ([IO.Path]::GetTempPath()) ('keyferry-rehearsal-' + [Guid]::NewGuid().ToString('N').Substring(0, 8)) }
$Dir = [IO.Path]::GetFullPath($Dir)
if ((Test-Path -LiteralPath $Dir) -and (Get-ChildItem -LiteralPath $Dir -Force)) {
    Write-Host "rehearse.ps1: $Dir exists and is not empty"
    exit 2
}
$stick = Join-Path $Dir 'stick'
$offlineState = Join-Path $Dir 'offline-side'
$onlineState = Join-Path $Dir 'online-side'
$password = Join-Path $Dir 'sample-password.txt'
New-Item -ItemType Directory -Force -Path $stick | Out-Null
[IO.File]::WriteAllText($password, "Passw0rd!`n")
$kek = Join-Path $stick 'BYOK-KEK-pkg-NA-1'
$world = Join-Path $stick 'BYOK-SecurityWorld-pkg-NA-1'
$bundle = Join-Path $stick 'keyferry-offline-1.kfb'

Write-Output "A rehearsal of the ceremony in docs\ceremony.md, in $Dir. Folders stand for the zones: offline-side, stick, online-side."

if ($Online) {
    Copy-Item -Recurse -LiteralPath (Join-Path $here 'sample\recorded\online') -Destination $onlineState
    Copy-Item -LiteralPath (Join-Path $here 'sample\recorded\keyferry-offline-1.kfb') -Destination $bundle
} else {
    $module = @()
    if ($HsmModule -ne '') { $module = @('--hsm-module', $HsmModule) }
    Step '1. Set up the connected side'
    Online init --rehearsal
    Step '2. Set up the disconnected side'
    Offline init --rehearsal --out $stick @module
    $card = Heard
    Step '3. Make the key exchange key'
    Online kek create --out $stick
    $read = Heard
    Step '4. Pin the disconnected side'
    Online trust (Join-Path $stick 'offline-card-offline.json') --fingerprint $card
    Step '5. Pin the connected side'
    Offline trust $world --fingerprint $read
    Step '6. Check the packages'
    Offline packages verify -k $kek -w $world
    Step '7. Look at the export'
    Offline inspect $tpd --protection-password-file $password
    $import = @('import', '--tpd-file-path', $tpd, '--key-identifier', 'contoso-slc', '--protection-password-file', $password,
        '--exchange-key-package', $kek, '--new-security-world-package', $world)
    Step '8. Try the import'
    Offline @import --dry-run
    Step '9. Import the key'
    Offline @import
    Step '10. Seal the bundle'
    Offline seal --out $stick
}
Step '11. Check the bundle'
Online verify $bundle
Step '12. Write the transfer files'
Online package $bundle --out (Join-Path $Dir 'transfer')
Step '13. Try the upload'
Online upload $bundle --active contoso-slc --protection-password-file $password --dry-run
Step '14. Upload'
Online upload $bundle --active contoso-slc --protection-password-file $password
Step '15. Seal the receipt'
Online receipt $bundle --out $stick
if (-not $Online) {
    Step '16. Close the ledger'
    Offline receipt (Join-Path $stick 'keyferry-online-1.kfb')
    Step '17. Keep the record'
    Offline status
    Offline transcript verify
    Offline transcript --sheet text --out (Join-Path $Dir 'sheet-offline.txt')
}
Online status
Online transcript verify
Online transcript --sheet text --out (Join-Path $Dir 'sheet-online.txt')
Write-Output ''
Write-Output "The rehearsal is over. All of it is in $Dir; remove it when you have seen enough."
