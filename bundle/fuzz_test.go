// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"testing"

	"keyferry/pkg/control"
)

// FuzzOpen: whatever is done to a bundle, it opens as the one that was sealed
// or is refused. Approvals are the one thing that others may add.
func FuzzOpen(f *testing.F) {
	good := golden(f)
	seeds := map[string][]byte{
		"good":             good,
		"approved":         withApprovals(f, good, stranger),
		"approved twice":   withApprovals(f, good, inOrder(f, stranger, receiver)...),
		"cut":              good[:len(good)-1024],
		"signed by others": seal(f, signedBy(f, stranger)),
		"empty":            {},
	}
	opened := 0
	for _, data := range seeds {
		if v, _ := open(f, data, pins(f)); v != nil {
			opened++
		}
		f.Add(data)
	}
	if len(seeds) != 6 || opened != 3 {
		f.Fatalf("%d seeds of which %d open, want 6 and 3", len(seeds), opened)
	}
	f.Logf("%d seeds, of which %d open", len(seeds), opened)
	want := letter(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		v, err := Open(bytes.NewReader(data), file, pins(t))
		if err != nil {
			if r := new(control.Refusal); !errors.As(err, &r) || v != nil {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		if v.Digest.Hex() != goldenDigest {
			t.Fatalf("a manifest that was never signed: %s", v.Digest)
		}
		same(t, v, want)
	})
}

func signedBy(t testing.TB, s crypto.Signer) Letter {
	l := letter(t)
	l.Signer = s
	return l
}
