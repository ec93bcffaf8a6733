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
	"strconv"
	"strings"

	"golang.org/x/term"

	"keyferry/pkg/control"
)

// maxSize bounds a password or PIN in bytes.
const maxSize = 4096

// FromFile reads a secret from path: its one line, less the line end and a UTF-8
// byte order mark at the beginning, which Windows editors add. More lines are
// refused: a wrong PIN is a try less.
//
// Of /dev/fd/N, a shell's <(command), the descriptor is read itself: a process
// that forbade core dumps can't open its own /proc/self/fd.
func FromFile(path string) ([]byte, error) {
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
	return read(f, path)
}

// FromFD reads a secret from an open file descriptor to its end, as FromFile. It
// must be one that the process was started with: what Go opens for itself, such as
// a file with a number in it, would be tried as the PIN.
func FromFD(fd uint) ([]byte, error) {
	var f *os.File
	if inherited(fd) {
		f = os.NewFile(uintptr(fd), "file descriptor "+strconv.FormatUint(uint64(fd), 10))
	}
	if f == nil {
		return nil, control.InputFile.Refuse("file descriptor %d is not open", fd)
	}
	return read(f, f.Name())
}

func read(r io.Reader, name string) ([]byte, error) {
	buf := make([]byte, maxSize+1)
	n, err := io.ReadFull(r, buf)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(buf)
		if err == nil {
			return nil, control.SecretEmpty.Refuse("%s holds more than %d bytes: it is no password or PIN", name, maxSize)
		}
		return nil, control.InputFile.Refuse("the secret can't be read: %w", err)
	}
	s := bytes.TrimPrefix(buf[:n], []byte("\ufeff"))
	s = bytes.TrimSuffix(s, []byte("\n"))
	s = bytes.TrimSuffix(s, []byte("\r"))
	switch {
	case len(s) == 0:
		return nil, control.SecretEmpty.Refuse("%s holds no password or PIN", name)
	case bytes.ContainsRune(s, '\n'):
		clear(buf)
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
			return nil, err
		default:
			line = append(line, char[0])
		}
	}
}

// terminal is where a person types and reads, whatever the standard streams are.
type terminal struct{ in, out *os.File }

func (t terminal) Close() error { return errors.Join(t.in.Close(), t.out.Close()) }

// Prompt asks for a secret on the terminal, without echo. When ctx ends first,
// the terminal is put back as it was.
func Prompt(ctx context.Context, question string) ([]byte, error) {
	tty, err := openTerminal()
	if err != nil {
		return nil, control.NoTerminal.Refuse("there is no terminal to ask for the %s", question)
	}
	defer tty.Close()
	before, err := term.GetState(int(tty.in.Fd()))
	if err != nil {
		return nil, control.NoTerminal.Refuse("there is no terminal to ask for the %s: %w", question, err)
	}
	if err := silence(tty.in); err != nil { // before it asks: an answer may come at once
		return nil, control.NoTerminal.Refuse("the terminal can't hide the %s: %w", question, err)
	}
	fmt.Fprintf(tty.out, "%s: ", question)
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
	select {
	case got = <-answered:
	case <-ctx.Done():
		got.err = control.Interrupted.Refuse("interrupted before the %s was given", question)
	}
	got.err = errors.Join(got.err, term.Restore(int(tty.in.Fd()), before))
	fmt.Fprintln(tty.out)
	switch {
	case control.Is(got.err, control.Interrupted):
		return nil, got.err
	case got.err != nil:
		return nil, control.NoTerminal.Refuse("the %s could not be read from the terminal: %w", question, got.err)
	case len(got.secret) == 0:
		return nil, control.SecretEmpty.Refuse("no %s was given", question)
	}
	return got.secret, nil
}
