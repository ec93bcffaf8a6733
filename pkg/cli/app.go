// SPDX-License-Identifier: Apache-2.0

// Package cli is the common part of both command lines: finding the command,
// its flags and help, exit codes, errors with hints, confirmation, and the
// command lines of Microsoft's tools, which work too.
//
// The rules of the terminal, all kept here:
//
//   - a command's result goes to standard output, for people, or with --json as
//     one JSON document;
//   - all else (progress, notes, warnings, errors) goes to standard error, each
//     line headed by the program's name;
//   - secrets are asked on the terminal itself and never echoed;
//   - an error is one sentence with its control ID, then a hint.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
)

// App is one binary's command line.
type App struct {
	Name     string // offline or online
	Summary  string // for people who ask for help
	Commands []Command
	Seeds    []Seed // command lines of Microsoft's tools
	Version  string

	// Around, where set, declares flags that every command of this program
	// takes, and returns what runs the command. It may replace the process, so
	// Main does it only, not Run, which tests call in theirs.
	Around     func(flags *pflag.FlagSet) func(io *IO, command func() error) error
	AroundHelp string // on its flags
}

// Command is one command. Setup declares its flags and returns what runs it.
type Command struct {
	Name    string // one or two words
	Summary string // a few words
	Usage   string // hand-written: synopsis, flags, example
	Setup   func(flags *pflag.FlagSet) Run

	Stateless bool // needs no state directory, nor a home to look for it
	Shows     bool // changes nothing: to print is all that it is for
	Rehearsal bool // is about a rehearsal: without --state, that one's
}

// Run carries a command out. args are its positional arguments.
type Run func(ctx context.Context, io *IO, args []string) error

// Run runs the program and returns its exit code (see [control.Class]; 0 is
// success).
func (a *App) Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return a.start(ctx, args, &IO{stdin: stdin, stdout: stdout, stderr: stderr})
}

func (a *App) start(ctx context.Context, args []string, io *IO) int {
	io.program, io.interrupted, io.shows = a.Name, ctx.Done(), true                   // help, until a command runs
	io.JSON = slices.Contains(args, "--json") || slices.Contains(args, "--json=true") // for what fails before the flags are read
	err := a.run(ctx, io, args)
	if err == nil {
		err = io.unprinted()
	}
	if err == nil {
		return 0
	}
	return io.fail(err)
}

func (a *App) run(ctx context.Context, io *IO, args []string) error {
	args, seed, err := a.translateSeed(args)
	if err != nil {
		return err
	}
	switch next := a.standing(args); {
	case next != nil:
		args = next
	case len(args) == 0:
		fmt.Fprint(io.stderr, a.help())
		return control.CommandLine.Refuse("no command was given").
			WithHint("`%[1]s next` says how a ceremony begins, and `%[1]s help COMMAND` what a command takes", a.Name)
	case args[0] == "help" && len(args) > 1:
		return a.explain(io, args[1:])
	case args[0] == "help" || args[0] == "--help" || args[0] == "-h":
		io.Print(a.help())
		return nil
	case args[0] == "--version":
		io.Print(a.Version + "\n")
		return nil
	case args[0] == "completion":
		return a.completion(io, args[1:])
	case args[0] == "man":
		io.Print(a.man())
		return nil
	}
	cmd, rest := a.find(args)
	if cmd == nil {
		return a.unknown(args)
	}
	return a.runCommand(ctx, io, cmd, seed, rest)
}

