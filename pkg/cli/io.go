// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf16"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/secret"
)

// IO is what a command sees of its surroundings: the flags that all commands
// take, and the terminal.
type IO struct {
	State     string // state directory
	Rehearsal bool   // --rehearsal was given
	JSON      bool
	Yes       bool
	Verbose   bool

	program        string
	command        string // that runs
	dryRun         bool   // --dry-run was given
	shows          bool   // as its Command says
	stdin          io.Reader
	stdout, stderr io.Writer
	interrupted    <-chan struct{}
	failed         error    // the first failure to print
	printed        bool     // the one JSON document
	ownsProcess    bool     // as Main has it
	stateGiven     bool     // by --state
	clockIsRight   bool     // --clock-is-right was given
	secretTyped    bool     // a secret may stand on the command line
	typed          []string // the command line, without the program
}

// Print writes text for people to standard output. As on standard error, nothing
// gets through that a terminal obeys; a form feed stays, since it ends a page.
func (o *IO) Print(text string) { o.write(forPeople(o.stdout, text)) }

// forPeople is text as people are to see it there.
func forPeople(to io.Writer, text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		pages := strings.Split(line, "\f")
		for j := range pages {
			pages[j] = fit(to, "", control.Plain(pages[j]))
		}
		lines[i] = strings.Join(pages, "\f")
	}
	return strings.Join(lines, "\n")
}

// write takes it for no failure when the reader has read enough and closed its end.
func (o *IO) write(text string) {
	if _, err := io.WriteString(o.stdout, text); err != nil && o.failed == nil && !errors.Is(err, syscall.EPIPE) {
		o.failed = err
	}
}

// unprinted is the error of a command that could not print, if to print is all
// that it is for. One that has changed something says that it is done.
func (o *IO) unprinted() error {
	switch {
	case o.failed == nil:
		return nil
	case o.shows:
		return control.MachineFailed.Refuse("the result could not be printed: %w", o.failed)
	}
	o.Warn("it is done, but the result could not be printed: %v", o.failed)
	return nil
}

