// SPDX-License-Identifier: Apache-2.0

// Package ledger keeps the record of a ceremony: an append-only file of JSON
// lines, each of which holds the SHA-256 of the line before it.
//
//	{"seq":1,"time":"2026-11-23T14:00:00Z","previous":"SHA256:000…","event":"init","data":{…}}
//	{"seq":2,"time":"2026-11-23T14:05:00Z","previous":"SHA256:9f3…","event":"trust","data":{…}}
//
// A record may pin files of the directory that the ledger is in: "files" has the
// SHA-256 of each, by its name with slashes. The last record that names a file counts,
// and a digest of zeros lets the file go ([Ledger.Files]).
//
// A line is hashed as it stands in the file, without its line feed; the first
// one's previous is 32 zero bytes. Opening a ledger checks the whole chain. A
// last line without line feed is a record that a crash tore: it was never
// reported as written, so it does not count, and the next record takes its
// place.
//
// # Heads
//
// That last records were left out, or the very last one changed, the chain alone
// can't show. Its head does, the SHA-256 of the last line, which is kept in
// three places beside the ledger:
//
//   - signed, in the file ledger.head: one line of JSON ([Head]), then its armored
//     SSHSIG in the namespace keyferry-ledger-v1. It is checked whenever the
//     ledger is opened. Where the side's signing key is in its state directory,
//     each run that adds a record signs anew; where it is in an HSM, init and
//     seal do, when the token is open, and records since then are not signed yet;
//   - in the copy of the ledger that each bundle carries, which the bundle's
//     signature covers: the receiver refuses a bundle whose copy does not go on
//     where the last one ended, and says in its receipt which one it saw;
//   - on paper: `transcript --sheet` prints it, `transcript verify --head` looks
//     for it.
//
// What this does not show: somebody who has the state directory with a signing
// key in it can write another ledger and sign its head. Then the copies that
// travelled and the paper speak; and a backup put back in place of the whole
// state directory shows at the next bundle or receipt. A key in an HSM signs for
// nobody who lacks the PIN.
//
//	head -n 1 ledger.head >head.json; tail -n +2 ledger.head >head.sig
//	ssh-keygen -Y verify -f allowed_signers -I offline -n keyferry-ledger-v1 -s head.sig <head.json
//
// # Runs
//
// A [Run] is a record of a run that changed nothing: one that was refused, with
// the controls, or a dry run. Not recorded is what ends before the state
// directory is open, or because it can't be: a wrong command line, another
// command at work, a damaged state directory.
//
// What the events are, and what state they add up to, is the matter of the side
// that keeps the ledger.
package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/strictjson"
)

// maxLine bounds a record in bytes.
const maxLine = 1 << 20

// Entry is one record.
type Entry struct {
	Seq      uint64                  `json:"seq"` // from 1
	Time     time.Time               `json:"time"`
	Previous fingerprint.Fingerprint `json:"previous"`
	Event    string                  `json:"event"`
	Data     json.RawMessage         `json:"data"`
	Files    Files                   `json:"files,omitempty"`
}

// Files are digests of files, by name.
type Files map[string]fingerprint.Fingerprint

// Read decodes the entry's data into v.
func (e Entry) Read(v any) error {
	if err := strictjson.Unmarshal(e.Data, maxLine, v); err != nil {
		return control.LedgerBroken.Refuse("record %d (%s) can't be understood: %w", e.Seq, control.Quote(e.Event), err)
	}
	return nil
}

// EventRun is the event of a [Run].
const EventRun = "run"

// Run is a run that changed nothing.
type Run struct {
	Command  string   `json:"command"`
	DryRun   bool     `json:"dry_run"`
	Controls []string `json:"controls"` // IDs of those that ended it; empty in a good dry run
}

// EventClock is the event of a [ClockAccepted].
const EventClock = "clock"

// ClockAccepted says which contradiction between clocks a person has accepted.
type ClockAccepted struct {
	Said string `json:"said"`
}

// Ledger is an open ledger.
type Ledger struct {
	path    string
	entries []Entry
	head    fingerprint.Fingerprint // of the last line
	lines   []byte                  // all whole ones
}

// Open reads the ledger at path; one that is absent is empty. A broken chain
// is refused (KF-LEDGER-CHAIN).
func Open(path string) (*Ledger, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l := &Ledger{path: path}
	_, err = l.takeAll(data)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ReadCopy reads a copy of a ledger, to which nothing can be appended. Other than
// in the ledger itself, a torn record is refused (KF-LEDGER-CHAIN).
func ReadCopy(data []byte) (*Ledger, error) {
	l := new(Ledger)
	torn, err := l.takeAll(data)
	if err == nil && len(torn) > 0 {
		err = control.LedgerBroken.Refuse("the copy of the ledger ends within a record")
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// takeAll takes all whole lines, and returns what is behind them.
func (l *Ledger) takeAll(data []byte) (torn []byte, err error) {
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return data, nil
		}
		if err := l.take(line); err != nil {
			return nil, err
		}
		data = rest
	}
}

func (l *Ledger) take(line []byte) error {
	var e Entry
	if err := strictjson.Unmarshal(line, maxLine, &e); err != nil {
		return control.LedgerBroken.Refuse("record %d of the ledger can't be understood: %w", len(l.entries)+1, err)
	}
	if e.Seq != uint64(len(l.entries)+1) || e.Previous != l.head {
		return control.LedgerBroken.Refuse("record %d of the ledger does not follow the one before it", len(l.entries)+1)
	}
	l.entries = append(l.entries, e)
	l.head = fingerprint.Of(line)
	l.lines = append(append(l.lines, line...), '\n')
	return nil
}

// Append adds a record, durably. data is anything that encodes to JSON.
func (l *Ledger) Append(now time.Time, event string, data any) error {
	return l.Pin(now, event, data, nil)
}

// Pin is Append with a record that pins files, or lets them go.
func (l *Ledger) Pin(now time.Time, event string, data any, files Files) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	line, err := json.Marshal(Entry{uint64(len(l.entries) + 1), now.UTC().Truncate(time.Second), l.head, event, raw, files})
	if err != nil {
		return err
	}
	next := *l
	if err := next.take(line); err != nil {
		return err // what can't be read again is not written
	}
	if err := durable.Append(l.path, int64(len(l.lines)), append(line, '\n'), 0o600); err != nil {
		return err
	}
	*l = next
	return nil
}

// Files are the files that the records pin.
func (l *Ledger) Files() Files {
	pinned := Files{}
	for _, e := range l.entries {
		for name, digest := range e.Files {
			if pinned[name] = digest; digest == (fingerprint.Fingerprint{}) {
				delete(pinned, name)
			}
		}
	}
	return pinned
}

// Each calls f with each record, oldest first, until one fails.
func (l *Ledger) Each(f func(Entry) error) error {
	for _, e := range l.entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// Entries returns the records, oldest first. The caller must not change them.
func (l *Ledger) Entries() []Entry { return l.entries }

// Lines returns the records as they stand in the file, without one that a crash
// tore: what [ReadCopy] takes. The caller must not change them.
func (l *Ledger) Lines() []byte { return l.lines }

// Head is the SHA-256 of the last record: it stands for the whole ledger.
func (l *Ledger) Head() fingerprint.Fingerprint { return l.head }
