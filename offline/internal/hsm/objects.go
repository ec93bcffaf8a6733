// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// object is a private or public key stored in the token.
type object struct {
	handle pkcs11.ObjectHandle
	class  uint // CKO_PRIVATE_KEY or CKO_PUBLIC_KEY
	label  string
	id     []byte // CKA_ID
}

// pair holds the handles of a key's stored halves, 0 where there is none.
type pair struct{ private, public pkcs11.ObjectHandle }

// CheckFree refuses (KF-HSM-EXISTS) when a private or public key in the token
// has this label or the CKA_ID of this public key. With resume, the very same
// key under this label is no refusal. It changes nothing.
//
// The token is listed once, at the first call: a search per key would cost
// as much each time. A key that another program adds meanwhile is not seen
// before [Token.CheckAlone].
func (t *Token) CheckFree(label string, public *rsa.PublicKey, resume bool) error {
	_, err := t.claim(label, public, resume)
	return err
}

// claim is CheckFree, and returns what there is to resume.
func (t *Token) claim(label string, public *rsa.PublicKey, resume bool) (found pair, err error) {
	id := KeyID(public)
	if err := t.list(); err != nil {
		return found, err
	}
	for _, o := range t.objects {
		sameLabel, sameID := o.label == label, bytes.Equal(o.id, id)
		if !sameLabel && !sameID {
			continue
		}
		half := &found.private
		if o.class == pkcs11.CKO_PUBLIC_KEY {
			half = &found.public
		}
		if !resume || !sameLabel || !sameID || *half != 0 {
			refusal := control.HSMExists.Refuse("the token has a key labelled %s with CKA_ID %x already; the new one is to be %s with %x", control.Quote(o.label), o.id, control.Quote(label), id)
			if sameID {
				refusal.WithHint("it is this very key, of which the CKA_ID is made, so that another identifier does not help: "+
					"once nothing needs the old one any more, remove both its halves, labelled %s, with the HSM's own tools", control.Quote(o.label))
			}
			return pair{}, refusal
		}
		stored, err := t.publicKey(o.handle)
		if err != nil {
			return pair{}, err
		}
		if !stored.Equal(public) {
			return pair{}, control.HSMExists.Refuse("the token has another key under label %s and CKA_ID %x", control.Quote(label), id)
		}
		*half = o.handle
	}
	return found, nil
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
		count := map[uint]int{}
		for _, o := range t.objects {
			if o.label == k.Label || bytes.Equal(o.id, k.ID) {
				count[o.class]++
			}
		}
		if count[pkcs11.CKO_PRIVATE_KEY] != 1 || count[pkcs11.CKO_PUBLIC_KEY] != 1 {
			return control.HSMExists.Refuse("another program changed the token at the same time: it has %d private and %d public keys labelled %s or with CKA_ID %x, not one of each",
				count[pkcs11.CKO_PRIVATE_KEY], count[pkcs11.CKO_PUBLIC_KEY], control.Quote(k.Label), k.ID)
		}
	}
	return nil
}

// checkLabel refuses (KF-HSM-EXISTS) a label in use, for a signing key.
func (t *Token) checkLabel(label string) error {
	if err := t.list(); err != nil {
		return err
	}
	if slices.ContainsFunc(t.objects, func(o object) bool { return o.label == label }) {
		return control.HSMExists.Refuse("the token has a key labelled %s already", control.Quote(label)).
			WithHint("it signs for another state directory: use that one; where it is lost, remove both halves of the key with the HSM's own tools, or keep the new one in a file, with --signer file")
	}
	return nil
}

// list fills t.objects, once.
func (t *Token) list() error {
	if t.listed {
		return nil
	}
	var objects []object
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		handles, err := t.search(attr(pkcs11.CKA_CLASS, class))
		if err != nil {
			return failed("list its keys", err)
		}
		for _, h := range handles {
			o, err := t.describe(h)
			if err != nil {
				return err
			}
			o.class = class
			objects = append(objects, o)
		}
	}
	t.objects, t.listed = objects, true
	return nil
}

// search returns the token objects that have the attributes.
func (t *Token) search(wanted ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	return t.find(append(template{attr(pkcs11.CKA_TOKEN, true)}, wanted...))
}

// find returns the objects, this session's own included, that have the
// attributes.
func (t *Token) find(wanted template) (handles []pkcs11.ObjectHandle, err error) {
	if err := t.ck.FindObjectsInit(t.session, wanted); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.ck.FindObjectsFinal(t.session)) }()
	for {
		more, _, err := t.ck.FindObjects(t.session, 1000)
		if err != nil || len(more) == 0 {
			return handles, err
		}
		handles = append(handles, more...)
	}
}

// What an object is named by, and its public key, as they are asked for.
var (
	nameAttributes   = template{attr(pkcs11.CKA_LABEL, nil), attr(pkcs11.CKA_ID, nil)}
	publicAttributes = template{attr(pkcs11.CKA_MODULUS, nil), attr(pkcs11.CKA_PUBLIC_EXPONENT, nil)}
)

// describe reads an object's label and CKA_ID.
func (t *Token) describe(h pkcs11.ObjectHandle) (object, error) {
	got, err := t.ck.GetAttributeValue(t.session, h, nameAttributes)
	if err != nil {
		return object{}, failed("describe a stored key", err)
	}
	return object{handle: h, label: string(got[0].Value), id: got[1].Value}, nil
}

// publicKey reads the RSA public key of an object of either half.
func (t *Token) publicKey(h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	got, err := t.ck.GetAttributeValue(t.session, h, publicAttributes)
	if err != nil {
		return nil, failed("read a public key", err)
	}
	return publicOf(got), nil
}

// publicOf is what the publicAttributes say.
func publicOf(got template) *rsa.PublicKey {
	exponent := new(big.Int).SetBytes(got[1].Value)
	return &rsa.PublicKey{N: new(big.Int).SetBytes(got[0].Value), E: int(exponent.Int64())}
}

// forget drops an object that is no longer there.
func (t *Token) forget(h pkcs11.ObjectHandle) {
	t.objects = slices.DeleteFunc(t.objects, func(o object) bool { return o.handle == h })
}
