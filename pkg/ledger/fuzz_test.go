// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// FuzzReadCopy: what is read is a chain, by a reckoning of the test's own, to its
// very end; all else is refused.
func FuzzReadCopy(f *testing.F) {
	_, lines := written(f, 4)
	good := slices.Concat(lines...)
	seeds := [][]byte{
		nil, lines[0], good, good[:len(good)-1], slices.Concat(lines[1:]...), slices.Concat(lines[0], lines[2]),
		bytes.Replace(good, []byte("key-3"), []byte("key-4"), 1), bytes.Replace(good, []byte("key-1"), []byte("key-4"), 1),
	}
	read := 0
	for _, data := range seeds {
		if _, err := ReadCopy(data); err == nil {
			read++
		}
		f.Add(data)
	}
	if len(seeds) != 8 || read != 4 {
		f.Fatalf("%d seeds of which %d can be read, want 8 and 4", len(seeds), read)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ReadCopy(data)
		if err != nil {
			if r := new(control.Refusal); !errors.As(err, &r) || l != nil {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		var head fingerprint.Fingerprint
		records := bytes.SplitAfter(data, []byte("\n"))
		if last := len(records) - 1; len(records[last]) != 0 || last != len(l.Entries()) {
			t.Fatalf("%d records of %q", len(l.Entries()), data)
		}
		for i, e := range l.Entries() {
			if e.Previous != head || e.Seq != uint64(i+1) {
				t.Errorf("record %d does not follow", i+1)
			}
			head = sha256.Sum256(bytes.TrimSuffix(records[i], []byte("\n")))
		}
		if l.Head() != head {
			t.Error("another head")
		}
	})
}

// FuzzOpenHead: only the head that was signed opens.
func FuzzOpenHead(f *testing.F) {
	path, _ := written(f, 2)
	good := sealHead(f, mustOpen(f, path))
	line, armored, _ := bytes.Cut(good, []byte("\n"))
	seeds := [][]byte{good, nil, append(line, '\n'), armored, append(bytes.Clone(good), '\n'), bytes.Replace(good, []byte(`"records":2`), []byte(`"records":3`), 1)}
	opened := 0
	for _, data := range seeds {
		if h, _, _ := OpenHead(data); h != nil {
			opened++
		}
		f.Add(data)
	}
	if len(seeds) != 6 || opened != 1 {
		f.Fatalf("%d seeds of which %d open, want 6 and 1", len(seeds), opened)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, _, err := OpenHead(data)
		if err == nil && !bytes.Equal(data, good) {
			t.Errorf("a head that was never signed: %+v", h)
		}
		if err != nil && !control.Is(err, control.LedgerHead) {
			t.Errorf("no refusal: %v", err)
		}
	})
}
