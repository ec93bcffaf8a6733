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

func TestReceiptText(t *testing.T) {
	good, err := ReceiptText{Keys: []Arrived{{ID: "tenant-key", Tenant: "Active", TenantBy: "practice", Warnings: []string{}}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, old, new string
		want           control.Control
	}{
		{"as it is", "", "", control.Control{}},
		{"another format", "receipt-v2", "receipt-v3", control.BundleVersion},
		{"another format with a field more", `receipt-v2",`, "receipt-v3\",\n  \"extra\": 1,", control.BundleVersion},
		{"a field more", `receipt-v2",`, "receipt-v2\",\n  \"extra\": 1,", control.BundleContents},
		{"it writes on a terminal", `"practice"`, `"\u001b[2J"`, control.BundleContents},
		{"a URL that is none", `"key_url": ""`, `"key_url": "ftp://v/keys/k/1"`, control.BundleContents},
		{"a URL without a version", `"key_url": ""`, `"key_url": "https://v/keys/k"`, control.BundleContents},
		{"another state in the tenant", `"Active"`, `"Launched"`, control.BundleContents},
		{"another way of wrapping", `"wrapped_by": ""`, `"wrapped_by": "hand"`, control.BundleContents},
		{"a negative threshold", `"threshold": 0`, `"threshold": -1`, control.BundleContents},
		{"no list of approvals", `"approved": []`, `"approved": null`, control.BundleContents},
		{"no warnings", `"warnings": []`, `"warnings": null`, control.BundleContents},
		{"a warning that is none", `"warnings": []`, "\"warnings\": [\n        \"all well\"\n      ]", control.BundleContents},
		{"a key identifier that is none", `"tenant-key"`, `"Tenant key"`, control.BundleContents},
		{"no JSON", "{\n  \"format\"", `"format"`, control.BundleContents},
	} {
		if !bytes.Contains(good, []byte(test.old)) {
			t.Fatalf("%q is not in %s", test.old, good)
		}
		data := bytes.Replace(good, []byte(test.old), []byte(test.new), 1)
		switch r, err := parseReceipt(data); {
		case test.want.ID == "" && (err != nil || r.Keys[0].TenantBy != "practice"):
			t.Errorf("%s: %v", test.name, err)
		case test.want.ID != "" && (r != nil || !control.Is(err, test.want)):
			t.Errorf("%s: got %v, want %s", test.name, err, test.want.ID)
		}
	}
}

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
		"a space":              bytes.Replace(text, []byte(`"keys": `), []byte(`"keys":  `), 1),
		"another format":       bytes.Replace(text, []byte("receipt-v2"), []byte("receipt-v3"), 1),
		"a field twice":        bytes.Replace(text, []byte(`  "keys": `), []byte("  \"keys\": [],\n  \"keys\": "), 1),
		"a field less":         bytes.Replace(text, []byte("      \"tenant\": \"Active\",\n"), nil, 1),
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
	f.Logf("%d seeds, of which %d can be read", len(seeds), read)
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
