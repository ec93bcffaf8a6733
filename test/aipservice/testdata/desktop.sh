# Runs $powershell, a pwsh, with the arguments of powershell.exe.
export PSModulePath="$JUDGE_MODULES"
before='
$PSVersionTable["PSVersion"] = [version]"5.1.26100.1"
$PSVersionTable["PSEdition"] = "Desktop"
function global:Get-ItemProperty { if ("$args" -like "*NET Framework Setup*") { [pscustomobject]@{ Release = 533320 } } }
'
if [ -n "$JUDGE_CULTURE" ]; then
    before="$before
[Globalization.CultureInfo]::CurrentCulture = '$JUDGE_CULTURE'
[Globalization.CultureInfo]::CurrentUICulture = '$JUDGE_CULTURE'"
fi
before="$before
$JUDGE_PRELUDE"
if [ -n "$JUDGE_LANGUAGE" ]; then
    before="$before
\$ExecutionContext.SessionState.LanguageMode = '$JUDGE_LANGUAGE'"
fi
interactive=
while [ $# -gt 0 ]; do
    case $1 in
    -NonInteractive) interactive=$1 ;;
    -ExecutionPolicy | -InputFormat | -OutputFormat) shift ;;
    -File)
        run="& '$(printf %s "$2" | sed "s/'/''/g")'; exit \$LASTEXITCODE"
        break
        ;;
    -Command)
        run=$2
        [ "$run" != - ] || run='Invoke-Expression ([Console]::In.ReadToEnd())'
        break
        ;;
    esac
    shift
done
exec "$powershell" -NoLogo -NoProfile $interactive -Command "$before; $run"
