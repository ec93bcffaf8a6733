// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
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
	Keep      string // file of the state directory that holds the pin
	Event     string // of the ledger
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
	if p.Rehearsal != s.Rehearsal {
		return control.TrustRehearsal.Refuse("the %s is for a %s ceremony, this state directory for a %s one", p.What, state.KindName(p.Rehearsal), s.Kind())
	}
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
	if pinned, err := os.ReadFile(s.Path(p.Keep)); err == nil {
		if fingerprint.Of(pinned) == print {
			o.Note("this %s is pinned already", p.What)
			return s.Ledger.AppendOnce(time.Now(), p.Event, p.Data)
		}
		if p.Replaces == nil || !p.Replaces(pinned) {
			return control.TrustPinned.Refuse("another %s is pinned, %s", p.What, fingerprint.Of(pinned))
		}
	}
	if p.Given == "" {
		if err := o.Compare(compared); err != nil {
			return err
		}
	}
	if err := durable.Replace(s.Path(p.Keep), p.File, 0o600); err != nil {
		return err
	}
	return s.Ledger.AppendOnce(time.Now(), p.Event, p.Data)
}
