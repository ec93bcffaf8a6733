// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyferry/pkg/control"
)

// The exit code is the class of what refused, for each class and for what only
// the operating system names.
func TestExitCodes(t *testing.T) {
	missing := func() error { _, err := os.Open("/none"); return err }()
	full := &os.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}
	for name, c := range map[string]struct {
		err  error
		want control.Control
		code int
	}{
		"refused":                  {control.TPDPassword.Refuse("x"), control.TPDPassword, 1},
		"usage":                    {control.CommandLine.Refuse("x"), control.CommandLine, 2},
		"environment":              {control.HSMPIN.Refuse("x"), control.HSMPIN, 3},
		"unfinished":               {control.HSMLeftover.Refuse("x"), control.HSMLeftover, 4},
		"wrapped":                  {fmt.Errorf("more: %w", control.TPDPassword.Refuse("x")), control.TPDPassword, 1},
		"no such file":             {missing, control.InputFile, 2},
		"no such file, refused":    {control.StateMissing.Refuse("x: %w", missing), control.StateMissing, 3},
		"other":                    {io.ErrUnexpectedEOF, control.MachineFailed, 3},
		"disk full":                {full, control.DiskFull, 3},
		"quota":                    {syscall.EDQUOT, control.DiskFull, 3},
		"disk full below refusal":  {control.HSMImport.Refuse("x: %w", full), control.DiskFull, 3},
		"disk full, second cause":  {control.ReadBack.Refuse("%w: %w", io.EOF, full), control.DiskFull, 3},
		"disk full, joined below":  {control.TPDPassword.Refuse("x: %w", errors.Join(io.EOF, full)), control.DiskFull, 3},
		"interrupted":              {fmt.Errorf("call: %w", context.Canceled), control.Interrupted, 4},
		"interrupted in the vault": {control.VaultUnreachable.Refuse("x: %w", context.Canceled), control.Interrupted, 4},
		"interrupted, and told so": {control.Interrupted.Refuse("x: %w", context.Canceled), control.Interrupted, 4},
		"first of a join":          {errors.Join(control.TPDPassword.Refuse("x"), full), control.TPDPassword, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := does(func(*IO) error { return c.err }).run(t, "test")
			got.refusedBy(t, c.want)
			if got.code != c.code || got.stdout != "" {
				t.Errorf("exit code %d, stdout %q", got.code, got.stdout)
			}
			if !strings.Contains(got.stderr, "offline: hint: "+c.want.Hint+"\n") {
				t.Errorf("no hint in %q", got.stderr)
			}
		})
	}
}

func TestErrorDocument(t *testing.T) {
	err := errors.Join(
		control.TPDPassword.Refuse("the password is wrong").WithHint("try %s", "again"),
		errors.Join(nil, control.DiskFull.Refuse("no room")),
		io.ErrUnexpectedEOF)
	got := does(func(*IO) error { return err }).run(t, "test", "--json")
	type failure struct{ Control, Message, Hint string }
	var doc struct {
		Error  failure
		Errors []failure
	}
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		t.Fatalf("%v: %q", err, got.stdout)
	}
	want := []failure{
		{control.TPDPassword.ID, "the password is wrong", "try again"},
		{control.DiskFull.ID, "no room", control.DiskFull.Hint},
		{control.MachineFailed.ID, "unexpected EOF", control.MachineFailed.Hint},
	}
	if got.code != 1 || doc.Error != want[0] || fmt.Sprint(doc.Errors) != fmt.Sprint(want) {
		t.Errorf("exit code %d, %s", got.code, got.stdout)
	}
	for _, f := range want {
		if !strings.Contains(got.stderr, "offline: error: "+f.Message+" ["+f.Control+"]\noffline: hint: "+f.Hint+"\n") {
			t.Errorf("stderr lacks %s: %q", f.Control, got.stderr)
		}
	}
}

// Programs get their document also when the command line is wrong.
func TestErrorDocumentForUsage(t *testing.T) {
	p := does(func(*IO) error { return nil })
	for _, args := range [][]string{{"--json"}, {"toast", "--json"}, {"test", "--nonsense", "--json"}, {"test", "extra", "--json"}, {"-Import", "x", "--json"}} {
		got := p.run(t, args...)
		var doc struct{ Error struct{ Control string } }
		if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || doc.Error.Control != control.CommandLine.ID || got.code != 2 {
			t.Errorf("%s: exit code %d, %q, %v", args, got.code, got.stdout, err)
		}
	}
	if got := p.run(t, "test", "extra"); got.stdout != "" {
		t.Errorf("without --json: stdout %q", got.stdout)
	}
}

// One document on standard output, whatever happens after it.
func TestOneDocument(t *testing.T) {
	got := does(func(io *IO) error {
		return errors.Join(io.Result(map[string]int{"n": 1}, ""), control.ReceiptDiffers.Refuse("x"))
	}).run(t, "test", "--json")
	got.refusedBy(t, control.ReceiptDiffers)
	if got.stdout != "{\n  \"n\": 1\n}\n" {
		t.Errorf("stdout: %q", got.stdout)
	}
}

func TestReadInput(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadInput(path); err != nil || string(data) != "data" {
		t.Errorf("got %q, %v", data, err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxInput+1); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "directory": dir, "too large": large} {
		if _, err := ReadInput(path); !control.Is(err, control.InputFile) {
			t.Errorf("%s: got %v, want %s", name, err, control.InputFile.ID)
		}
	}
	if _, err := ReadInput(filepath.Join(dir, "a\x1b[2J\nb")); err == nil || !strings.Contains(err.Error(), `/a\x1b[2J\nb: no such file`) {
		t.Errorf("a name is shown raw: %v", err)
	}
}

// A name on a stick is no command to the terminal, whatever error it stands in.
func TestTerminalIsLeftAlone(t *testing.T) {
	for file, shown := range map[string]string{
		"contoso – Übersicht.xml": "open /none/contoso – Übersicht.xml: ",
		"a\x1b[31m.xml":           `open /none/a\x1b[31m.xml: `,
		"a\u202e\u009b.xml":       `open /none/a\u202e\u009b.xml: `,
	} {
		got := does(func(*IO) error { _, err := os.Open("/none/" + file); return err }).run(t, "test")
		if !strings.Contains(got.stderr, shown) {
			t.Errorf("%q", got.stderr)
		}
	}
}
