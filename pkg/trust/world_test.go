// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"strings"
	"testing"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

func TestWorld(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*World){
		"classic recipient":        func(*World) {},
		"hybrid recipient":         func(w *World) { w.Recipient = hybrid.Recipient().String() },
		"a rehearsal":              func(w *World) { w.Rehearsal = true },
		"no approvers":             func(w *World) { w.Approvers, w.Threshold = nil, 0 },
		"all approvers":            func(w *World) { w.Threshold = 2 },
		"a name of 127 characters": func(w *World) { w.Name = strings.Repeat("n", 127) },
		"the practice vault":       func(w *World) { w.Vault = "https://practice.vault.keyferry.test" },
	} {
		t.Run(name, func(t *testing.T) {
			w := world(t)
			change(&w)
			got, err := OpenWorld(mustSeal(t, online, w))
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != w.Name || got.Vault != w.Vault || got.Rehearsal != w.Rehearsal || got.Threshold != w.Threshold ||
				len(got.Approvers) != len(w.Approvers) || !got.Signer.Equal(w.Signer) || !got.Created.Equal(w.Created) {
				t.Errorf("sealed %+v, opened %+v", w, got)
			}
			if _, err := got.AgeRecipient(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRegions(t *testing.T) {
	for _, region := range Regions {
		if err := CheckRegion(region); err != nil {
			t.Error(err)
		}
	}
	for _, region := range []string{"", "eu", "Mars", "EU "} {
		refused(t, CheckRegion(region), control.CommandLine)
	}
	if got := WorldName("EU", 2) + " " + KEKName("NA", 11); got != "BYOK-SecurityWorld-pkg-EU-2 BYOK-KEK-pkg-NA-11" {
		t.Error(got)
	}
}

// Security worlds that their own key signed, but should not have.
func TestWorldRefused(t *testing.T) {
	good := mustSeal(t, online, world(t))
	changed := func(change func(*World)) []byte {
		w := world(t)
		change(&w)
		return mustSeal(t, online, w)
	}
	content := func(old, new string) []byte { return resign(t, online, good, replaced(t, old, new)) }
	_, kek := pinned(t)
	for _, test := range []struct {
		name string
		file []byte
		want control.Control // none: it opens
	}{
		{"nothing wrong", good, control.Control{}},
		{"empty", nil, control.PackageFormat},
		{"no JSON", []byte("BYOK\n"), control.PackageFormat},
		{"a KEK package", mustSeal(t, online, kek), control.PackageFormat},
		{"cut", good[:len(good)-1], control.PackageFormat},
		{"something behind it", append(bytes.Clone(good), '\n'), control.PackageFormat},
		{"a space within", bytes.Replace(good, []byte(`","signature"`), []byte(`", "signature"`), 1), control.PackageFormat},
		{"an unknown field", bytes.Replace(good, []byte(`{"content"`), []byte(`{"x":"","content"`), 1), control.PackageFormat},
		{"a duplicate field", bytes.Replace(good, []byte(`{"content"`), []byte(`{"content":"","content"`), 1), control.PackageFormat},
		{"no signature", []byte(`{"content":"{}","signature":""}` + "\n"), control.PackageSignature},
		{"too large", append(bytes.Clone(good), make([]byte, maxPackage)...), control.PackageFormat},
		{"another format", content("security-world-v1", "security-world-v2"), control.PackageFormat},
		{"an unknown field in the content", content(`{"format"`, `{"x":1,"format"`), control.PackageFormat},
		{"a duplicate field in the content", content(`"threshold":1`, `"threshold":2,"threshold":1`), control.PackageFormat},
		{"a field left out of the content", content(`"rehearsal":false,`, ``), control.PackageFormat},
		{"something behind the content", content(`"threshold":1}`, `"threshold":1}{}`), control.PackageFormat},
		{"a signer that is no key", content(`"signer":"ssh-ed25519 `, `"signer":"ssh-rsa `), control.PackageFormat},
		{"another signer", mustSeal(t, stranger, world(t)), control.PackageSignature},
		{"another region", changed(func(w *World) { w.Region = "Mars" }), control.PackageFormat},
		{"number 0", changed(func(w *World) { w.Number = 0 }), control.PackageFormat},
		{"a bad name", changed(func(w *World) { w.Name = "../x" }), control.PackageFormat},
		{"a vault without TLS", changed(func(w *World) { w.Vault = "http://contoso.vault.azure.net" }), control.PackageFormat},
		{"a vault with a path", changed(func(w *World) { w.Vault += "/" }), control.PackageFormat},
		{"a threshold out of reach", changed(func(w *World) { w.Threshold = 3 }), control.PackageFormat},
		{"a negative threshold", changed(func(w *World) { w.Threshold = -1 }), control.PackageFormat},
		{"an approver who is listed twice", changed(func(w *World) { w.Approvers = []Approver{w.Approvers[0], {"Carol", w.Approvers[0].Key}} }), control.PackageFormat},
		{"an approver without a name", changed(func(w *World) { w.Approvers[0].Name = "" }), control.PackageFormat},
		{"an approver whose name writes on the terminal", changed(func(w *World) { w.Approvers[0].Name = "Al\x1b[2K" }), control.PackageFormat},
		{"no recipient", changed(func(w *World) { w.Recipient = "" }), control.PackageFormat},
		{"an identity as recipient", changed(func(w *World) { w.Recipient = "AGE-SECRET-KEY-1" }), control.PackageFormat},
		{"a hybrid recipient cut off", changed(func(w *World) { w.Recipient = "age1pq1abc" }), control.PackageFormat},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, err := OpenWorld(test.file)
			if test.want.ID == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, test.want)
			if w != nil {
				t.Error("a refused world is returned")
			}
		})
	}
}

func TestCard(t *testing.T) {
	card := Card{Name: "vault-room", Created: now, Signer: public(t, offline), Recipient: recipient(t)}
	good, err := card.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenCard(good)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Signer.Equal(card.Signer) || got.Recipient != card.Recipient || got.Name != card.Name {
		t.Errorf("wrote %+v, read %+v", card, got)
	}
	spoken := got.Fingerprints.Signer
	if spoken.Hex != card.Signer.Fingerprint().Hex() || len(spoken.Words) != 32 ||
		got.Fingerprints.Recipient.Hex != fingerprint.Of([]byte(card.Recipient)).Hex() {
		t.Errorf("fingerprints %+v", got.Fingerprints)
	}
	if _, err := got.AgeRecipient(); err != nil {
		t.Error(err)
	}
	if CardName("vault-room") != "offline-card-vault-room.json" {
		t.Error(CardName("vault-room"))
	}

	swap := func(old, new string) []byte { return replaced(t, old, new)(good) }
	w := world(t)
	encoded := func(change func(*Card)) []byte {
		c := card
		change(&c)
		file, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, file := range map[string][]byte{
		"empty":                           nil,
		"cut":                             good[:len(good)-1],
		"something behind it":             append(bytes.Clone(good), '\n'),
		"a package":                       mustSeal(t, online, w),
		"another format":                  swap("card-v1", "card-v2"),
		"an unknown field":                swap(`"rehearsal"`, `"x": 1, "rehearsal"`),
		"a field left out":                swap("  \"rehearsal\": false,\n", ""),
		"a name that is none":             encoded(func(c *Card) { c.Name = "../x" }),
		"a recipient that is none":        encoded(func(c *Card) { c.Recipient = "age1" }),
		"a fingerprint that does not fit": swap(spoken.Hex, fingerprint.Of(nil).Hex()),
		"words that do not fit":           swap(`"`+spoken.Words[31]+`"`+"\n      ]\n    },", `"aardvark"`+"\n      ]\n    },"),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := OpenCard(file)
			refused(t, err, control.CardFormat)
			if c != nil {
				t.Error("a refused card is returned")
			}
		})
	}
}
