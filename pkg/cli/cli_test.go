// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
)

// outcome is what a run of the program left.
type outcome struct {
	code           int
	stdout, stderr string
}

// run runs an App with the one command "test", which takes the usual flags, and
// those that setup declares.
type program struct {
	setup func(flags *pflag.FlagSet) Run
	stdin string
}

func (p program) run(t *testing.T, args ...string) outcome {
	t.Helper()
	t.Setenv("KEYFERRY_STATE", "/state")
	var stdout, stderr bytes.Buffer
	code := testApp(p.setup).Run(t.Context(), args, strings.NewReader(p.stdin), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

func testApp(setup func(flags *pflag.FlagSet) Run) *App {
	return &App{
		Name:    "offline",
		Summary: "offline: a test",
		Version: "keyferry offline, test",
		Commands: []Command{
			{Name: "test", Summary: "tests", Usage: "\nUsage: offline test\n", Setup: setup},
			{Name: "test verify", Summary: "tests more", Usage: "Usage: offline test verify\n", Setup: func(*pflag.FlagSet) Run {
				return func(_ context.Context, io *IO, args []string) error { return io.Result(args, "verified") }
			}},
		},
		Seeds: []Seed{testSeed},
	}
}

// does is a program whose command needs no flags of its own.
func does(run func(io *IO) error) program {
	return program{setup: func(*pflag.FlagSet) Run {
		return func(_ context.Context, io *IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			return run(io)
		}
	}}
}

// refusedBy checks exit code and control of an outcome.
func (o outcome) refusedBy(t *testing.T, c control.Control, says ...string) {
	t.Helper()
	if o.code != int(c.Class) || !strings.Contains(o.stderr, "["+c.ID+"]") {
		t.Errorf("exit code %d, %q; want %d and %s", o.code, o.stderr, c.Class, c.ID)
	}
	for _, s := range says {
		if !strings.Contains(o.stderr, s) {
			t.Errorf("%q does not say %q", o.stderr, s)
		}
	}
}

func (o outcome) done(t *testing.T, stdout string) {
	t.Helper()
	if o.code != 0 || o.stdout != stdout {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %q", o.code, o.stdout, o.stderr, stdout)
	}
}

func TestFindingTheCommand(t *testing.T) {
	p := does(func(io *IO) error { return io.Result(map[string]int{"n": 1}, "done") })
	p.run(t, "test").done(t, "done\n")
	p.run(t, "test", "verify").done(t, "verified\n")
	p.run(t, "test", "--json").done(t, "{\n  \"n\": 1\n}\n")
	p.run(t, "--version").done(t, "keyferry offline, test\n")

	none := p.run(t)
	none.refusedBy(t, control.CommandLine, "no command", "the commands, in the order of the ceremony", "test verify")
	if none.stdout != "" {
		t.Errorf("stdout: %q", none.stdout)
	}
	p.run(t, "toast").refusedBy(t, control.CommandLine, `"toast" is not a command of offline`, "hint: the commands are: test, test verify")
	p.run(t, "test", "--nonsense").refusedBy(t, control.CommandLine, "unknown flag: --nonsense", "see `offline test --help`")
	p.run(t, "test", "--state").refusedBy(t, control.CommandLine, "flag needs an argument: --state")
	p.run(t, "test", "extra").refusedBy(t, control.CommandLine, "too many arguments, which belong to no flag: \"extra\"")
}

// Help of more lines than a screen has is its beginning with the names of the flags.
func TestHelpOfManyLines(t *testing.T) {
	usage := "\nUsage: offline test\n\nTests.\n\n  --long TEXT   explained " + strings.Repeat("on\n                ", 30) + "end\n\nExample: offline test\n"
	app := &App{Name: "offline", Commands: []Command{{Name: "test", Usage: usage, Setup: func(flags *pflag.FlagSet) Run {
		flags.String("long", "", "")
		return nil
	}}}}
	for _, c := range []struct{ args, want string }{
		{"test --help", "Usage: offline test\n\nTests.\n\nFlags: --long\n\nExample: offline test\n\nEach of them: offline help test. Of every command: offline help flags\n"},
		{"help flags", app.commonFlags()},
		{"help test", strings.TrimPrefix(usage, "\n") + app.footer()},
	} {
		var out strings.Builder
		if code := app.Run(t.Context(), strings.Fields(c.args), nil, &out, &out); code != 0 || out.String() != c.want {
			t.Errorf("%s: %d, %q", c.args, code, out.String())
		}
	}
	var out strings.Builder
	if code := app.Run(t.Context(), []string{"help", "toast"}, nil, &out, &out); code != 2 || !strings.Contains(out.String(), `"toast" is not a command`) {
		t.Errorf("%d, %q", code, out.String())
	}
}

func TestHelp(t *testing.T) {
	p := does(func(*IO) error { return control.MachineFailed.Refuse("the command ran") })
	for _, args := range [][]string{{"help"}, {"--help"}, {"-h"}} {
		got := p.run(t, args...)
		got.done(t, got.stdout)
		for _, s := range []string{"offline: a test", "test verify", "tests more", "offline COMMAND --help"} {
			if !strings.Contains(got.stdout, s) {
				t.Errorf("%s: %q lacks %q", args, got.stdout, s)
			}
		}
	}
	for _, args := range [][]string{{"test", "--help"}, {"test", "-h"}, {"test", "--yes", "--help"}} {
		got := p.run(t, args...)
		got.done(t, got.stdout)
		if !strings.HasPrefix(got.stdout, "Usage: offline test\n") || !strings.Contains(got.stdout, "offline help flags") || got.stderr != "" {
			t.Errorf("%s: stdout %q, stderr %q", args, got.stdout, got.stderr)
		}
	}
	// pflag takes -hsm-pin for -h
	p.run(t, "test", "-hsm-pin").refusedBy(t, control.CommandLine, "flags begin with two")
}

// An argument is shown, but not where a password may stand.
func TestMisplacedPasswordIsNotShown(t *testing.T) {
	p := program{setup: func(flags *pflag.FlagSet) Run {
		AddSecretFlags(flags, "protection-password", "protection password", true)
		return func(_ context.Context, io *IO, args []string) error { return io.NoArguments(args) }
	}}
	for name, args := range map[string][]string{
		"value after a blank":     {"test", "--protection-password", "hunter2"},
		"one dash":                {"test", "-protection-password=hunter2"},
		"one dash, -h":            {"test", "-hunter2"},
		"before the command":      {"--protection-password=hunter2", "test"},
		"file descriptor":         {"test", "--protection-password-fd=hunter2"},
		"value that has blanks":   {"test", "--protection-password=my", "hunter2"},
		"seed, value with a dash": {"-Import", "-Password", "-hunter2"},
		"seed, value with blanks": {"-Import", "-Path", "f", "-Password", "my", "hunter2"},
		"seed, colon":             {"-Import", "-Password:hunter2"},
		"after the flags":         {"test", "--protection-password", "--", "hunter2"},
	} {
		for _, json := range []string{"--json=false", "--json"} {
			got := p.run(t, append(args, json)...)
			got.refusedBy(t, control.CommandLine)
			if strings.Contains(got.stdout+got.stderr, "hunter2") {
				t.Errorf("%s: it is shown: %s%s", name, got.stdout, got.stderr)
			}
		}
	}
}

func TestSurplusArgumentIsShown(t *testing.T) {
	p := program{setup: func(flags *pflag.FlagSet) Run {
		AddSecretFlags(flags, "protection-password", "protection password", true)
		return func(_ context.Context, io *IO, args []string) error { return io.NoArguments(args) }
	}}
	for _, args := range [][]string{{"test", "word"}, {"test", "--protection-password-file", "f", "word"}, {"test", "--", "word"}, {"-Import", "-Path", "f", "word"}, {"word"}} {
		if got := p.run(t, args...); !strings.Contains(got.stderr, "word") {
			t.Errorf("%s: %s", args, got.stderr)
		}
	}
	p.run(t, "tset").refusedBy(t, control.CommandLine, "did you mean test?")
	p.run(t, "test", "--protection-pasword-file", "f").refusedBy(t, control.CommandLine, "did you mean --protection-password-file?")
	p.run(t, "test", "–-JSON", "—yes").done(t, "")
}

func TestDefaultState(t *testing.T) {
	p := does(func(io *IO) error { return io.Result(nil, io.State) })
	for _, c := range []struct{ flag, keyferry, xdg, home, want string }{
		{"/flag", "/k", "/x", "/h", "/flag"},
		{"", "/k", "/x", "/h", "/k"},
		{"", "", "/x", "/h", "/x/keyferry-offline"},
		{"", "", "", "/h", "/h/.local/state/keyferry-offline"},
	} {
		t.Setenv("KEYFERRY_STATE", c.keyferry)
		t.Setenv("XDG_STATE_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		args := []string{"test"}
		if c.flag != "" {
			args = append(args, "--state", c.flag)
		}
		var stdout bytes.Buffer
		code := testApp(p.setup).Run(t.Context(), args, nil, &stdout, io.Discard)
		if got := stdout.String(); code != 0 || got != c.want+"\n" {
			t.Errorf("%+v: got %q, exit code %d", c, got, code)
		}
	}
	t.Setenv("HOME", "")
	var stderr bytes.Buffer
	code := testApp(p.setup).Run(t.Context(), []string{"test"}, nil, io.Discard, &stderr)
	outcome{code, "", stderr.String()}.refusedBy(t, control.StateMissing)
}

func TestPlaces(t *testing.T) {
	p := does(func(io *IO) error {
		io.Note("a note\nof two lines")
		io.Warn("a warning")
		io.Detail("a detail")
		return io.Result(nil, "the result\n")
	})
	got := p.run(t, "test")
	got.done(t, "the result\n")
	if got.stderr != "offline: a note\noffline: of two lines\noffline: warning: a warning\n" {
		t.Errorf("stderr: %q", got.stderr)
	}
	if got := p.run(t, "test", "--verbose"); !strings.Contains(got.stderr, "offline: a detail\n") {
		t.Errorf("stderr: %q", got.stderr)
	}
}

// A result that can't be printed is not success, unless something was changed by
// then: that is done.
func TestResultThatCannotBePrinted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := does(func(io *IO) error { return io.Result(nil, "x") })
	t.Setenv("KEYFERRY_STATE", "/state")
	for _, args := range [][]string{{"test"}, {"test", "--json"}, {"help"}, {"test", "--help"}, {"--version"}} {
		var stderr bytes.Buffer
		app := testApp(p.setup)
		app.Commands[0].Shows = true
		code := app.Run(t.Context(), args, nil, full, &stderr)
		outcome{code, "", stderr.String()}.refusedBy(t, control.DiskFull)
	}
	for _, args := range [][]string{{"test"}, {"test", "--json"}} {
		var stderr bytes.Buffer
		if code := testApp(p.setup).Run(t.Context(), args, nil, full, &stderr); code != 0 || !strings.Contains(stderr.String(), "it is done, but") {
			t.Errorf("exit code %d, %q", code, stderr.String())
		}
	}
}

func TestRequire(t *testing.T) {
	p := program{setup: func(flags *pflag.FlagSet) Run {
		flags.String("a", "default", "")
		flags.StringArray("b", nil, "")
		return func(context.Context, *IO, []string) error { return Require(flags, "a", "b") }
	}}
	p.run(t, "test", "--a", "x", "--b", "y").done(t, "")
	p.run(t, "test", "--b", "y").refusedBy(t, control.CommandLine, "--a is missing")
	p.run(t, "test", "--a", "x").refusedBy(t, control.CommandLine, "--b is missing")
	p.run(t, "test", "--a", "", "--b", "y").refusedBy(t, control.CommandLine, "--a is empty")
	p.run(t, "test", "--a", "x", "--b", "").refusedBy(t, control.CommandLine, "--b is empty")
}

func TestOneArgument(t *testing.T) {
	p := program{setup: func(*pflag.FlagSet) Run {
		return func(_ context.Context, io *IO, args []string) error {
			file, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return io.Result(nil, file)
		}
	}}
	p.run(t, "test", "f").done(t, "f\n")
	p.run(t, "test").refusedBy(t, control.CommandLine, "the bundle is missing")
	p.run(t, "test", "f", "g").refusedBy(t, control.CommandLine, "belong to no flag: \"g\"")
}

// Nothing that a terminal obeys gets to either stream, wherever it came from, and a
// JSON document keeps its values.
func TestOnlyTextIsPrinted(t *testing.T) {
	const hostile = "Söhne \x1b[2J\u009b1m \u202eknil 株\U000e0041"
	for _, asJSON := range []bool{false, true} {
		var out, errs bytes.Buffer
		io := &IO{stdout: &out, stderr: &errs, program: "offline", JSON: asJSON}
		if err := io.Result(map[string]string{"name": hostile}, "name: "+hostile+"\n\fpage"); err != nil {
			t.Fatal(err)
		}
		io.Warn("%s", hostile)
		for _, text := range []string{out.String(), errs.String()} {
			if strings.ContainsAny(text, "\x1b\u009b\u202e\U000e0041") {
				t.Errorf("a terminal obeys %q", text)
			}
			if !strings.Contains(text, "Söhne") || !strings.Contains(text, "株") {
				t.Errorf("letters are escaped: %s", text)
			}
		}
		if !asJSON {
			if !strings.Contains(out.String(), `\x1b[2J\u009b1m \u202eknil`) || !strings.Contains(out.String(), "\n\fpage\n") {
				t.Errorf("got %q", out.String())
			}
			continue
		}
		var doc map[string]string
		if err := json.Unmarshal(out.Bytes(), &doc); err != nil || doc["name"] != hostile {
			t.Errorf("got %q, %v", doc, err)
		}
	}
}

// What Windows can't have as a path is refused with the words that help; texts are no
// paths.
func TestPathsOfWindows(t *testing.T) {
	parse := func(args ...string) error {
		flags := pflag.NewFlagSet("seal", pflag.ContinueOnError)
		flags.String("out", "", "")
		flags.StringArray("key", nil, "")
		flags.String("hsm-token", "", "")
		flags.String("vault-url", "", "")
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		return checkPaths(flags)
	}
	for _, good := range [][]string{
		{`--out=E:\USB DISK`, `C:\Büro 1\x.kfb`}, {`--out=E:\`}, {`--out=\\server\share\x`}, {"--hsm-token", `my "best" token`}, {"--vault-url", "https://aux.vault.azure.net"}, {"--key", "nul-1", "-"},
	} {
		if err := parse(good...); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []struct {
		args        []string
		says, hints string
	}{
		{[]string{`--out=E:\USB DISK" --state x`}, `--out holds a double quote`, `before the quote, or double it: "E:\USB DISK" or "E:\USB DISK\\"`},
		{[]string{"--key", "a", "--key", `E:\b"`}, `--key holds a double quote`, `"E:\b"`},
		{[]string{"x", `E:\My Stick"`}, `argument 2 holds a double quote`, `"E:\My Stick"`},
		{[]string{"--out", `E:\Aux.txt`}, `Windows takes that for a device`, "another name"},
		{[]string{`\\.\nul`}, `argument 1, `, "another name"},
	} {
		err := parse(bad.args...)
		r := new(control.Refusal)
		if !errors.As(err, &r) || !control.Is(err, control.CommandLine) || !strings.Contains(err.Error(), bad.says) || !strings.Contains(r.Hint, bad.hints) {
			t.Errorf("%q: %v, hint %q", bad.args, err, r.Hint)
		}
	}
}

// Help names places as the system has them.
func TestHelpOfASystem(t *testing.T) {
	const text = "default: $KEYFERRY_STATE, else $XDG_STATE_HOME/keyferry-offline\nseal --out /media/stick, /media/stick/x.kfb"
	for system, want := range map[string]string{
		"linux":   text,
		"windows": "default: %KEYFERRY_STATE%, else %LOCALAPPDATA%\\keyferry-offline\nseal --out E:\\, E:\\x.kfb",
	} {
		if got := helpFor(system, text); got != want {
			t.Errorf("%s: %q", system, got)
		}
	}
}