// unknown refuses what is no command. Of a flag only the name is shown: it may
// hold a password.
func (a *App) unknown(args []string) error {
	if err := a.answer(args); err != nil {
		return err
	}
	shown, _, _ := strings.Cut(args[0], "=")
	shown, _, _ = strings.Cut(shown, ":")
	if isDashed(args[0]) {
		close := ""
		for _, seed := range a.Seeds {
			if close == "" && nearest(shown, []string{seed.Switch}) != "" {
				close = seed.Switch
			}
		}
		return control.CommandLine.Refuse("%s comes first, which is no command of %s", control.Quote(shown), a.Name).
			WithHint("%sflags stand behind the command; the commands are: %s", didYouMean(close), strings.Join(a.names(), ", "))
	}
	var group []string
	for _, name := range a.names() {
		if strings.HasPrefix(name, shown+" ") {
			group = append(group, "`"+a.Name+" "+name+"`")
		}
	}
	if len(group) > 0 && len(args) == 1 {
		return control.CommandLine.Refuse("%s lacks its second word", control.Quote(shown)).WithHint("want %s", strings.Join(group, " or "))
	}
	typed := shown
	if len(args) > 1 && !isDashed(args[1]) {
		typed += " " + args[1]
	}
	close := nearest(typed, a.names())
	if close == "" {
		close = nearest(shown, a.names())
	}
	return control.CommandLine.Refuse("%s is not a command of %s", control.Quote(args[0]), a.Name).
		WithHint("%sthe commands are: %s", didYouMean(close), strings.Join(a.names(), ", "))
}

// runCommand reads a command's flags and runs it. seed is the command line that
// it was translated from, nil if it was none.
func (a *App) runCommand(ctx context.Context, io *IO, cmd *Command, seed *Seed, args []string) error {
	flags, run := a.flags(io, cmd)
	around := a.around(io, flags)
	args = withHyphens(flags, args)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) && asksForHelp(args) {
			io.Print(cmd.help(a))
			return nil
		}
		return flagError(cmd.Name, err).WithHint("%ssee `%s %s --help`", nearestFlag(flags, err), a.Name, cmd.Name)
	}
	if err := checkEmpty(flags); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		if err := checkPaths(flags); err != nil {
			return err
		}
	}
	io.typed = append(strings.Fields(cmd.Name), args...)
	io.command, io.shows = cmd.Name, cmd.Shows
	flags.Visit(func(f *pflag.Flag) {
		io.secretTyped = io.secretTyped || f.Value.Type() == secretType && f.NoOptDefVal != ""
	})
	if f := flags.Lookup("dry-run"); f != nil {
		io.dryRun = f.Value.String() == "true"
	}
	io.stateGiven = io.State != ""
	if io.State == "" {
		var err error
		if io.State, err = defaultState(a.Name, io.Rehearsal || cmd.Rehearsal); err != nil && !cmd.Stateless {
			return err
		}
	}
	return around(io, func() error {
		if seed != nil {
			io.Note("%s is `%s %s` here", seed.Switch, a.Name, seed.Command)
		}
		return run(ctx, io, flags.Args())
	})
}

// flags declares the flags of a command, those too that every command takes.
func (a *App) flags(io *IO, cmd *Command) (*pflag.FlagSet, Run) {
	flags := pflag.NewFlagSet(cmd.Name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {}
	run := cmd.Setup(flags)
	flags.StringVar(&io.State, "state", "", "")
	flags.BoolVar(&io.Rehearsal, "rehearsal", false, "")
	flags.BoolVar(&io.JSON, "json", io.JSON, "")
	flags.BoolVar(&io.Yes, "yes", false, "")
	flags.BoolVar(&io.Verbose, "verbose", false, "")
	flags.BoolVar(&io.clockIsRight, "clock-is-right", false, "")
	return flags, run
}

// hasFlag tells which names are flags of a command, given with a value or not.
func (a *App) hasFlag(command string) func(name string) bool {
	cmd, _ := a.find(strings.Fields(command))
	if cmd == nil {
		return func(string) bool { return false }
	}
	flags, _ := a.flags(&IO{}, cmd)
	return func(name string) bool {
		name, _, _ = strings.Cut(name, "=")
		return flags.Lookup(name) != nil
	}
}

// FileFlag declares a flag whose value is a file that the command makes.
func FileFlag(flags *pflag.FlagSet, name string) *string {
	path := flags.String(name, "", "")
	flags.Lookup(name).Annotations = map[string][]string{ofFile: nil}
	return path
}

const ofFile, ofSecret = "file", "secret file"

// Named is what a flag names, which may be paths: never a secret itself.
func Named(f *pflag.Flag) []string {
	if paths, isSecret := f.Annotations[ofSecret]; isSecret {
		return paths
	}
	named, _ := texts(f)
	return named
}

// WrittenBy is where a flag has its command write: in the directory that it names, or in
// that of the file; empty if it was not given.
func WrittenBy(f *pflag.Flag) string {
	path := f.Value.String()
	if _, isFile := f.Annotations[ofFile]; isFile && path != "" {
		return filepath.Dir(path)
	}
	return path
}

// checkEmpty refuses a text flag that was given without a text, as by a script
// whose variable is not set: to take it for one that was not given would turn off
// what it asks for.
func checkEmpty(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if texts, is := texts(f); is && slices.Contains(texts, "") {
			err = control.CommandLine.Refuse("--%s is empty", f.Name)
		}
	})
	return err
}

