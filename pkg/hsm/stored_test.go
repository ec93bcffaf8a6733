// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"testing"

	"github.com/miekg/pkcs11"

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
	stored, err := token.Stored("contoso", &key.PublicKey)
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
	if stored, err = token.Stored("contoso", &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	if err := stored.Harden(); err != nil {
		t.Error(err)
	}
}
