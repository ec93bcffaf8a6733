// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
)

// FuzzReceipt: a receipt is read as it was written, in its one spelling, or
// refused.
func FuzzReceipt(f *testing.F) {
	text, err := ReceiptText{
		Answers: fingerprint.Of([]byte("m")), Copy: ledger.Mark{Records: 7, Head: fingerprint.Of([]byte("c"))}, Ledger: ledger.Mark{Records: 3},
		Keys: []Arrived{
			{ID: "tenant-key", Key: fingerprint.Of([]byte("k")), KeyURL: "https://v/keys/tenant-key/1", HSMPlatform: "2", WrappedBy: "token", Tenant: "Active", Warnings: []string{"KF-TPD-VALIDITY"}},
			{ID: "old-key", WrappedBy: "software", Warnings: []string{}, Refused: "KF-VAULT-KEY-EXISTS: the vault has a key old-key"},
		},
	}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	seeds := map[string][]byte{
		"good":                 text,
		"no line feed":         bytes.TrimSuffix(text, []byte("\n")),
		"a space":              bytes.Replace(text, []byte(`"keys":`), []byte(`"keys": `), 1),
		"another format":       bytes.Replace(text, []byte("receipt-v1"), []byte("receipt-v2"), 1),
		"a field twice":        bytes.Replace(text, []byte(`"keys":`), []byte(`"keys":[],"keys":`), 1),
		"a field less":         bytes.Replace(text, []byte(`"tenant":"Active",`), nil, 1),
		"writes on a terminal": bytes.Replace(text, []byte("the vault has"), []byte("the \\u001b[2J has"), 1),
		"empty":                {},
	}
	read := 0
	for _, data := range seeds {
		if r, _ := parseReceipt(data); r != nil {
			read++
		}
		f.Add(data)
	}
	if len(seeds) != 8 || read != 1 {
		f.Fatalf("%d seeds of which %d can be read, want 8 and 1", len(seeds), read)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReceipt(data)
		if err != nil {
			if refusal := new(control.Refusal); !errors.As(err, &refusal) || r != nil {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("it would be written otherwise: %s, %v", again, err)
		}
	})
}
