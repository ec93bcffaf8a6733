// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// KeepOptions says how a proven key is kept.
type KeepOptions struct {
	Label             string // the key identifier
	RetainExtractable bool   // leaves the key extractable
	Resume            bool   // takes up the very same key where an earlier run left it
}

// Kept is a key pair stored in the token.
type Kept struct {
	Label      string
	ID         []byte     // CKA_ID, as by KeyID
	Attributes Attributes // as the token reports them
	Adopted    bool       // the private key was there already (Resume)

	token *Token
	made  []pkcs11.ObjectHandle // what Keep itself created
}

// KeyID is the CKA_ID of a key: the SHA-256 of its public half as PKIX DER.
func KeyID(public *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(der)
	return id[:], nil
}

// Keep copies the key to a token object and stores its public half beside it,
// then reads back what the token made of them. Refuses a label or CKA_ID in use
// (KF-HSM-EXISTS, as [Token.CheckFree]) and a private key less protected than
// asked (KF-HSM-ATTRIBUTES). On any failure what it created is removed again;
// should that fail too, the refusal is KF-HSM-LEFTOVER around the first one.
func (k *ProvenKey) Keep(o KeepOptions) (*Kept, error) {
	t := k.session.token
	found, err := t.claim(o.Label, k.public, o.Resume)
	if err != nil {
		return nil, err
	}
	if o.Resume {
		if err := k.removeNameless(); err != nil {
			return nil, err
		}
	}
	kept := &Kept{Label: o.Label, token: t, Adopted: found.private != 0}
	if err := kept.store(k, found, o.RetainExtractable); err != nil {
		if e := kept.Remove(); e != nil {
			return nil, control.HSMLeftover.Refuse("%w; and key %s is left in the token: %v", err, control.Quote(o.Label), e)
		}
		return nil, err
	}
	return kept, nil
}

// removeNameless destroys the copies of the private key that have neither label
// nor CKA_ID: SoftHSM stores a copy as it finds it, extractable and without
// CKA_TOKEN, before it names and hardens it, and a run that is killed between
// leaves it so.
func (k *ProvenKey) removeNameless() error {
	t := k.session.token
	handles, err := t.find(template{attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)})
	if err != nil {
		return failed("search for unfinished copies", err)
	}
	for _, h := range handles {
		o, err := t.describe(h)
		if err != nil || h == k.session.handle || o.label != "" || len(o.id) > 0 {
			continue
		}
		stored, err := t.publicKey(h)
		if err != nil || !stored.Equal(k.public) { // not ours
			continue
		}
		if err := t.ck.DestroyObject(t.session, h); err != nil {
			return failed("remove an unfinished copy", err)
		}
		t.forget(h)
	}
	return nil
}

// store makes what is not there yet and checks the whole.
func (kept *Kept) store(k *ProvenKey, found pair, extractable bool) (err error) {
	t := kept.token
	if kept.ID, err = KeyID(k.public); err != nil {
		return err
	}
	named := template{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, kept.Label), attr(pkcs11.CKA_ID, kept.ID)}
	private := found.private
	if private == 0 {
		// The copy inherits private and sensitive; SoftHSM refuses to hear of them again.
		changed := named
		if !extractable {
			changed = append(changed, attr(pkcs11.CKA_EXTRACTABLE, false))
		}
		private, err = t.ck.CopyObject(t.session, k.session.handle, changed)
		if err != nil {
			return failed("store the private key", err)
		}
		kept.note(private, pkcs11.CKO_PRIVATE_KEY)
	} else if err := t.possesses(private, k.public); err != nil {
		return err
	}
	if kept.Attributes, err = t.inspect(private, protection{token: true, extractable: extractable}); err != nil {
		return err
	}
	public := found.public
	if public == 0 {
		public, err = t.ck.CreateObject(t.session, publicTemplate(k.public, append(named,
			attr(pkcs11.CKA_PRIVATE, false), attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_WRAP, false))...))
		if err != nil {
			return failed("store the public key", err)
		}
		kept.note(public, pkcs11.CKO_PUBLIC_KEY)
	}
	return kept.readBack(k.public, private, public)
}

// readBack compares what the token stored with what it was given.
func (kept *Kept) readBack(want *rsa.PublicKey, handles ...pkcs11.ObjectHandle) error {
	for _, h := range handles {
		o, err := kept.token.describe(h)
		if err != nil {
			return err
		}
		if o.label != kept.Label || !bytes.Equal(o.id, kept.ID) {
			return control.HSMAttributes.Refuse("the token stored key %s under label %s and CKA_ID %x", control.Quote(kept.Label), control.Quote(o.label), o.id)
		}
		key, err := kept.token.publicKey(h)
		if err != nil {
			return err
		}
		if !key.Equal(want) {
			return control.HSMAttributes.Refuse("the token stored key %s with another modulus or exponent than it was given", control.Quote(kept.Label))
		}
	}
	return nil
}

// note remembers an object that was created.
func (kept *Kept) note(h pkcs11.ObjectHandle, class uint) {
	kept.made = append(kept.made, h)
	kept.token.objects = append(kept.token.objects, object{handle: h, class: class, label: kept.Label, id: kept.ID})
}

// Remove destroys what Keep created, and nothing that it adopted. It may be
// called again after a failure.
func (kept *Kept) Remove() error {
	t := kept.token
	for len(kept.made) > 0 {
		last := kept.made[len(kept.made)-1]
		if err := t.ck.DestroyObject(t.session, last); err != nil {
			return failed("remove a stored key", err)
		}
		kept.made = kept.made[:len(kept.made)-1]
		t.forget(last)
	}
	return nil
}
