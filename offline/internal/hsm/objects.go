// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// Object is a key stored in the token, as far as the token describes it.
type Object struct {
	Handle pkcs11.ObjectHandle
	Class  uint
	Label  string // empty: none, or not told
	ID     []byte // CKA_ID; empty: none, or not told
}

// String names an object for people.
func (o Object) String() string {
	class := map[uint]string{pkcs11.CKO_PRIVATE_KEY: "private key", pkcs11.CKO_PUBLIC_KEY: "public key", pkcs11.CKO_SECRET_KEY: "secret key"}[o.Class]
	return fmt.Sprintf("handle 0x%x, a %s labelled %s", uint(o.Handle), class, control.Quote(o.Label))
}

// pair holds a key's stored halves, each with the handle 0 where it is not there.
type pair struct{ private, public Object }

// CheckFree refuses (KF-HSM-EXISTS) when a key in the token has this label or the
// CKA_ID of this public key. With resume, the very same key under this label is
// no refusal. It changes nothing.
//
// The token is listed once, at the first call: a search per key would cost
// as much each time. A key that another program adds meanwhile is not seen
// before [Token.CheckAlone].
func (t *Token) CheckFree(label string, public *rsa.PublicKey, resume bool) error {
	_, _, err := t.claim(label, public, resume)
	return err
}

// claim is CheckFree, and returns what there is to resume: the halves of the key,
// and what else of it a run has left half named or a second time, which is to be
// removed.
func (t *Token) claim(label string, public *rsa.PublicKey, resume bool) (found pair, debris []Object, err error) {
	id := KeyID(public)
	if err := t.list(); err != nil {
		return found, nil, err
	}
	for _, o := range t.objects {
		sameLabel, sameID := o.Label == label, bytes.Equal(o.ID, id)
		if !resume || o.Class == pkcs11.CKO_SECRET_KEY || !mayBe(o.Label, label, public) {
			if !sameLabel && !sameID {
				continue
			}
			refusal := control.HSMExists.Refuse("the token has a key labelled %s with CKA_ID %x already; the new one is to be %s with %x", control.Quote(o.Label), o.ID, control.Quote(label), id)
			if sameID {
				refusal.WithHint("it is this very key, of which the CKA_ID is made, so that another identifier does not help: "+
					"once nothing needs the old one any more, remove both its halves, labelled %s, with the HSM's own tools", control.Quote(o.Label))
			}
			return found, nil, refusal
		}
		half := &found.private
		if o.Class == pkcs11.CKO_PUBLIC_KEY {
			half = &found.public
		}
		stored, err := t.PublicKey(o.Handle)
		same := err == nil && sameKey(stored, public)
		switch {
		case gone(err):
		case err != nil && sameLabel:
			return found, nil, module.Failed("read a public key", err)
		case sameLabel && !agrees(stored, public):
			return found, nil, control.HSMExists.Refuse("the token has another key under label %s and CKA_ID %x", control.Quote(label), o.ID)
		case sameLabel && half.Handle == 0:
			*half = o
		case sameLabel && half == &found.public:
			return found, nil, control.HSMExists.Refuse("the token has two public keys labelled %s", control.Quote(label))
		case same && half == &found.private:
			debris = append(debris, o)
		}
	}
	return found, debris, nil
}

// mayBe reports whether a label is that of a key, or all that a token may have written of
// it: a copy gets its name after it is made, a YubiHSM keeps 40 bytes of a name with
// the key and the rest apart, a NetHSM takes CKA_ID for the name.
func mayBe(written, label string, public *rsa.PublicKey) bool {
	return written == label || written == "" || written == string(KeyID(public)) || len(written) >= 32 && strings.HasPrefix(label, written)
}

// sameKey compares what is there: some tokens don't tell the exponent of a
// private key.
func sameKey(stored, public *rsa.PublicKey) bool {
	return stored.N.Cmp(public.N) == 0 && (stored.E == 0 || stored.E == public.E)
}

// agrees is sameKey for a key that its name has found and that is proven besides: some
// tokens show the modulus beside the public half alone.
func agrees(stored, public *rsa.PublicKey) bool {
	return stored.N.Sign() == 0 || sameKey(stored, public)
}

// CheckAlone lists the token again and refuses (KF-HSM-EXISTS) when another
// program has stored a key with the label or CKA_ID of one of kept, after
// CheckFree and before now. It is for the end of a run, before anything leaves:
// a list costs as much for one key as for all. The caller may then
// [Kept.Remove] its own.
func (t *Token) CheckAlone(kept ...*Kept) error {
	t.listed = false
	if err := t.list(); err != nil {
		return err
	}
	for _, k := range kept {
		id := KeyID(k.public)
		count := map[uint]int{}
		for _, o := range t.objects {
			if o.Label == k.Label || bytes.Equal(o.ID, id) {
				count[o.Class]++
			}
		}
		if count[pkcs11.CKO_PRIVATE_KEY] != 1 || count[pkcs11.CKO_PUBLIC_KEY] != 1 {
			return control.HSMExists.Refuse("another program changed the token at the same time: it has %d private and %d public keys labelled %s or with CKA_ID %x, not one of each",
				count[pkcs11.CKO_PRIVATE_KEY], count[pkcs11.CKO_PUBLIC_KEY], control.Quote(k.Label), id)
		}
	}
	return nil
}

