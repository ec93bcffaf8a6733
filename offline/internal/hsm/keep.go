// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// KeepOptions says how a proven key is kept.
type KeepOptions struct {
	Label             string // the key identifier
	RetainExtractable bool   // leaves the key extractable
	Resume            bool   // takes up the very same key where an earlier run left it

	session bool // a rehearsal: as session objects
}

// Kept is a key pair stored in the token.
type Kept struct {
	Label      string
	ID         []byte     // CKA_ID, as the token took it
	Attributes Attributes // as the token reports them
	Adopted    bool       // the private key was there already (Resume)

	token  *Token
	public *rsa.PublicKey
	stored bool     // token objects, not a rehearsal's session objects
	made   []Object // what Keep itself created
	unsure bool     // a call to create or destroy failed, and may be done all the same
	hidden bool     // and what it did, a later run alone can see
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
// (KF-HSM-ATTRIBUTES). On any failure what it created is removed again; where
// something may be left, since that failed too or a call failed though it was done,
// the refusal is KF-HSM-LEFTOVER around the first one, and Keep with Resume takes it up.
func (k *ProvenKey) Keep(o KeepOptions) (*Kept, error) {
	if k.session == nil {
		return nil, control.HSMExists.Refuse("the key is stored in the token already")
	}
	return k.token.keep(o, k.public, k.copyTo)
}

// RehearseKeep does all that Keep does with session objects, and removes them: copy,
// name, protection, public half.
func (k *ProvenKey) RehearseKeep(extractable bool) error {
	o := KeepOptions{Label: ThrowAway(k.public), RetainExtractable: extractable, session: true}
	kept, err := k.token.keep(o, k.public, k.copyTo)
	if err != nil {
		return err
	}
	return kept.Remove()
}

// StoredWay is the way into a token that keeps all it is given.
const StoredWay = "C_CreateObject, stored at once"

// Store brings key into a token that keeps all it is given, under its own label and
// with its final attributes at once, then proves it as [SessionKey.Prove] does.
// All else is as with Keep.
func (t *Token) Store(key *rsa.PrivateKey, public *rsa.PublicKey, o KeepOptions) (*Kept, error) {
	if err := errors.Join(checkSize(key), t.Interrupted()); err != nil {
		return nil, err
	}
	if err := t.ReadyToStore(); err != nil {
		return nil, err
	}
	return t.keep(o, public, func(named template, extractable bool) (pkcs11.ObjectHandle, bool, error) {
		h, err := t.create(key, slices.Concat(storedTemplate(), named, template{attr(pkcs11.CKA_EXTRACTABLE, extractable)}))
		return h, false, err
	})
}

// storedTemplate describes an imported key, all but its name and whether it is
// extractable and stored.
func storedTemplate() template {
	return without(privateTemplate(), pkcs11.CKA_TOKEN, pkcs11.CKA_EXTRACTABLE)
}

// bring stores the private key under a name; proven says that it is known to be
// the key.
type bring func(named template, extractable bool) (h pkcs11.ObjectHandle, proven bool, err error)

func (t *Token) keep(o KeepOptions, public *rsa.PublicKey, private bring) (*Kept, error) {
	found, debris, err := t.claim(o.Label, public, o.Resume)
	if err != nil {
		return nil, err
	}
	t.next("store the key")
	kept := &Kept{Label: o.Label, token: t, public: public, stored: !o.session, Adopted: found.private.Handle != 0}
	if err = t.Destroy(debris); err == nil {
		err = kept.store(found, private, o.RetainExtractable)
	}
	if err != nil {
		if e := kept.Remove(); e != nil {
			refusal := control.HSMLeftover.Refuse("%w; and key %s may be left in the token: %v", err, control.Quote(o.Label), e)
			var cause *control.Refusal
			if errors.As(err, &cause) && cause.Hint != cause.Control.Hint {
				refusal.WithHint("%s; %s", cause.Hint, control.HSMLeftover.Hint)
			}
			return nil, refusal
		}
		return nil, err
	}
	return kept, nil
}

// store makes what is not there yet and checks the whole.
func (kept *Kept) store(found pair, bring bring, extractable bool) (err error) {
	t := kept.token
	names := Names(kept.stored, kept.Label, KeyID(kept.public))
	kept.ID = names[0][2].Value
	private, proven := found.private.Handle, false
	if private == 0 {
		private, err = firstOf(func(named template) (h pkcs11.ObjectHandle, err error) {
			err = t.asOfficer(func() (err error) { h, proven, err = bring(named, extractable); return err })
			return h, err
		}, names...)
		if err != nil {
			kept.unsure, kept.hidden = true, t.MayHaveStored(err)
			return module.Failed("store the private key", err)
		}
		if private, err = kept.privateHalf(private); err != nil {
			return err
		}
	}
	if !proven {
		if err := t.possesses(private, kept.public); err != nil {
			return err
		}
	}
	if kept.Attributes, err = t.inspect(private, protection{token: kept.stored, extractable: extractable}); err != nil {
		return err
	}
	if kept.Attributes.unwraps {
		t.tell("the token lets key %s unwrap others too (CKA_UNWRAP): it takes no word against that", control.Quote(kept.Label))
	}
	if kept.ID, err = kept.readBack(private, names); err != nil {
		return err
	}
	public := found.public.Handle
	if public == 0 {
		if public, err = kept.publicHalf(names); err != nil {
			return err
		}
	}
	_, err = kept.readBack(public, names)
	return err
}

// Names are the names that a key may get, the best first: some tokens take as
// CKA_ID only what could be a label, some none at all.
func Names(stored bool, label string, id []byte) []template {
	named := template{attr(pkcs11.CKA_TOKEN, stored), attr(pkcs11.CKA_LABEL, label)}
	return []template{append(slices.Clone(named), attr(pkcs11.CKA_ID, id)), append(slices.Clone(named), attr(pkcs11.CKA_ID, label)), named}
}

// privateHalf notes the one private key that was made, which may be another object than
// the call returned: a NetHSM returns the public half, whose destruction destroys nothing.
// A module that lost an answer may have repeated the call: then the others go.
func (kept *Kept) privateHalf(h pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	t := kept.token
	if keeps, err := t.Keeps(); err != nil || !keeps {
		kept.note(h, pkcs11.CKO_PRIVATE_KEY)
		return h, err
	}
	kept.unsure = true
	made, err := kept.strays()
	if err != nil {
		return 0, err
	}
	if len(made) == 0 {
		return 0, control.HSMAttributes.Refuse("the token took key %s in, but has no private key of that label now", control.Quote(kept.Label))
	}
	i := max(0, slices.IndexFunc(made, func(o Object) bool { return o.Handle == h }))
	h = made[i].Handle
	kept.note(h, pkcs11.CKO_PRIVATE_KEY)
	err = t.Destroy(slices.Delete(made, i, i+1))
	kept.unsure = err != nil
	return h, err
}

// publicHalf makes the public key, or finds it where the token shows one by itself.
func (kept *Kept) publicHalf(names []template) (pkcs11.ObjectHandle, error) {
	t := kept.token
	if keeps, err := t.Keeps(); err != nil {
		return 0, err
	} else if keeps {
		if h, err := kept.shown(); err != nil || h != 0 {
			return h, err
		}
	}
	var templates []template
	for _, named := range names {
		use := append(named, attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_ENCRYPT, true), attr(pkcs11.CKA_WRAP, false))
		// AWS CloudHSM wants CKA_PRIVATE true even here.
		for _, private := range []template{{attr(pkcs11.CKA_PRIVATE, false)}, nil, {attr(pkcs11.CKA_PRIVATE, true)}} {
			templates = append(templates, publicTemplate(kept.public, slices.Concat(use, private)...))
		}
	}
	h, err := firstOf(func(asked template) (pkcs11.ObjectHandle, error) { return t.ck.CreateObject(t.session, asked) }, templates...)
	if err == nil {
		kept.note(h, pkcs11.CKO_PUBLIC_KEY)
		return h, nil
	}
	if !Declines(err) {
		kept.unsure = true
		return 0, module.Failed("store the public key", err)
	}
	if h, err = kept.shown(); err == nil && h == 0 {
		err = control.HSMAttributes.Refuse("the token neither takes nor shows the public half of key %s", control.Quote(kept.Label))
	}
	return h, err
}

