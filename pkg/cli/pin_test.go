// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

func TestPin(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	meta := state.Meta{Side: state.Online, Name: "a", Rehearsal: true, Created: time.Unix(0, 0)}
	if err := state.Create(dir, meta, state.Options{}, func(s *state.State) error {
		signer, err := s.Signer()
		if err != nil {
			return err
		}
		return s.Begin(signer)
	}); err != nil {
		t.Fatal(err)
	}
	s, err := state.Open(dir, state.Online, func(s *state.State) (state.Self, error) { return state.Self{Key: s.HeadBy}, nil })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := &IO{program: "online", Yes: true, stderr: io.Discard}
	card := Pin{What: "offline card", Path: "/stick/card", File: []byte("card"), Rehearsal: true, Keep: "card.json", Event: "trust", Data: struct{}{}}
	real, other := card, card
	real.Rehearsal = false
	other.File = []byte("another card")

	pinned := func(want string, records int) {
		t.Helper()
		data, err := os.ReadFile(s.Path(card.Keep))
		if want == "" && !errors.Is(err, fs.ErrNotExist) || string(data) != want {
			t.Errorf("pinned: %q, %v; want %q", data, err, want)
		}
		if got := len(s.Ledger.Entries()); got != records {
			t.Errorf("%d records in the ledger, want %d", got, records)
		}
	}
	pin := func(p Pin, given string) error {
		p.Given = given
		return o.Pin(s, p)
	}
	if err := pin(real, ""); !control.Is(err, control.TrustRehearsal) {
		t.Errorf("a real one: got %v, want %s", err, control.TrustRehearsal.ID)
	}
	if err := pin(card, other.Fingerprint().String()); !control.Is(err, control.TrustFingerprint) {
		t.Errorf("another fingerprint: got %v, want %s", err, control.TrustFingerprint.ID)
	}
	pinned("", 1)
	if err := pin(card, card.Fingerprint().String()); err != nil {
		t.Fatal(err)
	}
	pinned("card", 2)
	if err := pin(other, other.Fingerprint().String()); !control.Is(err, control.TrustPinned) {
		t.Errorf("another one: got %v, want %s", err, control.TrustPinned.ID)
	}
	for _, expected := range []string{"", card.Fingerprint().String()} {
		if err := pin(card, expected); err != nil {
			t.Errorf("the same again: %v", err)
		}
	}
	if err := pin(card, other.Fingerprint().String()); !control.Is(err, control.TrustFingerprint) {
		t.Errorf("the same again, another fingerprint: got %v, want %s", err, control.TrustFingerprint.ID)
	}
	if err := pin(card, "garbage"); !control.Is(err, control.CommandLine) {
		t.Errorf("the same again, no fingerprint: got %v, want %s", err, control.CommandLine.ID)
	}
	pinned("card", 2)
}