// CheckUnchanged lists the token again and refuses (KF-HSM-LEFTOVER) when it has a
// key more than when this run first listed it, those that were kept excepted: a
// token may keep what it was asked to forget. Each is named. What has gone
// meanwhile is somebody's business.
func (t *Token) CheckUnchanged(kept ...*Kept) error {
	if t.before == nil {
		return nil // nothing was made
	}
	t.listed = false
	if err := t.list(); err != nil {
		return err
	}
	count := map[string]int{}
	name := func(o Object) string { return fmt.Sprintf("%d %q %x", o.Class, o.Label, o.ID) }
	for _, o := range t.before {
		count[name(o)]++
	}
	var more []string
	for _, o := range t.objects {
		if count[name(o)]--; count[name(o)] < 0 && !slices.ContainsFunc(kept, func(k *Kept) bool { return k.Label == o.Label }) {
			more = append(more, o.String())
		}
	}
	if len(more) == 0 {
		return nil
	}
	return control.HSMLeftover.Refuse("the token has keys that it had not before this run: %s", strings.Join(more, "; ")).
		WithHint("look whether another program made them meanwhile; else remove them with the HSM's own tools: nothing needs them")
}

// Objects lists the keys of the token, once.
func (t *Token) Objects() ([]Object, error) {
	err := t.list()
	return t.objects, err
}

// Relist has the token listed anew when it is asked next.
func (t *Token) Relist() { t.listed = false }

// Destroy destroys stored objects. One that is no longer there is no error: it may
// go with its other half.
func (t *Token) Destroy(objects []Object) error {
	for _, o := range objects {
		err := t.asOfficer(func() error { return t.ck.DestroyObject(t.session, o.Handle) })
		if err != nil && !gone(err) {
			t.listed = false
			return module.Failed("remove a stored key", err)
		}
		t.forget(o.Handle)
	}
	return nil
}

// list fills t.objects, once.
func (t *Token) list() error {
	if t.listed {
		return nil
	}
	t.next("list its keys")
	objects := []Object{}
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY} {
		found, err := t.find(class)
		if err != nil {
			return err
		}
		objects = append(objects, found...)
	}
	t.objects, t.listed = objects, true
	if t.before == nil {
		t.before = slices.Clone(objects)
	}
	return nil
}

// find returns the objects of a class, but for the session objects of this run.
// It searches by nothing else: some modules answer other searches with nothing, with
// everything, or crash. What vanishes before it is described is not there.
func (t *Token) find(class uint) (found []Object, err error) {
	var handles []pkcs11.ObjectHandle
	if err := t.ck.FindObjectsInit(t.session, template{attr(pkcs11.CKA_CLASS, class)}); err != nil {
		return nil, module.Failed("list its keys", err)
	}
	for {
		more, _, e := t.ck.FindObjects(t.session, 1000)
		if err = e; err != nil || len(more) == 0 {
			break
		}
		handles = append(handles, more...)
	}
	if err := errors.Join(err, t.ck.FindObjectsFinal(t.session)); err != nil {
		return nil, module.Failed("list its keys", err)
	}
	for _, h := range handles {
		if t.temporary[h] {
			continue
		}
		told, err := t.Ask(h, pkcs11.CKA_LABEL, pkcs11.CKA_ID)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, module.Failed("describe a stored key", err)
		}
		found = append(found, Object{Handle: h, Class: class, Label: string(told[0]), ID: told[1]})
	}
	return found, nil
}

// bothHalves are the classes of a key's two objects.
var bothHalves = []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY}

// halves lists anew the stored objects of a key, but for those that are known. Its
// modulus decides, not its name: every key of the token is read.
func (t *Token) halves(public *rsa.PublicKey, known []Object, classes ...uint) (found []Object, err error) {
	for _, class := range classes {
		all, err := t.find(class)
		if err != nil {
			return nil, err
		}
		for _, o := range all {
			if slices.ContainsFunc(known, func(k Object) bool { return k.Handle == o.Handle }) {
				continue
			}
			stored, err := t.PublicKey(o.Handle)
			if err != nil && !gone(err) {
				return nil, module.Failed("read a public key", err)
			}
			if err == nil && sameKey(stored, public) {
				found = append(found, o)
			}
		}
	}
	return found, nil
}

// lost are return values that are not about an attribute.
var lost = []pkcs11.Error{
	pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_TOKEN_NOT_PRESENT,
	pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_USER_NOT_LOGGED_IN,
}

// Ask reads attributes of an object in one call or, where the token does not take
// that for this object, one at a time: nil is one that it does not tell.
func (t *Token) Ask(h pkcs11.ObjectHandle, types ...uint) ([][]byte, error) {
	values := make([][]byte, len(types))
	wanted := make(template, len(types))
	for i, typ := range types {
		wanted[i] = attr(typ, nil)
	}
	got, err := t.ck.GetAttributeValue(t.session, h, wanted)
	if err == nil && len(got) == len(types) {
		for i := range got {
			values[i] = got[i].Value
		}
		return values, nil
	}
	if gone(err) || is(err, lost...) {
		return nil, err
	}
	for i := range wanted {
		got, err := t.ck.GetAttributeValue(t.session, h, wanted[i:i+1])
		switch {
		case gone(err) || is(err, lost...):
			return nil, err
		case err == nil && len(got) == 1:
			values[i] = got[0].Value
		}
	}
	return values, nil
}

// PublicKey reads the RSA public key of an object of either half; E is 0 where the
// token does not tell the exponent.
func (t *Token) PublicKey(h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	told, err := t.Ask(h, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT)
	if err != nil {
		return nil, err
	}
	return publicOf(told), nil
}

// publicOf is what a token told of modulus and exponent.
func publicOf(told [][]byte) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(told[0]), E: int(new(big.Int).SetBytes(told[1]).Int64())}
}

// forget drops an object that is no longer there.
func (t *Token) forget(h pkcs11.ObjectHandle) {
	t.objects = slices.DeleteFunc(t.objects, func(o Object) bool { return o.Handle == h })
}
