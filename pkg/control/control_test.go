// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAll(t *testing.T) {
	id := regexp.MustCompile(`^KF-[A-Z]+(-[A-Z0-9]+)+$`)
	seen := map[string]bool{}
	areas := map[string]bool{}
	for _, c := range All() {
		switch {
		case !id.MatchString(c.ID):
			t.Errorf("%s is not of the form KF-AREA-NAME", c.ID)
		case seen[c.ID]:
			t.Errorf("%s occurs twice", c.ID)
		case c.Class < Refused || c.Class > Unfinished:
			t.Errorf("%s has the class %d", c.ID, c.Class)
		case c.Hint == "" || strings.TrimSpace(c.Hint) != c.Hint || strings.HasSuffix(c.Hint, ".") || strings.Contains(c.Hint, "\n"):
			t.Errorf("%s: the hint is no sentence without full stop: %q", c.ID, c.Hint)
		}
		seen[c.ID] = true
		areas[strings.Split(c.ID+"-", "-")[1]] = true
	}
	for _, area := range []string{"TPD", "HSM", "BUNDLE", "PACKAGE", "TRUST", "VAULT", "RMS", "RUN", "STATE", "LEDGER"} {
		if !areas[area] {
			t.Errorf("All lists no control of %s", area)
		}
	}
	t.Logf("%d controls", len(seen))
}

func TestRefusal(t *testing.T) {
	r := OutputExists.Refuse("%s is there: %w", "f", fs.ErrExist)
	if r.Error() != "f is there: file already exists [KF-RUN-OUTPUT-EXISTS]" || r.Hint != OutputExists.Hint {
		t.Errorf("got %q, hint %q", r, r.Hint)
	}
	about := About("stick", r).(*Refusal).WithHint("use %s", "another")
	if about.Message != "stick: f is there: file already exists" || about.Hint != "use another" {
		t.Errorf("got %q, hint %q", about, about.Hint)
	}
	if r.Message != "f is there: file already exists" || r.Hint != OutputExists.Hint {
		t.Errorf("About changed what it was made from: %q, hint %q", r, r.Hint)
	}
	for name, err := range map[string]error{
		"refusal":        r,
		"about":          about,
		"two causes":     DiskFull.Refuse("%w and %w", io.EOF, fs.ErrExist),
		"refusal within": DiskFull.Refuse("%w", r),
	} {
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: the cause can't be found", name)
		}
	}
}

// What an error is about is said of each that it joins.
func TestAbout(t *testing.T) {
	one, two := TPDMode.Refuse("one"), TPDKeyCRT.Refuse("two")
	for _, c := range []struct {
		err  error
		want string
	}{
		{one, "f: one [KF-TPD-MODE]"},
		{io.EOF, "f: EOF"},
		{errors.Join(one, errors.Join(two, io.EOF)), "f: one [KF-TPD-MODE]\nf: two [KF-TPD-KEY-CRT]\nf: EOF"},
	} {
		if got := About("f", c.err); got.Error() != c.want || Is(got, TPDMode) != Is(c.err, TPDMode) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestIs(t *testing.T) {
	r := StateBusy.Refuse("x")
	for name, err := range map[string]error{
		"itself":             r,
		"wrapped":            fmt.Errorf("more: %w", r),
		"below a refusal":    DiskFull.Refuse("more: %w", r),
		"first of a join":    errors.Join(r, DiskFull.Refuse("y")),
		"second of a join":   errors.Join(DiskFull.Refuse("y"), r),
		"join below":         DiskFull.Refuse("more: %w", errors.Join(io.EOF, r)),
		"with another hint":  StateBusy.Refuse("x").WithHint("y"),
		"about another file": About("z", r),
	} {
		if !Is(err, StateBusy) {
			t.Errorf("%s: not found", name)
		}
		if Is(err, StateMissing) {
			t.Errorf("%s: found what is not there", name)
		}
	}
	if Is(nil, StateBusy) || Is(io.EOF, StateBusy) || Is(errors.New(StateBusy.ID), StateBusy) {
		t.Error("found in an error that is no refusal")
	}
}

func TestQuote(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", `"plain"`},
		{"\x1b[31m\n\"", `"\x1b[31m\n\""`},
		{"\u202e", `"\u202e"`},
		{"\xff", `"\xff"`},
		{"Söhne 株式　会社", `"Söhne 株式　会社"`},
		{strings.Repeat("x", maxQuoted), `"` + strings.Repeat("x", maxQuoted) + `"`},
		{strings.Repeat("x", maxQuoted+1), `"` + strings.Repeat("x", maxQuoted) + `"…`},
	} {
		if got := Quote(c.in); got != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
	if got := Quote(strings.Repeat("ä", maxQuoted)); !utf8.ValidString(got) {
		t.Errorf("a cut character shows as %q", got)
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a b – ü": "a b – ü", "a\nb": `a\nb`, "\x1b[2J": `\x1b[2J`, "a\u202eb": `a\u202eb`, "\xff": `\xff`, "ü\xff株": `ü\xff株`,
		"株式　会社": "株式　会社", "שלום\u200f": `שלום\u200f`, "\u009b2J\u200d\u2028\x7f": `\u009b2J\u200d\u2028\x7f`, "\ufffd": "\ufffd",
	} {
		if got := Plain(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// Where there is no error, nothing is about it.
func TestAboutNothing(t *testing.T) {
	if err := About("a file", nil); err != nil {
		t.Errorf("got %v", err)
	}
}