// shown is the public half that the token shows by itself; 0 if there is none.
func (kept *Kept) shown() (pkcs11.ObjectHandle, error) {
	found, err := kept.token.halves(kept.public, nil, pkcs11.CKO_PUBLIC_KEY)
	i := slices.IndexFunc(found, kept.named)
	if err != nil || i < 0 {
		return 0, err
	}
	kept.token.objects = append(kept.token.objects, found[i]) // it goes with the private one
	return found[i].Handle, nil
}

// named reports whether an object of the key may have its label, as far as the token has
// written it.
func (kept *Kept) named(o Object) bool { return mayBe(o.Label, kept.Label, kept.public) }

// strays are the private keys, under the key's label, that this run alone can have
// stored, and has no handle of.
func (kept *Kept) strays() ([]Object, error) {
	found, err := kept.token.halves(kept.public, kept.token.objects, pkcs11.CKO_PRIVATE_KEY)
	return slices.DeleteFunc(found, func(o Object) bool { return !kept.named(o) }), err
}

// copyTo makes a token object of a session key; copied says that what is proven
// of the one holds of the other. Tokens that can't copy, or not so, take the key in
// again, the same way, unless the copy was made all the same.
func (k *ProvenKey) copyTo(named template, extractable bool) (h pkcs11.ObjectHandle, copied bool, err error) {
	t := k.token
	// The copy inherits private and sensitive; SoftHSM refuses to hear of them again.
	changed := named
	if !extractable {
		changed = append(slices.Clone(named), attr(pkcs11.CKA_EXTRACTABLE, false))
	}
	h, err = t.ck.CopyObject(t.session, k.handle, changed)
	if err == nil || is(err, lost...) {
		return h, true, err
	}
	if left, e := t.halves(k.public, t.objects, bothHalves...); e != nil || len(left) > 0 {
		return 0, false, err
	}
	t.tell("the token does not copy a key (%v), so that it comes in once more to be stored", err)
	h, err = k.session.again(slices.Concat(storedTemplate(), named, template{attr(pkcs11.CKA_EXTRACTABLE, extractable)}))
	return h, false, err
}

