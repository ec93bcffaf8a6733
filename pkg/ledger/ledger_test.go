// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

var start = time.Date(2026, 11, 23, 15, 0, 0, 5, time.FixedZone("CET", 3600))

type note struct {
	Key   string `json:"key"`
	Count int    `json:"count"`
}

// written is the path of a ledger of n records, and its lines.
func written(t testing.TB, n int) (path string, lines [][]byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "ledger.jsonl")
	l := mustOpen(t, path)
	for i := range n {
		if err := l.Append(start.Add(time.Duration(i)*time.Minute), "note", note{fmt.Sprintf("key-%d", i), i}); err != nil {
			t.Fatal(err)
		}
	}
	return path, bytes.SplitAfter(read(t, path), []byte("\n"))[:n]
}

func mustOpen(t testing.TB, path string) *Ledger {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// check wants n records that say what written wrote.
func check(t *testing.T, l *Ledger, n int) {
	t.Helper()
	if len(l.Entries()) != n {
		t.Fatalf("%d records, want %d", len(l.Entries()), n)
	}
	for i, e := range l.Entries() {
		var got note
		if err := e.Read(&got); err != nil || got != (note{fmt.Sprintf("key-%d", i), i}) {
			t.Errorf("record %d: %+v, %v", i+1, got, err)
		}
		if e.Seq != uint64(i+1) || e.Event != "note" || !e.Time.Equal(start.Add(time.Duration(i)*time.Minute).Truncate(time.Second)) {
			t.Errorf("record %d: %+v", i+1, e)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	path, lines := written(t, 3)
	l := mustOpen(t, path)
	check(t, l, 3)
	if l.Head() != fingerprint.Of(bytes.TrimSuffix(lines[2], []byte("\n"))) {
		t.Error("the head is not the digest of the last line")
	}
	if err := l.Append(start.Add(3*time.Minute), "note", note{"key-3", 3}); err != nil {
		t.Fatal(err)
	}
	check(t, l, 4)
	again := mustOpen(t, path)
	check(t, again, 4)
	if again.Head() != l.Head() {
		t.Error("the head differs after opening")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if want := `{"seq":1,"time":"2026-11-23T14:00:00Z","previous":"SHA256:` + strings.Repeat("0", 64) + `","event":"note","data":{"key":"key-0","count":0}}` + "\n"; string(lines[0]) != want {
		t.Errorf("the first line is %s", lines[0])
	}
}

func TestAbsentIsEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	l := mustOpen(t, path)
	if len(l.Entries()) != 0 || l.Head() != (fingerprint.Fingerprint{}) {
		t.Error("an absent ledger has records")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("opening made a file")
	}
	if _, err := Open(t.TempDir()); err == nil || control.Is(err, control.LedgerBroken) {
		t.Errorf("a folder: %v", err)
	}
}

// A crash while the last record was written leaves a part of it: at each
// length, the ledger opens without it and goes on in its place.
func TestTornLastLine(t *testing.T) {
	path, lines := written(t, 3)
	whole := slices.Concat(lines[0], lines[1])
	for n := range lines[2] {
		write(t, path, append(whole[:len(whole):len(whole)], lines[2][:n]...))
		l := mustOpen(t, path)
		check(t, l, 2)
		if n%20 != 0 { // each append costs an fsync
			continue
		}
		if err := l.Append(start.Add(2*time.Minute), "note", note{"key-2", 2}); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); !bytes.Equal(got, slices.Concat(lines...)) {
			t.Fatalf("cut at %d, the ledger goes on as %s", n, got)
		}
	}
}

func TestBrokenChain(t *testing.T) {
	path, lines := written(t, 4)
	swap := func(old, new string) func([][]byte) [][]byte {
		return func(l [][]byte) [][]byte {
			l[1] = bytes.Replace(l[1], []byte(old), []byte(new), 1)
			return l
		}
	}
	for _, test := range []struct {
		name   string
		change func(l [][]byte) [][]byte
	}{
		{"an edited record", swap("key-1", "key-7")},
		{"an edited time", swap("14:01", "14:02")},
		{"an edited event", swap(`"note"`, `"seal"`)},
		{"a space more", swap(`"event":`, `"event": `)},
		{"another number", swap(`"seq":2`, `"seq":3`)},
		{"a field more", swap(`{"seq"`, `{"x":1,"seq"`)},
		{"a field twice", swap(`{"seq"`, `{"seq":9,"seq"`)},
		{"no JSON", swap(`{"seq"`, `"seq"`)},
		{"a Windows line end", swap("\n", "\r\n")},
		{"an empty line", swap("\n", "\n\n")},
		{"the first record cut out", func(l [][]byte) [][]byte { return l[1:] }},
		{"a record cut out", func(l [][]byte) [][]byte { return slices.Delete(l, 1, 2) }},
		{"two records cut out", func(l [][]byte) [][]byte { return slices.Delete(l, 1, 3) }},
		{"a record cut short", func(l [][]byte) [][]byte { l[1] = append(l[1][:len(l[1])/2:len(l[1])/2], '\n'); return l }},
		{"a record torn, and one behind it", func(l [][]byte) [][]byte { l[1] = l[1][:len(l[1])/2]; return l }},
		{"two records swapped", func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }},
		{"a record twice", func(l [][]byte) [][]byte { return slices.Insert(l, 2, l[1]) }},
		{"the last record twice", func(l [][]byte) [][]byte { return append(l, l[3]) }},
		{"all twice", func(l [][]byte) [][]byte { return append(l, l...) }},
		{"a line too long", func(l [][]byte) [][]byte { return append(l, append(make([]byte, maxLine+1), '\n')) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			write(t, path, slices.Concat(lines...))
			check(t, mustOpen(t, path), 4)
			changed := make([][]byte, len(lines))
			for i, line := range lines {
				changed[i] = bytes.Clone(line)
			}
			write(t, path, slices.Concat(test.change(changed)...))
			if l, err := Open(path); !control.Is(err, control.LedgerBroken) || l != nil {
				t.Errorf("%v, want %s", err, control.LedgerBroken.ID)
			}
		})
	}
}

// Records that follow each other by digest but not by number.
func TestBrokenNumbers(t *testing.T) {
	path, lines := written(t, 2)
	third := func(seq int) []byte {
		previous := fingerprint.Of(bytes.TrimSuffix(lines[1], []byte("\n")))
		return fmt.Appendf(nil, `{"seq":%d,"time":"2026-11-23T14:02:00Z","previous":"%s","event":"note","data":{"key":"key-2","count":2}}`+"\n", seq, previous)
	}
	for seq, good := range map[int]bool{3: true, 0: false, 2: false, 4: false} {
		write(t, path, slices.Concat(lines[0], lines[1], third(seq)))
		if good {
			check(t, mustOpen(t, path), 3)
		} else if _, err := Open(path); !control.Is(err, control.LedgerBroken) {
			t.Errorf("number %d after 2: %v", seq, err)
		}
	}
}

// No byte of a record that another follows can be changed.
func TestEveryFlipIsRefused(t *testing.T) {
	path, lines := written(t, 3)
	good := slices.Concat(lines...)
	covered := len(good) - len(lines[2])
	for i := range covered {
		for _, pattern := range []byte{0x01, 0x20, 0x80} {
			good[i] ^= pattern
			write(t, path, good)
			if _, err := Open(path); !control.Is(err, control.LedgerBroken) {
				t.Fatalf("byte %d: %v", i, err)
			}
			good[i] ^= pattern
		}
	}
	t.Logf("count: %d flips, all refused", 3*covered)
}

// What the chain alone can't show: a last record that was changed or left out.
// The head that somebody else holds, in a bundle or a receipt, does.
func TestTheHeadStandsForAll(t *testing.T) {
	path, lines := written(t, 3)
	head := mustOpen(t, path).Head()
	for name, data := range map[string][]byte{
		"left out": slices.Concat(lines[0], lines[1]),
		"changed":  bytes.Replace(slices.Concat(lines...), []byte("key-2"), []byte("key-9"), 1),
	} {
		write(t, path, data)
		if mustOpen(t, path).Head() == head {
			t.Errorf("the last record %s: the head stays", name)
		}
	}
}

// A record that could not be read again is not written, and the ledger stays
// usable.
func TestAppendRefuses(t *testing.T) {
	path, lines := written(t, 2)
	l := mustOpen(t, path)
	for name, data := range map[string]any{
		"too large":         note{Key: strings.Repeat("k", maxLine)},
		"no JSON":           func() {},
		"nested too deeply": nested(40),
	} {
		if err := l.Append(start, "note", data); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got := read(t, path); !bytes.Equal(got, slices.Concat(lines...)) {
		t.Error("the file changed")
	}
	if err := l.Append(start.Add(2*time.Minute), "note", note{"key-2", 2}); err != nil {
		t.Fatal(err)
	}
	check(t, l, 3)
	check(t, mustOpen(t, path), 3)
}

func nested(depth int) any {
	var v any = 1
	for range depth {
		v = []any{v}
	}
	return v
}

// When the disk takes nothing, the ledger stays as it was.
func TestAppendFails(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "absent", "ledger.jsonl"))
	if err := l.Append(start, "note", note{"key-0", 0}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if len(l.Entries()) != 0 || l.Head() != (fingerprint.Fingerprint{}) {
		t.Error("a record that was not written is there")
	}
}

func TestRead(t *testing.T) {
	path, _ := written(t, 1)
	e := mustOpen(t, path).Entries()[0]
	var other struct {
		Key string `json:"key"`
	}
	if err := e.Read(&other); !control.Is(err, control.LedgerBroken) {
		t.Errorf("a record of another shape: %v", err)
	}
}
