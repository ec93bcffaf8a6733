// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// golden is a file of testdata: packages and card as they were made once, by the
// keys of all tests, so that each process of a fuzz run has the same.
func golden(f *testing.F, name string) []byte {
	f.Helper()
	file, err := os.ReadFile("testdata/" + name)
	if err != nil {
		f.Fatal(err)
	}
	return file
}

// FuzzPackages: of whatever is given, only the very packages and the card that
// were made open.
func FuzzPackages(f *testing.F) {
	worldFile, kekFile, card := golden(f, "world"), golden(f, "kek"), golden(f, "card")
	w, err := OpenWorld(worldFile)
	if err != nil {
		f.Fatal(err)
	}
	good := [][]byte{worldFile, kekFile, card}
	open := func(file []byte) (opened int, errs []error) {
		_, worldErr := OpenWorld(file)
		_, kekErr := w.OpenKEK(file, fingerprint.Of(worldFile), now)
		_, cardErr := OpenCard(file)
		for _, err := range []error{worldErr, kekErr, cardErr} {
			if err == nil {
				opened++
			} else {
				errs = append(errs, err)
			}
		}
		return opened, errs
	}
	seeds := append([][]byte{nil, worldFile[:len(worldFile)/2], bytes.ToUpper(kekFile), []byte(`{"content":"","signature":""}` + "\n")}, good...)
	opened := 0
	for _, data := range seeds {
		n, _ := open(data)
		opened += n
		f.Add(data)
	}
	if len(seeds) != 7 || opened != 3 {
		f.Fatalf("%d seeds of which %d open, want 7 and 3", len(seeds), opened)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, errs := open(data)
		for _, err := range errs {
			if r := new(control.Refusal); !errors.As(err, &r) {
				t.Errorf("no refusal: %v", err)
			}
		}
		// A card is not signed: another name or time is another card.
		if _, err := OpenCard(data); err == nil {
			n--
		}
		if n > 0 && !bytes.Equal(data, worldFile) && !bytes.Equal(data, kekFile) {
			t.Errorf("a package that was never made opens: %q", data)
		}
	})
}
