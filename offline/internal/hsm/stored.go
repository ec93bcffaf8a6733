// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// StoredKey is a private key that is in the token already, imported earlier or
// by another program.
type StoredKey struct {
	Label      string
	Attributes Attributes // as the token reports them

	token  *Token
	handle pkcs11.ObjectHandle
}

// Name is how a private key is named in the token: by its label, its CKA_ID, or both.
type Name struct {
	Label string
	ID    []byte
}

func (n Name) fits(o Object) bool {
	return (n.Label == "" || n.Label == o.Label) && (len(n.ID) == 0 || bytes.Equal(n.ID, o.ID))
}

func (n Name) String() string {
	var words []string
	if n.Label != "" {
		words = append(words, "labelled "+control.Quote(n.Label))
	}
	if len(n.ID) > 0 {
		words = append(words, fmt.Sprintf("with CKA_ID %x", n.ID))
	}
	return strings.Join(words, " ")
}

// Stored finds the private key of the name, whose public half is to be
// public. Refuses when there is none, another or more than one (KF-HSM-STORED),
// and one that the token doesn't protect (KF-HSM-ATTRIBUTES). It changes nothing.
func (t *Token) Stored(name Name, public *rsa.PublicKey) (*StoredKey, error) {
	if err := t.list(); err != nil {
		return nil, err
	}
	var named []Object
	for _, o := range t.objects {
		if o.Class == pkcs11.CKO_PRIVATE_KEY && name.fits(o) {
			named = append(named, o)
		}
	}
	if len(named) != 1 {
		refusal := control.HSMStored.Refuse("the token has %d private keys %s, not one", len(named), name)
		if len(named) > 1 {
			return nil, refusal.WithHint("tell them apart by --hsm-key-id, or by --hsm-label and --hsm-key-id")
		}
		for _, o := range t.objects { // the vendor's tools may have named it
			if stored, err := t.PublicKey(o.Handle); err == nil && o.Class == pkcs11.CKO_PRIVATE_KEY && sameKey(stored, public) {
				var by []string
				if o.Label != "" {
					by = append(by, "--hsm-label "+control.Quote(o.Label))
				}
				if len(o.ID) > 0 {
					by = append(by, fmt.Sprintf("--hsm-key-id %x", o.ID))
				}
				refusal.WithHint("the token has this very key under another name: give %s", cmp.Or(strings.Join(by, " or "), "it a label with the HSM's own tools first"))
			}
		}
		return nil, refusal
	}
	key := &StoredKey{Label: named[0].Label, token: t, handle: named[0].Handle}
	stored, err := t.PublicKey(key.handle)
	if err != nil {
		return nil, module.Failed("read a public key", err)
	}
	if !agrees(stored, public) {
		return nil, control.HSMStored.Refuse("the token's key %s is not the key of the certificate", name)
	}
	if key.Attributes, err = t.inspect(key.handle, protection{token: true, extractable: true}); err != nil {
		return nil, err
	}
	return key, nil
}

// Prove shows that k is the private half of public, as [SessionKey.Prove] does,
// and refuses one that can't leave the token (KF-HSM-EXTRACTABLE). What it
// returns can be wrapped; to Keep it is refused.
func (k *StoredKey) Prove(public *rsa.PublicKey) (*ProvenKey, error) {
	if !k.Attributes.Extractable {
		return nil, control.HSMExtractable.Refuse("the token's key labelled %s is not extractable", control.Quote(k.Label))
	}
	if err := k.token.possesses(k.handle, public); err != nil {
		return nil, err
	}
	return &ProvenKey{token: k.token, handle: k.handle, public: public}, nil
}

// Harden makes the key not extractable, for good: it can't be wrapped again.
// One that is not is left as it is. Refuses with KF-HSM-CALL where the token
// fails to, and with KF-HSM-ATTRIBUTES where it reports the key as extractable
// all the same; doing it again is safe.
func (k *StoredKey) Harden() (err error) {
	if k.Attributes.Extractable {
		k.Attributes, err = k.token.harden(k.handle, protection{token: true})
	}
	return err
}

func (t *Token) harden(h pkcs11.ObjectHandle, want protection) (Attributes, error) {
	err := t.asOfficer(func() error {
		return t.ck.SetAttributeValue(t.session, h, template{attr(pkcs11.CKA_EXTRACTABLE, false)})
	})
	if err != nil {
		return Attributes{Extractable: true}, module.Failed("make the key non-extractable", err)
	}
	return t.inspect(h, want)
}

// ProveHarden hardens a throw-away session key: many tokens never change whether a
// key is extractable. Refuses with KF-HSM-ATTRIBUTES.
func (t *Token) ProveHarden() (err error) {
	trial, err := t.trialKeys()
	if err != nil {
		return err
	}
	session, err := t.Import(trial.key)
	if err != nil {
		return err
	}
	defer t.destroy(session.handle, &err)
	if _, err := t.harden(session.handle, protection{}); err != nil {
		return control.HSMAttributes.Refuse("the token %s can't make a key non-extractable afterwards: %w", control.Quote(t.chosen.Label), err).
			WithHint("give --retain-extractable, which the ceremony records; or, where the TPD holds the key too, remove the one in the HSM with the HSM's own tools and import it, which stores it non-extractable")
	}
	return nil
}