// texts are the values of a flag, if it takes texts.
func texts(f *pflag.Flag) (texts []string, is bool) {
	if list, isList := f.Value.(pflag.SliceValue); isList {
		return list.GetSlice(), true
	}
	return []string{f.Value.String()}, f.Value.Type() == "string"
}

// around returns what runs a command, and declares its flags.
func (a *App) around(io *IO, flags *pflag.FlagSet) func(*IO, func() error) error {
	nothing := func(_ *IO, command func() error) error { return command() }
	if a.Around == nil {
		return nothing
	}
	around := a.Around(flags)
	if !io.ownsProcess {
		return nothing
	}
	return around
}

// asksForHelp tells -h from what pflag takes for it, such as -hsm-pin.
func asksForHelp(args []string) bool {
	return slices.Contains(args, "-h") || slices.Contains(args, "--help")
}

// flagError does not repeat what may be a secret, as pflag would: the value of
// a flag for secrets, or of a long flag with one dash.
func flagError(command string, err error) *control.Refusal {
	var unknown *pflag.NotExistError
	if errors.Is(err, pflag.ErrHelp) || errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "" {
		return control.CommandLine.Refuse("%s: a flag with one dash is unknown: flags begin with two", command)
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && invalid.GetFlag().Value.Type() == secretType {
		return control.CommandLine.Refuse("%s: the value of --%s can't be used", command, invalid.GetFlag().Name)
	}
	return control.CommandLine.Refuse("%s: %w", command, err)
}

// nearestFlag begins the hint to a flag that is unknown.
func nearestFlag(flags *pflag.FlagSet, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return ""
	}
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return didYouMean(nearest(unknown.GetSpecifiedName(), names))
}

// find returns the command that args begin with, by two words or one, and
// what follows.
func (a *App) find(args []string) (*Command, []string) {
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		for i := range a.Commands {
			if a.Commands[i].Name == name {
				return &a.Commands[i], args[words:]
			}
		}
	}
	return nil, nil
}

func (a *App) names() (names []string) {
	for _, c := range a.Commands {
		names = append(names, c.Name)
	}
	return names
}

func (a *App) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage: %s COMMAND [flags]; the commands, in the order of the ceremony:\n", a.Summary, a.Name)
	for _, c := range a.Commands {
		fmt.Fprintf(&b, "  %-18s %s\n", c.Name, c.Summary)
	}
	fmt.Fprintf(&b, "Also: %[1]s COMMAND --help, help flags, man, completion bash|zsh|powershell\n", a.Name)
	return b.String()
}

// explain is help about one thing, whole: a command, or the flags of all.
func (a *App) explain(io *IO, args []string) error {
	if args[0] == "flags" && len(args) == 1 {
		io.Print(a.commonFlags())
		return nil
	}
	cmd, rest := a.find(args)
	if cmd == nil || len(rest) > 0 {
		return a.unknown(args)
	}
	io.Print(cmd.usage() + a.footer())
	return nil
}

