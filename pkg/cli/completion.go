// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
)

// completion prints a shell's script that completes commands and flags. It is
// made of what the commands declare, so it can't fall behind them.
func (a *App) completion(io *IO, args []string) error {
	shell, err := io.OneArgument(args, "shell")
	if err != nil {
		return err
	}
	script, known := map[string]string{"bash": bashCompletion, "zsh": zshCompletion + bashCompletion, "powershell": powershellCompletion}[shell]
	if !known {
		return control.CommandLine.Refuse("%s is not bash, zsh or powershell", control.Quote(shell))
	}
	row := map[bool]string{true: "        '%s' = '%s'\n", false: "    '%s') words='%s' ;;\n"}[shell == "powershell"]
	var rows strings.Builder
	for _, c := range a.Commands {
		fmt.Fprintf(&rows, row, c.Name, strings.Join(a.flagNames(&c), " "))
	}
	io.Print(strings.NewReplacer("PROGRAM", a.Name, "COMMANDS", strings.Join(a.names(), "\n"), "ROWS", rows.String()).Replace(script))
	return nil
}

// flagNames lists the flags that a command takes, each with its dashes.
func (a *App) flagNames(cmd *Command) (names []string) {
	flags, _ := a.flags(&IO{}, cmd)
	if a.Around != nil {
		a.Around(flags)
	}
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return names
}

// A word that begins with a dash is completed with the flags of the command
// before it, the first and the second word with the commands, all else with files.
const bashCompletion = `_PROGRAM() {
    local current=${COMP_WORDS[COMP_CWORD]} command="${COMP_WORDS[1]} ${COMP_WORDS[2]}" words=
    local commands='COMMANDS'
    if [[ $current == -* ]]; then
        grep -qxF -e "$command" <<<"$commands" || command=${COMP_WORDS[1]}
        case $command in
ROWS        esac
    elif [[ $COMP_CWORD -eq 1 ]]; then
        words=$(sed 's/ .*//' <<<"$commands" | sort -u)
    elif [[ $COMP_CWORD -eq 2 ]]; then
        words=$(sed -n "s/^${COMP_WORDS[1]} //p" <<<"$commands")
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _PROGRAM PROGRAM
`

// zsh runs bash's script.
const zshCompletion = "autoload -U +X bashcompinit && bashcompinit\n"

const powershellCompletion = `Register-ArgumentCompleter -Native -CommandName PROGRAM, PROGRAM.exe -ScriptBlock {
    param($word, $line, $position)
    $flags = @{
ROWS    }
    $typed = @($line.CommandElements | ForEach-Object { "$_" })
    $two = ($typed[1..2] -join ' ').Trim()
    $words = if ($word -like '-*') {
        if (-not $flags.ContainsKey($two)) { $two = $typed[1] }
        $flags[$two] -split ' '
    } elseif ($typed.Count -le 2 -and ($typed.Count -eq 1 -or $word)) {
        $flags.Keys | ForEach-Object { ($_ -split ' ')[0] }
    } else {
        $flags.Keys | Where-Object { $_ -like "$($typed[1]) *" } | ForEach-Object { ($_ -split ' ')[1] }
    }
    $words | Where-Object { $_ -like "$word*" } | Sort-Object -Unique
}
`

// man is the program's manual page, for man(1): the help of every command.
func (a *App) man() string {
	var b strings.Builder
	section := func(title, text string) {
		fmt.Fprintf(&b, ".SH %s\n.nf\n%s.fi\n", title, roff(text))
	}
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"%s\"\n.SH NAME\n%s\n", strings.ToUpper(a.Name), a.Version, strings.Replace(a.Summary, ": ", ` \- `, 1))
	section("COMMANDS", a.help())
	for _, c := range a.Commands {
		section(strings.ToUpper(c.Name), c.usage())
	}
	section("FLAGS OF EVERY COMMAND", a.commonFlags())
	return b.String()
}

// roff keeps a line from being taken for a request.
func roff(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, `\`, `\e`), "-", `\-`)
	return strings.ReplaceAll(strings.ReplaceAll("\n"+text, "\n.", "\n\\&."), "\n'", "\n\\&'")[1:]
}
