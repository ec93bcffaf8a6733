// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
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

	token  *Token
	public *rsa.PublicKey
	made   []pkcs11.ObjectHandle // what Keep itself created
	unsure bool                  // a call to create or destroy failed, and may be done all the same
}

// KeyID is the CKA_ID of a key: the SHA-256 of its public half as PKIX DER.
func KeyID(public *rsa.PublicKey) []byte {
	id := fingerprint.OfKey(public)
	return id[:]
}

// Keep copies the key to a token object and stores its public half beside it,
// then reads back what the token made of them. A token that can't copy takes
// the key in once more. Refuses a label or CKA_ID in use (KF-HSM-EXISTS, as
// [Token.CheckFree]) and a private key less protected than asked
// (KF-HSM-ATTRIBUTES). On any failure
// what it created is removed again; where something may be left, since that
// failed too or a call failed though it was done, the refusal is KF-HSM-LEFTOVER
// around the first one, and Keep with Resume takes it up.
func (k *ProvenKey) Keep(o KeepOptions) (*Kept, error) {
	t := k.token
	if k.session == nil {
		return nil, control.HSMExists.Refuse("the key is stored in the token already")
	}
	found, err := t.claim(o.Label, k.public, o.Resume)
	if err != nil {
		return nil, err
	}
	if o.Resume {
		if err := k.removeNameless(); err != nil {
			return nil, err
		}
	}
	kept := &Kept{Label: o.Label, token: t, public: k.public, Adopted: found.private != 0}
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
	t := k.token
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
	kept.ID = KeyID(k.public)
	named := template{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, kept.Label), attr(pkcs11.CKA_ID, kept.ID)}
	private, proven := found.private, false
	if private == 0 {
		if private, proven, err = k.session.copyTo(named, extractable); err != nil {
			kept.unsure = true
			return failed("store the private key", err)
		}
		kept.note(private, pkcs11.CKO_PRIVATE_KEY)
	}
	if !proven {
		if err := t.possesses(private, k.public); err != nil {
			return err
		}
	}
	if kept.Attributes, err = t.inspect(private, protection{token: true, extractable: extractable}); err != nil {
		return err
	}
	public := found.public
	if public == 0 {
		public, err = t.ck.CreateObject(t.session, publicTemplate(k.public, append(named,
			attr(pkcs11.CKA_PRIVATE, false), attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_WRAP, false))...))
		if err != nil {
			kept.unsure = true
			return failed("store the public key", err)
		}
		kept.note(public, pkcs11.CKO_PUBLIC_KEY)
	}
	return kept.readBack(k.public, private, public)
}

// copyTo makes a token object of a session key; copied says that what is proven
// of the one holds of the other. Tokens that can't copy take the key in again,
// the same way; they say so before anything is done.
func (k *SessionKey) copyTo(named template, extractable bool) (h pkcs11.ObjectHandle, copied bool, err error) {
	t := k.token
	// The copy inherits private and sensitive; SoftHSM refuses to hear of them again.
	changed := named
	if !extractable {
		changed = append(slices.Clone(named), attr(pkcs11.CKA_EXTRACTABLE, false))
	}
	h, err = t.ck.CopyObject(t.session, k.handle, changed)
	if err != pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return h, true, err
	}
	asked := slices.DeleteFunc(privateTemplate(), func(a *pkcs11.Attribute) bool {
		return a.Type == pkcs11.CKA_TOKEN || a.Type == pkcs11.CKA_EXTRACTABLE
	})
	h, err = k.again(slices.Concat(asked, named, template{attr(pkcs11.CKA_EXTRACTABLE, extractable)}))
	return h, false, err
}

// readBack compares what the token stored with what it was given, in one call
// for each object.
func (kept *Kept) readBack(want *rsa.PublicKey, handles ...pkcs11.ObjectHandle) error {
	t := kept.token
	for _, h := range handles {
		got, err := t.ck.GetAttributeValue(t.session, h, slices.Concat(nameAttributes, publicAttributes))
		if err != nil {
			return failed("describe a stored key", err)
		}
		if label, id := string(got[0].Value), got[1].Value; label != kept.Label || !bytes.Equal(id, kept.ID) {
			return control.HSMAttributes.Refuse("the token stored key %s under label %s and CKA_ID %x", control.Quote(kept.Label), control.Quote(label), id)
		}
		if !publicOf(got[2:]).Equal(want) {
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

// Remove destroys what Keep created, and nothing that it adopted. Where a call
// failed, which may be done all the same, it looks what is there. It may be
// called again after a failure.
func (kept *Kept) Remove() error {
	t := kept.token
	var failures []error
	for _, h := range slices.Backward(kept.made) {
		if err := t.ck.DestroyObject(t.session, h); err != nil {
			failures = append(failures, failed("remove a stored key", err))
			kept.unsure = true
		}
		t.forget(h)
	}
	if kept.unsure {
		left, err := t.unknown(kept.public)
		if err != nil {
			t.listed = false // so that who takes the key up sees what there is
			return errors.Join(append(failures, failed("say what is left of the key", err))...)
		}
		kept.made = slices.DeleteFunc(kept.made, func(h pkcs11.ObjectHandle) bool { return !slices.Contains(left, h) })
		if len(left) > 0 {
			t.listed = false
			return errors.Join(append(failures, control.HSMCall.Refuse("the token has %d objects of the key more than it had", len(left)))...)
		}
	}
	kept.made, kept.unsure = nil, false
	return nil
}

// unknown returns the token objects of a key that are not among t.objects.
func (t *Token) unknown(public *rsa.PublicKey) ([]pkcs11.ObjectHandle, error) {
	handles, err := t.search(attr(pkcs11.CKA_MODULUS, public.N.Bytes()))
	return slices.DeleteFunc(handles, func(h pkcs11.ObjectHandle) bool {
		return slices.ContainsFunc(t.objects, func(o object) bool { return o.handle == h })
	}), err
}