// readBack compares what the token stored with what it was given, and gives it
// the name that it lacks. The label decides; of CKA_ID, which a token may make
// itself, it returns what stands there in the end.
func (kept *Kept) readBack(h pkcs11.ObjectHandle, names []template) (id []byte, err error) {
	t := kept.token
	var label string
	var public *rsa.PublicKey
	read := func() error { // in one call: see inspect
		told, err := t.Ask(h, pkcs11.CKA_LABEL, pkcs11.CKA_ID, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
		if err == nil {
			label, id, public = string(told[0]), told[1], publicOf(told[2:])
		}
		return module.Failed("describe a stored key", err)
	}
	if err := read(); err != nil {
		return nil, err
	}
	better := names[1:] // where the label is not ours, CKA_ID may stand in its way
	if label == kept.Label {
		better = names[:2]
	} else { // a NetHSM names a key by CKA_ID, which is all that can be set of it
		better = append(slices.Clone(better), template{nil, attr(pkcs11.CKA_ID, kept.Label)})
	}
	if label != kept.Label || !bytes.Equal(id, names[0][2].Value) && !bytes.Equal(id, kept.ID) && string(id) != kept.Label {
		for _, named := range better {
			err := t.asOfficer(func() error { return t.ck.SetAttributeValue(t.session, h, named[1:]) }) // CKA_TOKEN stands first
			if err == nil {
				break
			}
			if is(err, lost...) {
				return nil, module.Failed("name a stored key", err)
			}
		}
		if err := read(); err != nil {
			return nil, err
		}
	}
	if label != kept.Label {
		return nil, control.HSMAttributes.Refuse("the token stored key %s under label %s and CKA_ID %x", control.Quote(kept.Label), control.Quote(label), id)
	}
	if !agrees(public, kept.public) {
		return nil, control.HSMAttributes.Refuse("the token stored key %s with another modulus or exponent than it was given", control.Quote(kept.Label))
	}
	return id, nil
}

// note remembers an object that was created.
func (kept *Kept) note(h pkcs11.ObjectHandle, class uint) {
	o := Object{Handle: h, Class: class, Label: kept.Label, ID: kept.ID}
	kept.made = append(kept.made, o)
	kept.token.objects = append(kept.token.objects, o)
}

// Remove destroys what Keep created, and nothing that it adopted. Where a call
// failed, which may be done all the same, it looks what is there. It may be
// called again after a failure.
func (kept *Kept) Remove() error {
	t := kept.token
	var failures []error
	for _, o := range slices.Backward(kept.made) {
		if err := t.Destroy([]Object{o}); err != nil {
			failures = append(failures, err)
			kept.unsure = true
		}
		t.forget(o.Handle)
	}
	if kept.unsure {
		var strays, left []Object
		keeps, err := t.Keeps()
		if err == nil && keeps { // it may have failed after the first half of a call
			strays, err = kept.strays()
		}
		if err = errors.Join(err, t.Destroy(strays)); err == nil {
			left, err = t.halves(kept.public, t.objects, bothHalves...)
		}
		t.listed = false // so that who takes the key up sees what there is
		if err != nil {
			return errors.Join(append(failures, module.Failed("say what is left of the key", err))...)
		}
		kept.made = slices.DeleteFunc(kept.made, func(o Object) bool {
			return !slices.ContainsFunc(left, func(l Object) bool { return l.Handle == o.Handle })
		})
		if len(left) > 0 {
			return errors.Join(append(failures, control.HSMCall.Refuse("the token has %d objects of the key more than it had", len(left)))...)
		}
	}
	if kept.hidden {
		return errors.Join(append(failures, control.HSMCall.Refuse("the token may have stored it though the call failed, which the next run can see"))...)
	}
	kept.made, kept.unsure = nil, false
	return nil
}