// Result prints what the command found out: doc as JSON with --json, else the
// text for people, with a line feed if it lacks one. The command is done with
// its secrets by then: what they left in memory is erased first.
func (o *IO) Result(doc any, text string) error {
	secret.Sweep()
	if !o.JSON {
		o.Print(strings.TrimSuffix(text, "\n") + "\n")
		return nil
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	o.write(escapeJSON(string(data)) + "\n")
	o.printed = true
	return nil
}

// escapeJSON writes the characters that [control.Plain] escapes as JSON has them,
// so that a document has the same values and can be looked at in a terminal. Outside
// of its texts a document has none but line feeds.
func escapeJSON(document string) string {
	var b strings.Builder
	for _, r := range document {
		switch {
		case r == '\n' || unicode.IsGraphic(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// Note tells people what is being done.
func (o *IO) Note(format string, args ...any) { o.say("", format, args) }

// Warn tells people what they should know before they go on.
func (o *IO) Warn(format string, args ...any) { o.say("warning: ", format, args) }

// Detail tells what only --verbose shows.
func (o *IO) Detail(format string, args ...any) {
	if o.Verbose {
		o.say("", format, args)
	}
}

// say lets nothing through that a terminal obeys, wherever it came from: the
// system's errors hold the names of files as they are.
func (o *IO) say(head, format string, args []any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintln(o.stderr, fit(o.stderr, o.program+": "+head, control.Plain(line)))
	}
}

// Confirm asks for an exact Yes, which --yes stands for.
func (o *IO) Confirm(question string) error {
	if o.Yes {
		return nil
	}
	o.say("", "%s", []any{question})
	answer, err := o.ask("answer Yes to go on: ")
	switch {
	case control.Is(err, control.NoTerminal):
		return control.NoTerminal.Refuse("nobody is there to answer: %s", question)
	case err != nil:
		return err
	case answer != "Yes":
		return control.NotConfirmed.Refuse("not confirmed")
	}
	return nil
}

// ask asks for one line, and again when the program was suspended in between.
func (o *IO) ask(prompt string) (string, error) {
	goesOn, stop := secret.GoesOn()
	defer stop()
	if terminal, is := o.stdin.(*os.File); is {
		defer secret.Lines(terminal)()
	}
	fmt.Fprintf(o.stderr, "%s: %s", o.program, prompt)
	answered := make(chan string, 1)
	go func() { answered <- readLine(o.stdin) }()
	var answer string
	for waiting := true; waiting; {
		select {
		case answer = <-answered:
			waiting = false
		case <-goesOn:
			fmt.Fprintf(o.stderr, "%s: %s", o.program, prompt)
		case <-o.interrupted:
			fmt.Fprintln(o.stderr)
			return "", control.Interrupted.Refuse("interrupted before the answer")
		}
	}
	if answer == "" {
		fmt.Fprintln(o.stderr)
		return "", control.NoTerminal.Refuse("nobody is there to answer: %s", strings.TrimSuffix(prompt, ": "))
	}
	return strings.TrimRight(answer, "\r\n"), nil
}

// maxAnswer bounds a line that a person answers with, in bytes: a fingerprint in
// words has some 300.
const maxAnswer = 1000

// readLine reads no further than the line, so that the next question finds
// its answer.
func readLine(r io.Reader) string {
	var line []byte
	for b := make([]byte, 1); len(line) < maxAnswer && !bytes.HasSuffix(line, []byte("\n")); {
		n, err := r.Read(b)
		line = append(line, b[:n]...)
		if err != nil {
			time.Sleep(secret.Settle)
			break
		}
	}
	return string(line)
}

// fail prints err and returns the exit code that goes with it. With --json it
// is the document too, unless the command has printed its own, which says it.
func (o *IO) fail(err error) int {
	refusals := Refusals(err)
	type failure struct {
		Control string `json:"control"`
		Message string `json:"message"`
		Hint    string `json:"hint"`
	}
	var doc struct {
		Error  failure   `json:"error"` // the first
		Errors []failure `json:"errors"`
	}
	for _, r := range refusals {
		r.Hint = o.whole(r.Hint)
		head := "error: "
		if r.Control.Planned() {
			head = "now by hand: "
		}
		o.say(head, "%s", []any{r.Error()})
		o.say("hint: ", "%s", []any{r.Hint})
		doc.Errors = append(doc.Errors, failure{r.Control.ID, r.Message, r.Hint})
	}
	doc.Error = doc.Errors[0]
	if o.JSON && !o.printed {
		if err := o.Result(doc, ""); err != nil {
			o.say("error: ", "%v", []any{err})
		}
	}
	return int(refusals[0].Control.Class)
}

// Refusals turns any error into refusals, at least one: those that it joins,
// the one that it wraps, or what the operating system's error stands for.
func Refusals(err error) []*control.Refusal {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*control.Refusal
		for _, e := range joined.Unwrap() {
			all = append(all, Refusals(e)...)
		}
		return all
	}
	return []*control.Refusal{refusal(err)}
}

// Delivered says what may be done with the medium that out is on, once a copy on it
// was read back.
func (o *IO) Delivered(out string) string {
	const copied = "The copy was read back and compared. "
	same, err := durable.OnOneMedium(o.State, out)
	switch {
	case err != nil || same:
		return copied + "It is on the same disk as the state directory: if a stick was meant, that is not mounted there."
	case durable.EjectFirst:
		return copied + "Eject the stick, then it may be pulled."
	}
	return copied + "The stick may be pulled."
}

// refusal looks for what stopped the run below a refusal too: an HSM or a
// bundle may have met the full disk first.
func refusal(err error) *control.Refusal {
	var r *control.Refusal
	switch {
	case durable.IsFull(err):
		return control.DiskFull.Refuse("there is no room left: %w", err)
	case durable.IsReadOnly(err):
		return control.MachineFailed.Refuse("the medium is read-only: %w", err).WithHint("take the write protection off the stick, or use another one; then run the same command again")
	case durable.IsGone(err):
		return control.MachineFailed.Refuse("the medium is not there any more: %w", err).WithHint("plug the stick in again and run the same command again")
	case errors.Is(err, context.Canceled) && !control.Is(err, control.Interrupted):
		return control.Interrupted.Refuse("interrupted: %w", err)
	case errors.As(err, &r):
		return r
	case errors.Is(err, fs.ErrNotExist):
		return control.InputFile.Refuse("%w", err)
	}
	return control.MachineFailed.Refuse("%w", err)
}

// defaultState is $KEYFERRY_STATE, else keyferry-<side>, of a rehearsal
// keyferry-<side>-rehearsal, in $XDG_STATE_HOME, else in %LOCALAPPDATA% or
// ~/.local/state.
func defaultState(side string, rehearsal bool) (string, error) {
	if rehearsal {
		side += "-rehearsal"
	}
	if dir := os.Getenv("KEYFERRY_STATE"); dir != "" {
		return dir, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" && runtime.GOOS == "windows" {
		base = os.Getenv("LOCALAPPDATA")
	}
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", control.StateMissing.Refuse("there is no home directory for the state: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "keyferry-"+side), nil
}
