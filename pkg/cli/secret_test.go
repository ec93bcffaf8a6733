// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
)

// readsSecrets is a program that prints the n secrets it got.
func readsSecrets(n int, valueAllowed bool) program {
	return program{setup: func(flags *pflag.FlagSet) Run {
		s := AddSecretFlags(flags, "pw", "password", valueAllowed)
		return func(ctx context.Context, io *IO, _ []string) error {
			secrets, err := s.Read(ctx, io, n)
			if err != nil {
				return err
			}
			return io.Result(nil, string(bytes.Join(secrets, []byte("|"))))
		}
	}}
}

func secretFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// secretFD returns a file descriptor that holds content; what reads it closes it.
func secretFD(t *testing.T, content string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(content); err != nil {
		t.Fatal(err)
	}
	w.Close()
	fd, err := syscall.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(fd)
}

func TestSecretSources(t *testing.T) {
	one := readsSecrets(1, true)
	one.run(t, "test", "--pw-file", secretFile(t, "in a file\n")).done(t, "in a file\n")
	one.run(t, "test", "--pw-fd", secretFD(t, "in a pipe\n")).done(t, "in a pipe\n")
	got := one.run(t, "test", "--pw=on the line")
	got.done(t, "on the line\n")
	if !strings.Contains(got.stderr, "warning: the password stood on the command line") || strings.Contains(got.stderr, "on the line") {
		t.Errorf("stderr: %q", got.stderr)
	}
	if got := one.run(t, "test", "--pw-file", secretFile(t, "x")); got.stderr != "" {
		t.Errorf("a file warns: %q", got.stderr)
	}
}

// A blank at the end is part of the secret, but one that nobody sees.
func TestSecretThatEndsWithABlank(t *testing.T) {
	one := readsSecrets(1, true)
	for _, value := range []string{"x ", "x\t", "x\u00a0", "x\u3000", "x \r"} {
		got := one.run(t, "test", "--pw-file", secretFile(t, value+"\n"))
		if got.code != 0 || !strings.Contains(got.stderr, "warning: the password ends with a blank, which is part of it") {
			t.Errorf("%q: exit code %d, %q", value, got.code, got.stderr)
		}
	}
	for _, value := range []string{" x", "x\r", "\ufeffx", "xé"} {
		if got := one.run(t, "test", "--pw-file", secretFile(t, value+"\n")); got.code != 0 || got.stderr != "" {
			t.Errorf("%q: exit code %d, %q", value, got.code, got.stderr)
		}
	}
}

func TestSecretsForSeveral(t *testing.T) {
	three := readsSecrets(3, true)
	three.run(t, "test", "--pw-file", secretFile(t, "a")).done(t, "a|a|a\n")
	three.run(t, "test", "--pw-file", secretFile(t, "a"), "--pw=b", "--pw-fd", secretFD(t, "c")).done(t, "a|b|c\n")
	three.run(t, "test", "--pw-fd", secretFD(t, "c"), "--pw=b", "--pw-file", secretFile(t, "a")).done(t, "c|b|a\n")
	three.run(t, "test", "--pw=a", "--pw=b").refusedBy(t, control.CommandLine, "2 passwords were given for 3")
	three.run(t, "test", "--pw=a", "--pw=b", "--pw=c", "--pw=d").refusedBy(t, control.CommandLine, "4 passwords were given for 3")
	readsSecrets(1, true).run(t, "test", "--pw=a", "--pw=b").refusedBy(t, control.CommandLine, "2 passwords were given for 1")
}

func TestSecretsRefused(t *testing.T) {
	one := readsSecrets(1, true)
	one.run(t, "test", "--pw-file", filepath.Join(t.TempDir(), "none")).refusedBy(t, control.InputFile)
	one.run(t, "test", "--pw-file", secretFile(t, "\n")).refusedBy(t, control.SecretEmpty)
	one.run(t, "test", "--pw=").refusedBy(t, control.SecretEmpty)
	one.run(t, "test", "--pw-fd", "9999").refusedBy(t, control.InputFile)
	for _, fd := range []string{"hunter2", "-1", "4294967296", ""} {
		got := one.run(t, "test", "--pw-fd="+fd)
		got.refusedBy(t, control.CommandLine, "the value of --pw-fd can't be used")
	}
	readsSecrets(1, false).run(t, "test", "--pw=x").refusedBy(t, control.CommandLine, "unknown flag: --pw")
}

// What a flag names is told without a secret.
func TestNamed(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddSecretFlags(flags, "pw", "password", true)
	flags.StringArray("list", nil, "")
	flags.String("text", "", "")
	flags.Bool("switch", false, "")
	if err := flags.Parse([]string{"--pw-file", "a", "--pw-file=b", "--pw=hunter2", "--pw-fd", "0", "--list=c", "--list=d", "--text", "e"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"pw-file": {"a", "b"}, "pw": {""}, "pw-fd": {""}, "list": {"c", "d"}, "text": {"e"}} {
		if got := Named(flags.Lookup(name)); !slices.Equal(got, want) {
			t.Errorf("--%s: %q, want %q", name, got, want)
		}
	}
}

// The copies that several TPDs get are cleared one by one.
func TestSecretsAreNotShared(t *testing.T) {
	s := SecretFile(secretFile(t, "abc"), "password")
	got, err := s.Read(t.Context(), &IO{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	clear(got[0])
	if string(got[1]) != "abc" || !s.Given() {
		t.Errorf("got %q, given: %v", got[1], s.Given())
	}
	if one, err := s.ReadOne(t.Context(), &IO{}); err != nil || string(one) != "abc" {
		t.Errorf("got %q, %v", one, err)
	}
	if (&SecretFlags{}).Given() {
		t.Error("given, without a flag")
	}
}

// A value behind the bare flag is an argument, and no file.
func TestSecretAmongPaths(t *testing.T) {
	p := program{setup: func(flags *pflag.FlagSet) Run {
		s := AddSecretFlags(flags, "pw", "password", true)
		return func(_ context.Context, io *IO, args []string) error {
			if err := s.CheckPaths(args); err != nil {
				return err
			}
			return io.Result(nil, "paths")
		}
	}}
	file, dir := secretFile(t, "x"), t.TempDir()
	for _, args := range [][]string{{"--pw", "hunter2"}, {file, "--pw", "hunter2"}, {"hunter2", "--pw"}, {"--pw", dir}, {"--pw", "--pw-file", file, "hunter2", file}} {
		got := p.run(t, append([]string{"test"}, args...)...)
		got.refusedBy(t, control.CommandLine, "can't stand behind --pw", "--pw-file PATH")
		if strings.Contains(got.stderr+got.stdout, "hunter2") {
			t.Errorf("%q: shown", args)
		}
	}
	for _, args := range [][]string{{"--pw", file}, {"--pw"}, {"nowhere"}, {"--pw=x", "nowhere"}, {"--pw-file", file, "nowhere"}} {
		p.run(t, append([]string{"test"}, args...)...).done(t, "paths\n")
	}
}
