// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// Pin is what one side is about to pin of the other: a security world or an
// offline card.
type Pin struct {
	What      string // names it to people
	Path      string // where it came from
	File      []byte // its bytes, whose SHA-256 is compared
	Rehearsal bool
	Created   time.Time // as it says itself
	Keep      string    // file of the state directory that holds the pin
	Event     string    // of the ledger
	Data      any

	Replaces func(pinned []byte) bool // reports whether it may take the place of another pin; nil: never

	Given       string // --fingerprint
	BothScreens bool
}

// Fingerprint is what people compare.
func (p Pin) Fingerprint() fingerprint.Fingerprint { return fingerprint.Of(p.File) }

// Pin compares the fingerprint with the one that a person was told, see
// [IO.Compare], and pins. It refuses to replace another pin, unless that is the one
// before it of the same side; the same one again is no error, and a fingerprint that was given is compared all the same.
func (o *IO) Pin(s *state.State, p Pin) error {
	if err := s.SameKind(p.What, p.Rehearsal); err != nil {
		return err
	}
	if err := o.CheckClock(s, p.Created, "the "+p.What+" was made"); err != nil {
		return err
	}
	o.Note("%s", ClockLine())
	print := p.Fingerprint()
	compared := Compared{
		What: p.What + " " + control.Plain(filepath.Base(p.Path)), Heard: "as the other side reads them aloud", Is: print,
		Flag: "fingerprint", Given: p.Given, BothScreens: p.BothScreens, Rehearsal: s.Rehearsal,
	}
	if p.Given != "" {
		if err := o.Compare(compared); err != nil {
			return err
		}
	}
	pinned, err := s.Kept(p.Keep)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case fingerprint.Of(pinned) == print:
		o.Note("this %s is pinned already", p.What)
		return nil
	case p.Replaces == nil || !p.Replaces(pinned):
		return control.TrustPinned.Refuse("another %s is pinned, %s", p.What, fingerprint.Of(pinned))
	}
	if p.Given == "" {
		if err := o.Compare(compared); err != nil {
			return err
		}
	}
	return s.Keep(time.Now(), p.Event, p.Data, p.Keep, p.File)
}
