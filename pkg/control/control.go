// SPDX-License-Identifier: Apache-2.0

// Package control is the catalogue of Keyferry's controls: the checks that
// stand between what comes in and what is done with it.
//
// A control has an ID (KF-BUNDLE-REPLAY) that is the same in the code, the
// error, the documents and the tests; a class, from which the exit code
// follows; and a hint, which says what the person can do next. A check that
// fails returns a [Refusal] made by [Control.Refuse]; nothing else in Keyferry
// invents an ID or an exit code.
//
// The catalogue is split by area: one file each, listed by [All].
package control

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Class says what kind of failure a control stands for. Its number is the
// exit code of the command that ends with it.
type Class int

const (
	Refused     Class = 1 // a check failed: what came in is refused
	Usage       Class = 2 // the command line is wrong
	Environment Class = 3 // no HSM, wrong PIN, disk full, cloud unreachable
	Unfinished  Class = 4 // stopped midway: the same command goes on
)

// Control is one named check.
type Control struct {
	ID    string // KF-AREA-NAME, upper case
	Class Class
	Hint  string // what the person can do next; one sentence, no final full stop
}

// Planned reports whether the ceremony itself provides for the stop: a person goes
// on, and nothing went wrong.
func (c Control) Planned() bool { return c.ID == RMSByHand.ID }

// Refusal is the error of a control that does not hold. Its text is a clear
// sentence about what was found; the control's ID and hint go beside it.
type Refusal struct {
	Control Control
	Message string
	Hint    string // the control's, unless the place that refused knew better
	cause   error
}

// Refuse makes the refusal of c. The format follows [fmt.Errorf], %w included.
// Text that came from outside goes through [Quote].
func (c Control) Refuse(format string, args ...any) *Refusal {
	err := fmt.Errorf(format, args...)
	return &Refusal{Control: c, Message: err.Error(), Hint: c.Hint, cause: err}
}

// WithHint replaces the control's general hint by one for the case at hand.
func (r *Refusal) WithHint(format string, args ...any) *Refusal {
	r.Hint = fmt.Sprintf(format, args...)
	return r
}

// About puts before an error's message, or those of the errors that it joins, what
// it is about, such as a file's name. Of no error it makes none.
func About(what string, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, About(what, e))
		}
		return errors.Join(all...)
	}
	if r, ok := err.(*Refusal); ok {
		about := *r
		about.Message = what + ": " + r.Message
		return &about
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (r *Refusal) Error() string { return r.Message + " [" + r.Control.ID + "]" }

func (r *Refusal) Unwrap() error { return r.cause }

// Is reports whether err is, wraps, or joins a refusal by c.
func Is(err error, c Control) bool {
	return errors.Is(err, refusedBy(c.ID))
}

// refusedBy is what errors.Is looks for, in joined errors too.
type refusedBy string

func (id refusedBy) Error() string { return string(id) }

func (r *Refusal) Is(target error) bool { return target == refusedBy(r.Control.ID) }

// maxAlike is how many refusals by one control are listed. The rest is counted.
const maxAlike = 10

// Few returns the refusals in their order, ten at most of each control, whose last
// says how many more there are.
func Few(refusals []*Refusal) []*Refusal {
	count := map[string]int{}
	var few []*Refusal
	last := map[string]int{} // position in few
	for _, r := range refusals {
		if count[r.Control.ID]++; count[r.Control.ID] <= maxAlike {
			last[r.Control.ID] = len(few)
			few = append(few, r)
		}
	}
	for id, i := range last {
		if more := count[id] - maxAlike; more > 0 {
			counted := *few[i]
			counted.Message += fmt.Sprintf("; %d more are like it", more)
			few[i] = &counted
		}
	}
	return few
}

// Join joins a few of the refusals, see [Few]; nil if there is none.
func Join(refusals []*Refusal) error {
	var all []error
	for _, r := range Few(refusals) {
		all = append(all, r)
	}
	return errors.Join(all...)
}

// maxQuoted is how many bytes of untrusted text an error shows.
const maxQuoted = 160

// Quote makes text from outside safe to show: quoted, as [Plain] has it, and cut
// to 160 bytes.
func Quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.QuoteToGraphic(s)
	}
	end := maxQuoted
	for end > maxQuoted-utf8.UTFMax && !utf8.RuneStart(s[end]) { // not within a letter
		end--
	}
	return strconv.QuoteToGraphic(s[:end]) + "…"
}

// Plain makes text from outside safe to show on one line. Letters of every script,
// digits, symbols and blanks stay as they are, since people compare names by them.
// What a terminal obeys or what nobody sees is escaped: control characters, line
// breaks, characters that change the direction of writing or have no width, and
// bytes that are not UTF-8.
func Plain(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if unicode.IsGraphic(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(s[:size])
		} else {
			quoted := strconv.QuoteToGraphic(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// maxLine bounds a text of a service in letters: a correlation ID stands at the end
// of long ones.
const maxLine = 4000

// Line makes one line of a service's text, safe to show and nearly always whole.
func Line(text string) string {
	letters := []rune(strings.Join(strings.Fields(text), " "))
	if len(letters) > maxLine {
		letters = append(letters[:maxLine], '…')
	}
	return Plain(string(letters))
}

// All lists every control, by area.
func All() []Control {
	var all []Control
	for _, area := range [][]Control{tpdControls, hsmControls, bundleControls, trustControls, cloudControls, airgapControls, runControls} {
		all = append(all, area...)
	}
	return all
}

// register collects the controls of an area, for All.
func register(area *[]Control, c Control) Control {
	*area = append(*area, c)
	return c
}
