// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"fmt"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// A token that fails to make a key non-extractable, or only says that it did,
// is told, and the key can be hardened once the token is mended.
func TestHardenRefuses(t *testing.T) {
	token, _ := newToken(t)
	key := vectorKey(t, "contoso-mode2")
	if _, err := imported(t, token, key).Keep(KeepOptions{Label: "contoso", RetainExtractable: true}); err != nil {
		t.Fatal(err)
	}
	stored, err := token.Stored(Name{Label: "contoso"}, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	mended := token.ck
	token.ck = &fake{cryptoki: mended, setAttribute: func() error { return pkcs11.Error(pkcs11.CKR_ATTRIBUTE_READ_ONLY) }}
	refused(t, stored.Harden(), control.HSMCall)
	if !stored.Attributes.Extractable {
		t.Error("the key is taken for non-extractable after a call that failed")
	}
	token.ck = &fake{cryptoki: mended, setAttribute: func() error { return nil }}
	refused(t, stored.Harden(), control.HSMAttributes)
	token.ck = mended
	if stored, err = token.Stored(Name{Label: "contoso"}, &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	if err := stored.Harden(); err != nil {
		t.Error(err)
	}
}

// runWrapStored wraps a stored key, writes down that it has, and only then makes
// it non-extractable, as the offline side does.
func runWrapStored(token *Token, j *journal, key, kek *rsa.PrivateKey) error {
	stored, err := token.Stored(Name{Label: testKey}, &key.PublicKey)
	if err != nil {
		return err
	}
	if j.wrapped == nil {
		wrap, _, err := token.ProveWrap()
		if err != nil {
			return err
		}
		proven, err := stored.Prove(&key.PublicKey)
		if err != nil {
			return err
		}
		if j.wrapped, err = wrap.Wrap(proven, &kek.PublicKey); err != nil {
			return err
		}
	}
	return stored.Harden()
}

// Every PKCS#11 call of it goes wrong in every way: the key is there once all the
// same, it is not hardened before it is wrapped, and a second run ends like one
// in which nothing goes wrong.
func TestFaultsOfStored(t *testing.T) {
	b := newFaultBed(t)
	key := func(t *testing.T) {
		token := b.open(t)
		if _, err := imported(t, token, b.key).Keep(KeepOptions{Label: testKey, RetainExtractable: true}); err != nil {
			t.Fatal(err)
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
	run := func(t *testing.T, j *journal, at int, how fault) (string, int, error) {
		return b.runFaulty(t, at, how, func(token *Token) error { return runWrapStored(token, j, b.key, b.kek) })
	}
	key(t)
	_, calls, err := run(t, &journal{}, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	token := b.open(t)
	_, _, want := stored(t, token)
	empty(t, token)
	cases, failed := 0, 0
	for _, how := range []fault{nothingDone, thoughDone, killed, cutOff} {
		for at := 1; at <= calls; at++ {
			key(t)
			var j journal
			name, _, err := run(t, &j, at, how)
			about := fmt.Sprintf("call %d, %s, %s", at, name, how)
			token := b.open(t)
			if before, err := token.Stored(Name{Label: testKey}, &b.key.PublicKey); err != nil {
				t.Fatalf("%s: %v", about, err)
			} else if !before.Attributes.Extractable && j.wrapped == nil {
				t.Errorf("%s: the key can't leave and has not left", about)
			}
			if err := runWrapStored(token, &j, b.key, b.kek); err != nil {
				t.Errorf("%s: the second run: %v", about, err)
			}
			if _, _, got := stored(t, token); got != want {
				t.Errorf("%s: ends in\n%swant\n%s", about, got, want)
			}
			if opened, err := byok.Unwrap(j.wrapped, b.kek); err != nil || !opened.Equal(b.key) {
				t.Errorf("%s: the ciphertext: %v", about, err)
			}
			empty(t, token)
			if cases++; err != nil {
				failed++
			}
		}
	}
	if calls < 50 || failed < cases/2 {
		t.Errorf("only %d calls, and %d of %d cases failed a run", calls, failed, cases)
	}
	fmt.Fprintf(os.Stderr, "hsm: %d faults in a wrap of a stored key of %d calls\n", cases, calls)
}