const commonHelp = `Every command takes
  --state DIR    state directory (default: $KEYFERRY_STATE, else
                 $XDG_STATE_HOME/keyferry-%[1]s)
  --rehearsal    the rehearsal, whose state directory is
                 $XDG_STATE_HOME/keyferry-%[1]s-rehearsal
  --json         print the result as one JSON document
  --yes          do not ask for confirmation
  --verbose      say more on standard error
  --clock-is-right  go on though a record or file is later than now; recorded
%[2]s
Exit codes: 0 done, 1 refused, 2 usage, 3 environment, 4 run it again to go on
`

func (a *App) commonFlags() string {
	return helpFor(runtime.GOOS, fmt.Sprintf(commonHelp, a.Name, strings.TrimLeft(a.AroundHelp, "\n")))
}

// helpFor has a help's paths as the system has them.
func helpFor(system, text string) string {
	if system != "windows" {
		return text
	}
	return strings.NewReplacer("/media/stick/", `E:\`, "/media/stick", `E:\`, "$XDG_STATE_HOME/", `%LOCALAPPDATA%\`, "$KEYFERRY_STATE", "%KEYFERRY_STATE%",
		"/usr/lib/softhsm/libsofthsm2.so", `C:\SoftHSM2\lib\softhsm2-x64.dll`).Replace(text)
}

func (a *App) footer() string {
	return fmt.Sprintf("\nFlags that every command takes, and exit codes: %s help flags\n", a.Name)
}

func (c *Command) usage() string { return helpFor(runtime.GOOS, strings.TrimLeft(c.Usage, "\n")) }

// screen is how many lines a terminal shows.
const screen = 24

// help is the help on a command, where it fits the screen with the next prompt. Else
// it is its beginning: how it is called, what it does, the names of its flags, an example.
func (c *Command) help(a *App) string {
	whole := c.usage() + a.footer()
	if strings.Count(whole, "\n") < screen {
		return whole
	}
	parts := strings.SplitN(c.usage(), "\n\n", 3) // synopsis, summary, and the rest
	var names []string
	flags := pflag.NewFlagSet(c.Name, pflag.ContinueOnError)
	c.Setup(flags)
	flags.SortFlags = false
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	brief := parts[0] + "\n\n" + sheet.Wrap(parts[1], 80) + "\n\n" + sheet.Wrap("Flags: "+strings.Join(names, ", "), 80) + "\n"
	if i := strings.LastIndex(c.usage(), "\nExample"); i >= 0 {
		example, _, _ := strings.Cut(c.usage()[i+1:], "\n\n")
		brief += "\n" + strings.TrimRight(example, "\n") + "\n"
	}
	return brief + fmt.Sprintf("\nEach of them: %[1]s help %[2]s. Of every command: %[1]s help flags\n", a.Name, c.Name)
}

// NoArguments refuses positional arguments.
func (o *IO) NoArguments(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return o.surplus(args, "")
}

// OneArgument returns the only positional argument; what names it to people.
func (o *IO) OneArgument(args []string, what string) (string, error) {
	switch len(args) {
	case 0:
		return "", control.CommandLine.Refuse("the %s is missing", what)
	case 1:
		return args[0], nil
	}
	return "", o.surplus(args[1:], "it takes one "+what+", and a path with blanks is quoted; ")
}

// surplus refuses arguments and shows them, but not where one may be a password
// that was meant for the flag before it.
func (o *IO) surplus(args []string, hint string) error {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = control.Quote(arg)
	}
	text := strings.Join(shown, ", ")
	if o.secretTyped {
		text = "not shown, for a password may be among them"
	}
	return control.CommandLine.Refuse("too many arguments, which belong to no flag: %s", text).
		WithHint("%sa password goes in a file (--…-file PATH) or is typed at the prompt; the other flags take their value as --flag VALUE", hint)
}

// Require refuses flags that were left out.
func Require(flags *pflag.FlagSet, names ...string) error {
	for _, name := range names {
		if !flags.Changed(name) {
			return control.CommandLine.Refuse("--%s is missing", name)
		}
	}
	return nil
}
