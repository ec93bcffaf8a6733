// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/keyid"
)

// maxInput bounds a file that is read whole, in bytes: a TPD with thousands of
// templates has some 100 MB.
const maxInput = 256 << 20

// ReadInput reads a file that a person named, once, and not more of it than
// Keyferry takes.
func ReadInput(path string) ([]byte, error) {
	data, err := ReadAtMost(path, maxInput)
	if len(data) > maxInput {
		return nil, control.InputFile.Refuse("%s is larger than %d bytes", control.Plain(path), maxInput)
	}
	return data, err
}

// ReadAtMost reads a file that a person named, once. Of one that has more bytes it
// reads one more, for a parser to refuse.
func ReadAtMost(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(err)
	}
	defer f.Close()
	var data bytes.Buffer
	if info, err := f.Stat(); err == nil { // it grows all the same where this is not the size
		data.Grow(int(min(info.Size(), most)) + bytes.MinRead)
	}
	if _, err := data.ReadFrom(io.LimitReader(f, most+1)); err != nil {
		return nil, unreadable(err)
	}
	return data.Bytes(), nil
}

// unreadable tells a path that names no file, which is a wrong command line, from a file
// that the system does not hand out.
func unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) {
		return control.InputFile.Refuse("%w", plainPath(err))
	}
	return control.MachineFailed.Refuse("%w", plainPath(err))
}

// freeText are the text flags that are neither a path nor of a syntax of their own.
var freeText = []string{"friendly-name", "hsm-label", "hsm-parameters", "hsm-serial", "hsm-token", "hsm-uri"}

// checkPaths refuses, before anything is done, paths that Windows can't have: with a
// double quote, and devices. The quote comes of "E:\USB DISK\": programs there take a
// backslash before a quote for the quote's own, and what follows for more of the path.
func checkPaths(flags *pflag.FlagSet) (err error) {
	check := func(what, path string) {
		switch elements := strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' || r == ':' }); {
		case strings.Contains(path, `"`):
			before, _, _ := strings.Cut(path, `"`)
			err = control.CommandLine.Refuse("%s holds a double quote: %s", what, control.Quote(path)).
				WithHint(`leave out the backslash at the end, before the quote, or double it: "%[1]s" or "%[1]s\\"`, control.Plain(before))
		case !strings.Contains(path, "://") && slices.ContainsFunc(elements, keyid.IsDevice):
			err = control.CommandLine.Refuse("%s, %s: Windows takes that for a device in any folder", what, control.Quote(path)).WithHint("choose another name")
		}
	}
	flags.Visit(func(f *pflag.Flag) {
		if texts, is := texts(f); is && !slices.Contains(freeText, f.Name) {
			for _, text := range texts {
				check("--"+f.Name, text)
			}
		}
	})
	for i, arg := range flags.Args() {
		check(fmt.Sprintf("argument %d", i+1), arg)
	}
	return err
}

// plainPath makes the name in an error of the operating system safe to show: a
// file on a stick may be called anything.
func plainPath(err error) error {
	if at, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: at.Op, Path: control.Plain(at.Path), Err: at.Err}
	}
	return err
}

// WarnOfNewDir warns of a directory for output that is not there: it will be made,
// and where a stick was meant that is on this machine's own disk.
func (o *IO) WarnOfNewDir(path string) {
	if durable.CheckAbsent(path) == nil {
		o.Warn("%s is not there and will be made: if it was to be a stick, that is not mounted", path)
	}
}
