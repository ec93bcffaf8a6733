// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/secret"
)

// SecretFlags are the flags by which a command takes secrets: --NAME-file PATH
// and --NAME-fd N, in any number and order, and where a value is allowed
// --NAME=VALUE, which works and warns. Without any of them, or with a bare
// --NAME, the secret is asked for on the terminal.
type SecretFlags struct {
	name     string // of the flags
	question string
	bare     bool // --NAME was given, without a value
	sources  []func(context.Context, *IO) ([]byte, error)
}

// AddSecretFlags declares them. question is what a prompt asks for.
func AddSecretFlags(flags *pflag.FlagSet, name, question string, valueAllowed bool) *SecretFlags {
	s := &SecretFlags{name: name, question: question}
	var file *pflag.Flag
	file = flags.VarPF(secretValue(func(path string) error {
		s.sources = append(s.sources, fromFile(path))
		return flags.SetAnnotation(name+"-file", ofSecret, append(file.Annotations[ofSecret], path))
	}), name+"-file", "", "")
	flags.Var(secretValue(s.addFD), name+"-fd", "")
	if valueAllowed {
		flags.Var(secretValue(s.addValue), name, "")
		flags.Lookup(name).NoOptDefVal = askForIt
	}
	return s
}

// SecretFile is a secret that is in a file, as if --NAME-file had named it.
func SecretFile(path, question string) *SecretFlags {
	return &SecretFlags{question: question, sources: []func(context.Context, *IO) ([]byte, error){fromFile(path)}}
}

func fromFile(path string) func(context.Context, *IO) ([]byte, error) {
	return func(_ context.Context, io *IO) ([]byte, error) {
		if secret.IsReadByOthers(path) {
			io.Warn("%s holds a secret, and others on this machine can read it: chmod 600 %s", path, path)
		}
		return secret.FromFile(path)
	}
}

// askForIt is what pflag hands over for --NAME without a value. A password
// can't hold it: a line feed ends one.
const askForIt = "\n"

func (s *SecretFlags) addFD(text string) error {
	fd, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return control.CommandLine.Refuse("a file descriptor is a small number")
	}
	s.sources = append(s.sources, func(context.Context, *IO) ([]byte, error) { return secret.FromFD(uint(fd)) })
	return nil
}

func (s *SecretFlags) addValue(value string) error {
	if value == askForIt {
		s.bare = true // and ask, as when no flag is used
		return nil
	}
	s.sources = append(s.sources, func(_ context.Context, io *IO) ([]byte, error) {
		if value == "" {
			return nil, control.SecretEmpty.Refuse("the %s on the command line is empty", s.question)
		}
		io.Warn("the %s stood on the command line, where other programs and the shell's history can see it: use a file or the prompt", s.question)
		return []byte(value), nil
	})
	return nil
}

func (s *SecretFlags) ask(ctx context.Context, _ *IO) ([]byte, error) {
	return secret.Prompt(ctx, s.question)
}

// CheckPaths refuses positional arguments that are no files where a bare --NAME
// was given: --NAME VALUE makes the value one of them. They are not shown, here
// or anywhere after.
func (s *SecretFlags) CheckPaths(args []string) error {
	for i, arg := range args {
		if info, err := os.Stat(arg); s.bare && (err != nil || info.IsDir()) {
			return control.CommandLine.Refuse("argument %d is no file: it may be the %s, which can't stand behind --%s", i+1, s.question, s.name).
				WithHint("a secret goes in a file (--%s-file PATH) or is typed at the prompt; on the command line it would be --%s=VALUE", s.name, s.name)
		}
	}
	return nil
}

// Given reports whether any of the flags was used.
func (s *SecretFlags) Given() bool { return len(s.sources) > 0 }

// Read returns n secrets: as many as sources were given, or one for all n; it
// asks on the terminal when none was. The caller clears them.
func (s *SecretFlags) Read(ctx context.Context, io *IO, n int) ([][]byte, error) {
	sources := s.sources
	if len(sources) == 0 {
		sources = append(sources, s.ask)
	}
	if len(sources) != 1 && len(sources) != n {
		return nil, control.CommandLine.Refuse("%d %ss were given for %d: want one for all, or one each", len(sources), s.question, n)
	}
	var secrets [][]byte
	for _, source := range sources {
		value, err := source(ctx, io)
		if err != nil {
			for _, s := range secrets {
				clear(s)
			}
			return nil, err
		}
		if last, _ := utf8.DecodeLastRune(value); unicode.IsSpace(last) {
			io.Warn("the %s ends with a blank, which is part of it", s.question)
		}
		secrets = append(secrets, value)
	}
	for len(secrets) < n {
		secrets = append(secrets, append([]byte(nil), secrets[0]...))
	}
	return secrets, nil
}

// ReadEach returns a secret for each of the named things and checks it at once.
// Where none of the flags was used, it asks for each by its name, but not where a
// secret that was typed before passes the check. The caller clears them.
func (s *SecretFlags) ReadEach(ctx context.Context, io *IO, of []string, check func(i int, secret []byte) error) (secrets [][]byte, err error) {
	defer func() {
		if err != nil {
			for _, secret := range secrets {
				clear(secret)
			}
			secrets = nil
		}
	}()
	if len(of) == 0 && !s.Given() {
		return nil, nil
	}
	if s.Given() {
		if secrets, err = s.Read(ctx, io, len(of)); err != nil {
			return secrets, err
		}
		for _, unused := range secrets[len(of):] {
			clear(unused)
		}
		secrets = secrets[:len(of)]
		var problems []error
		for i, name := range of {
			if err := check(i, secrets[i]); err != nil {
				problems = append(problems, control.About(name, err))
			}
		}
		return secrets, errors.Join(problems...)
	}
	for i, name := range of {
		if at := slices.IndexFunc(secrets, func(typed []byte) bool { return check(i, typed) == nil }); at >= 0 {
			secrets = append(secrets, slices.Clone(secrets[at]))
			continue
		}
		typed, err := secret.Prompt(ctx, control.Plain(name)+": "+s.question)
		if err != nil {
			return secrets, err
		}
		secrets = append(secrets, typed)
		if err := check(i, typed); err != nil {
			return secrets, control.About(control.Plain(name), err)
		}
	}
	return secrets, nil
}

// ReadOne returns the one secret.
func (s *SecretFlags) ReadOne(ctx context.Context, io *IO) ([]byte, error) {
	secrets, err := s.Read(ctx, io, 1)
	if err != nil {
		return nil, err
	}
	return secrets[0], nil
}

// secretValue adapts a function to pflag.Value.
type secretValue func(string) error

func (f secretValue) Set(s string) error { return f(s) }
func (f secretValue) String() string     { return "" }
func (f secretValue) Type() string       { return secretType }

const secretType = "secret"
