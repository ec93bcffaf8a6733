// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
)

// A command that changes something is refused where the ledger has a later record than
// this machine's clock: with both times in the message and the clock first in the hint. A
// rehearsal goes on, as does --clock-is-right, which is recorded.
func TestClock(t *testing.T) {
	for name, test := range map[string]struct {
		rehearsal, shows, right bool
		ahead                   time.Duration
		event                   string
		refused                 bool
		said                    string
	}{
		"a later record":               {ahead: time.Hour, event: "imported", refused: true},
		"in a rehearsal":               {ahead: time.Hour, event: "imported", rehearsal: true, said: "a real ceremony would stop here"},
		"with --clock-is-right":        {ahead: time.Hour, event: "imported", right: true, said: "accepted by --clock-is-right"},
		"a command that shows":         {ahead: time.Hour, event: "imported", shows: true, said: "the ledger's last record is of"},
		"a record of now":              {event: "imported"},
		"clocks that differ a little":  {ahead: time.Minute, event: "imported"},
		"refused while it was ahead":   {ahead: time.Hour, event: ledger.EventRun},
		"another machine's, corrected": {ahead: -time.Hour, event: "imported"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			meta := state.Meta{Side: state.Online, Name: "a", Rehearsal: test.rehearsal, Created: time.Now()}
			if err := state.Create(dir, meta, state.Options{}, func(s *state.State) error {
				signer, err := s.Signer()
				if err != nil {
					return err
				}
				if err := s.Begin(signer); err != nil {
					return err
				}
				return s.Ledger.Append(time.Now().Add(test.ahead), test.event, struct{}{})
			}); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			o := &IO{program: "online", State: dir, shows: test.shows, clockIsRight: test.right, stderr: &said}
			ran, recorded := false, false
			err := o.InState(state.Online, func(s *state.State) (state.Self, error) { return state.Self{Key: s.HeadBy}, nil }, func(s *state.State) error {
				ran = true
				recorded = slices.ContainsFunc(s.Ledger.Entries(), func(e ledger.Entry) bool { return e.Event == ledger.EventClock })
				return nil
			})
			if test.refused != control.Is(err, control.Clock) || !test.refused && err != nil || ran == test.refused {
				t.Errorf("ran %v: %v", ran, err)
			}
			if test.refused && (!strings.Contains(err.Error(), "UTC, which is before the ledger's last record, ") || !strings.HasPrefix(Refusals(err)[0].Hint, "set this machine's clock")) {
				t.Errorf("it is told so: %v, %s", err, Refusals(err)[0].Hint)
			}
			if recorded != test.right || !strings.Contains(said.String(), test.said) {
				t.Errorf("recorded %v, said %s", recorded, &said)
			}
		})
	}
}
