// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// maxClockError is how far apart the clocks of two machines may be.
const maxClockError = 5 * time.Minute

// Clock is a time as people compare it.
func Clock(t time.Time) string { return sheet.Minute(t) }

// ClockLine says what time it is here, where something depends on that.
func ClockLine() string { return "This machine's clock says " + Clock(time.Now()) }

// CheckClock refuses to go on where this machine's clock says a time before that of what
// was done before.
func (o *IO) CheckClock(s *state.State, then time.Time, done string) error {
	return o.CheckOrder(s, then, done, time.Now(), "this machine's clock says")
}

// CheckOrder refuses to go on where what is later by its nature has the earlier time: a
// clock is wrong, or was. A rehearsal goes on with a warning; so does --clock-is-right,
// which is recorded.
func (o *IO) CheckOrder(s *state.State, earlier time.Time, done string, later time.Time, says string) error {
	if !later.Before(earlier.Add(-maxClockError)) {
		return nil
	}
	refusal := control.Clock.Refuse("%s %s, which is before %s, %s", says, Clock(later), done, Clock(earlier))
	switch {
	case s.Rehearsal:
		o.Warn("%v; a real ceremony would stop here [%s]", refusal, control.Clock.ID)
		return nil
	case o.clockIsRight:
		o.Warn("%v; accepted by --clock-is-right [%s]", refusal, control.Clock.ID)
		return s.Ledger.Append(time.Now(), ledger.EventClock, ledger.ClockAccepted{Said: refusal.Message})
	}
	return refusal
}

// checkLedgerClock holds this machine's clock against the ledger. What only shows
// something goes on with a warning. Refusals and dry runs don't count: a clock that was
// ahead for those alone is right again once it is set.
func (o *IO) checkLedgerClock(s *state.State) error {
	var last time.Time
	for _, e := range s.Ledger.Entries() {
		if e.Event != ledger.EventRun && e.Time.After(last) {
			last = e.Time
		}
	}
	if o.shows {
		if time.Now().Before(last.Add(-maxClockError)) {
			o.Warn("%s, and the ledger's last record is of %s", ClockLine(), Clock(last))
		}
		return nil
	}
	return o.CheckClock(s, last, "the ledger's last record")
}
