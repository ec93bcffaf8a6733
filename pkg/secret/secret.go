// SPDX-License-Identifier: Apache-2.0

// Package secret reads passwords and PINs and keeps them out of sight.
//
// A secret is a []byte whose reader clears it (with the built-in clear) as
// soon as it was used. It comes from the terminal, a file or an open file
// descriptor, never from the environment. Go's garbage collector does not copy
// heap objects, so a cleared buffer is gone; what the crypto packages of the
// standard library copy internally is not reached.
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"keyferry/pkg/control"
	"keyferry/pkg/textfile"
)

// maxSize bounds a password or PIN in bytes.
const maxSize = 4096

// FromFile reads a secret from path: its one line, of UTF-8 or UTF-16 (see
// package textfile), without the line end. More lines, and what is no text, are
// refused before anything is tried with it: a wrong PIN is a try less.
//
// The path - is standard input. Of /dev/fd/N, a shell's <(command), the descriptor
// is read itself: a process that forbade core dumps can't open its own
// /proc/self/fd.
func FromFile(path string) ([]byte, error) {
	if path == "-" {
		return FromFD(0)
	}
	if n, found := strings.CutPrefix(path, "/dev/fd/"); found {
		if fd, err := strconv.ParseUint(n, 10, 31); err == nil {
			return FromFD(uint(fd))
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, control.InputFile.Refuse("the secret's file can't be read: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && shared(info, 0o022) {
		return nil, control.SecretShared.Refuse("%s, which holds a secret, can be changed by others on this machine (mode %04o)", path, info.Mode().Perm()).
			WithHint("`chmod 600 %s`, as ssh wants it of a key; if others may have read the password or PIN, change it", path)
	}
	return read(f, path)
}

// IsReadByOthers reports whether a secret's file lets others on this machine read it.
func IsReadByOthers(path string) bool {
	info, err := os.Stat(path)
	return err == nil && shared(info, 0o044)
}

// FromFD reads a secret from an open file descriptor to its end, as FromFile. It
// must be one that the process was started with: what Go opens for itself, such as
// a file with a number in it, would be tried as the PIN.
func FromFD(fd uint) ([]byte, error) {
	f, name := inherited(fd), "file descriptor "+strconv.FormatUint(uint64(fd), 10)
	if f == nil {
		return nil, control.InputFile.Refuse("%s is not open", name)
	}
	return read(f, name)
}

func read(f *os.File, name string) ([]byte, error) {
	if term.IsTerminal(int(f.Fd())) {
		return nil, control.InputFile.Refuse("%s is a terminal, which would show what is typed", name).
			WithHint("leave the flag out: the secret is asked for and not shown; or give it by a pipe or a file")
	}
	buf := make([]byte, maxSize+1)
	n, err := io.ReadFull(f, buf)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(buf)
		if err == nil {
			return nil, control.SecretEmpty.Refuse("%s holds more than %d bytes: it is no password or PIN", name, maxSize)
		}
		return nil, control.InputFile.Refuse("the secret can't be read: %w", err)
	}
	text, err := textfile.Decode(buf[:n])
	if err != nil {
		return nil, control.SecretEmpty.Refuse("%s holds no password or PIN: %w", name, err)
	}
	s := bytes.TrimSuffix(text, []byte("\n"))
	s = bytes.TrimSuffix(s, []byte("\r"))
	switch {
	case len(s) == 0:
		return nil, control.SecretEmpty.Refuse("%s holds no password or PIN", name)
	case bytes.ContainsRune(s, '\n'):
		clear(text)
		return nil, control.SecretEmpty.Refuse("%s holds more than one line", name)
	}
	return s, nil
}

// readLine reads what is typed up to the end of the line. It leaves the terminal
// as it is, so that nothing is done to it once [Prompt] has put it back.
func readLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxSize) // never moved, which would leave a copy
	for char := make([]byte, 1); ; {
		n, err := r.Read(char)
		switch {
		case n == 0 && err == nil:
		case n == 0 && errors.Is(err, io.EOF) && len(line) > 0, n == 1 && char[0] == '\n':
			return bytes.TrimSuffix(line, []byte("\r")), nil
		case n == 1 && len(line) == maxSize:
			err = errors.New("it is too long")
			fallthrough
		case n == 0:
			clear(line)
			time.Sleep(Settle)
			return nil, err
		default:
			line = append(line, char[0])
		}
	}
}

// terminal is where a person types and reads, whatever the standard streams are.
type terminal struct{ in, out *os.File }

func (t terminal) Close() error { return errors.Join(t.in.Close(), t.out.Close()) }

// Prompt asks for a secret on the terminal, without echo. The terminal is put back
// as it was when the secret was given, when ctx ends, and while the program is
// suspended; when it goes on it asks again.
func Prompt(ctx context.Context, question string) ([]byte, error) {
	tty, err := openTerminal()
	if err != nil {
		if control.Is(err, control.NoTerminal) {
			return nil, err
		}
		return nil, control.NoTerminal.Refuse("there is no terminal to ask for the %s", question)
	}
	before, err := term.GetState(int(tty.in.Fd()))
	ask := func() error { // silent before it asks: an answer may come at once
		err := silence(tty.in)
		fmt.Fprintf(tty.out, "%s: ", question)
		return err
	}
	suspended, stop := suspends()
	defer stop()
	goesOn, stop := GoesOn()
	defer stop()
	if err == nil {
		err = ask()
	}
	if err != nil {
		return nil, control.NoTerminal.Refuse("the terminal can't hide the %s: %w", question, errors.Join(err, tty.Close()))
	}
	type answer struct {
		secret []byte
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		s, err := readLine(tty.in)
		answered <- answer{s, err}
	}()
	var got answer
	for waiting := true; waiting; {
		select {
		case got = <-answered:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-suspended:
			err := term.Restore(int(tty.in.Fd()), before)
			fmt.Fprintln(tty.out)
			if err = errors.Join(err, suspend()); err != nil {
				got.err, waiting = err, false
			}
		case <-goesOn:
			if err := ask(); err != nil {
				got.err, waiting = err, false
			}
		}
	}
	got.err = errors.Join(got.err, term.Restore(int(tty.in.Fd()), before))
	fmt.Fprintln(tty.out)
	if ctx.Err() != nil { // the terminal stays open: a close would wait for what reads from it
		clear(got.secret)
		return nil, control.Interrupted.Refuse("interrupted before the %s was given", question)
	}
	switch got.err = errors.Join(got.err, tty.Close()); {
	case got.err != nil:
		clear(got.secret)
		return nil, control.NoTerminal.Refuse("the %s could not be read from the terminal: %w", question, got.err)
	case len(got.secret) == 0:
		return nil, control.SecretEmpty.Refuse("no %s was given", question)
	case !utf8.Valid(got.secret), bytes.IndexByte(got.secret, 0) >= 0:
		clear(got.secret)
		return nil, control.SecretEmpty.Refuse("what was typed is not UTF-8: the terminal uses another encoding").
			WithHint("set the terminal to UTF-8, or give the %s in a file of UTF-8", question)
	}
	return got.secret, nil
}

// Sweep erases, in a program whose toolchain has runtime/secret ([Erases]), what
// was allocated under [Do] and is not in use any more. Two rounds of garbage
// collection: pools, such as math/big has, let go at the second.
func Sweep() {
	if Erases {
		runtime.GC()
		runtime.GC()
	}
}
