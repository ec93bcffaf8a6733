// SPDX-License-Identifier: Apache-2.0

// Package signer is the key that signs bundles, where it lives in the HSM: a pair that is
// made in the token, for ECDSA with P-256, and never leaves it.
package signer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// oidP256 is secp256r1 as DER, which CKA_EC_PARAMS holds.
var oidP256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// Create makes the pair, with a CKA_ID of the caller's, if the token takes it, who can
// so write down before what it is about to make. Refuses a label in use (KF-HSM-EXISTS).
// The signer ends with the token.
func Create(t *hsm.Token, label string, id []byte) (crypto.Signer, error) {
	if err := errors.Join(CheckFree(t, label), t.ReadyToStore()); err != nil {
		return nil, err
	}
	if err := generate(t, label, id, true); err != nil {
		return nil, err
	}
	return Find(t, label)
}

// CheckFree refuses (KF-HSM-EXISTS) a label in use.
func CheckFree(t *hsm.Token, label string) error {
	all, err := t.Objects()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(o hsm.Object) bool { return o.Label == label }) {
		return control.HSMExists.Refuse("the token has a key labelled %s already", control.Quote(label)).
			WithHint("it signs for another state directory: use that one; where it is lost, remove both halves of the key with the HSM's own tools, or keep the new one in a file, with --signer file")
	}
	return nil
}

// generate makes the pair, and no second one: a module that lost an answer may have
// repeated the call by itself.
func generate(t *hsm.Token, label string, id []byte, stored bool) error {
	ec := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, oidP256), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)}
	hidden := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true)}
	private := append(slices.Clone(hidden), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	var err error
	for _, name := range hsm.Names(stored, label, id) {
		for _, more := range [][]*pkcs11.Attribute{nil, hidden} { // AWS CloudHSM hides public halves too
			err = t.GeneratePair(pkcs11.CKM_EC_KEY_PAIR_GEN, slices.Concat(name, ec, more), slices.Concat(name, private))
			if err == nil {
				if made, err := alone(t, label); made || err != nil {
					return err
				}
				if err := Remove(t, label, id); err != nil { // the token has taken CKA_ID for its name
					return err
				}
				break
			}
			// A NetHSM says that it failed, of a name that it does not take and of an answer that was lost.
			if !hsm.Declines(err) && !errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED)) {
				return halfMade(t, err)
			}
			t.Relist()
			if e := CheckFree(t, label); e != nil {
				return halfMade(t, err)
			}
		}
	}
	return halfMade(t, err)
}

// halfMade is the refusal of a pair that was not made, or may have been all the same
// (KF-HSM-LEFTOVER).
func halfMade(t *hsm.Token, err error) error {
	failed := module.Failed("make a signing key", err)
	if t.MayHaveStored(err) {
		return control.HSMLeftover.Refuse("%w; and the token may have made it though the call failed", failed).
			WithHint("run the same command again: it removes that key and makes a new one")
	}
	return failed
}

// alone leaves one private key of a label that was free, the first that is listed, and
// reports whether there is any.
func alone(t *hsm.Token, label string) (made bool, err error) {
	t.Relist()
	private, _, err := labelled(t, label)
	if err != nil || len(private) < 2 {
		return len(private) > 0, err
	}
	err = t.Destroy(private[1:])
	t.Relist() // their public halves are gone, or in the way
	return true, err
}

// labelled returns the private and public keys of the labels.
func labelled(t *hsm.Token, labels ...string) (private, public []hsm.Object, err error) {
	all, err := t.Objects()
	for _, o := range all {
		switch {
		case !slices.Contains(labels, o.Label):
		case o.Class == pkcs11.CKO_PRIVATE_KEY:
			private = append(private, o)
		case o.Class == pkcs11.CKO_PUBLIC_KEY:
			public = append(public, o)
		}
	}
	return private, public, err
}

// Remove destroys what Create has made under the label and CKA_ID, or half made: a
// token may have taken the label's bytes as CKA_ID, or have one of its own, but not
// another state directory's. The caller had found the label free before and written that
// down. Nothing there is no error.
func Remove(t *hsm.Token, label string, id []byte) error {
	labels := []string{label}
	if len(id) > 0 { // the token may have taken it for the name
		labels = append(labels, string(id))
	}
	var left []hsm.Object
	for range 3 { // a public half may be listed again without its private one
		t.Relist()
		private, public, err := labelled(t, labels...)
		if err != nil {
			return err
		}
		left = slices.DeleteFunc(append(private, public...), func(o hsm.Object) bool {
			return len(o.ID) == len(id) && !bytes.Equal(o.ID, id) && string(o.ID) != label
		})
		if len(left) == 0 {
			return nil
		}
		if err := t.Destroy(left); err != nil {
			return err
		}
	}
	return control.HSMLeftover.Refuse("the token keeps %s, though it says that it was removed", left[0])
}

// Find returns the one signing key with the label, for as long as the token is open: by
// crypto11 where that can serve, else in the token's own session. It can't where a module
// takes parameters (NSS), a token has one session or one login for each, or each
// C_GetFunctionList is an instance of its own (p11-kit's client). Refuses when there is
// none, or more than one (KF-HSM-SIGNER).
func Find(t *hsm.Token, label string) (crypto.Signer, error) {
	private, public, err := labelled(t, label)
	if err != nil {
		return nil, err
	}
	if len(private) != 1 {
		return nil, control.HSMSigner.Refuse("the token has %d private keys labelled %s, not one", len(private), control.Quote(label))
	}
	own := &signer{token: t, handle: private[0].Handle}
	for _, o := range append(public, private...) {
		if own.public = Public(t, o); own.public != nil {
			break
		}
	}
	if own.public == nil {
		return nil, control.HSMSigner.Refuse("the token shows no public half of its key labelled %s", control.Quote(label))
	}
	if shared := shared(t, private[0], own.public); shared != nil {
		return shared, nil
	}
	return own, prove(own)
}

// shared is the signing key by crypto11; nil where that can't serve. It searches by
// name, which is not for tokens that keep all they are given.
func shared(t *hsm.Token, o hsm.Object, public *ecdsa.PublicKey) crypto.Signer {
	context := t.Chosen().Shared
	if keeps, err := t.Keeps(); context == nil || err != nil || keeps {
		return nil
	}
	found, err := context.FindKeyPair(o.ID, []byte(o.Label))
	if err != nil || found == nil || !public.Equal(found.Public()) || prove(found) != nil { // "not found" is an empty answer
		return nil
	}
	return found
}

// prove has a signer sign, and verifies it.
func prove(signer crypto.Signer) error {
	digest := sha256.Sum256([]byte("keyferry"))
	signature, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return control.HSMSigner.Refuse("the token does not sign with its signing key: %w", err)
	}
	if public, ok := signer.Public().(*ecdsa.PublicKey); !ok || !ecdsa.VerifyASN1(public, digest[:], signature) {
		return control.HSMSigner.Refuse("what the token signs does not verify under its signing key's public half")
	}
	return nil
}

// Public reads the public key of an object of either half, nil if it is none on P-256 or
// the token does not tell it.
func Public(t *hsm.Token, o hsm.Object) *ecdsa.PublicKey {
	told, err := t.Ask(o.Handle, pkcs11.CKA_EC_POINT, pkcs11.CKA_EC_PARAMS)
	if err != nil || !bytes.Equal(told[1], oidP256) {
		return nil
	}
	point := told[0] // by the standard in an OCTET STRING; some give it bare
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil
	}
	return public
}

// signer signs in the token's own session.
type signer struct {
	token  *hsm.Token
	handle pkcs11.ObjectHandle
	public *ecdsa.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.public }

func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("the HSM signs SHA-256 here, not %s", opts.HashFunc())
	}
	signature, err := s.token.Sign(s.handle, pkcs11.CKM_ECDSA, digest)
	if err == nil && (len(signature) == 0 || len(signature)%2 != 0) {
		err = errors.New("the signature is not of two halves")
	}
	if err != nil {
		return nil, module.Failed("sign", err)
	}
	half := len(signature) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
}

// Try makes a throw-away signing key, of the session where the token has such, signs with
// it, and removes it.
func Try(t *hsm.Token, stored bool) error {
	label := hsm.ThrowAwaySigner
	if err := errors.Join(t.Interrupted(), CheckFree(t, label)); err != nil {
		return err
	}
	id := hsm.ThrowAwaySignerID[:] // as long as that of init
	err := generate(t, label, id, stored)
	if err == nil {
		_, err = Find(t, label)
	}
	if e := Remove(t, label, id); e != nil && !control.Is(err, control.HSMLeftover) {
		return e
	}
	return err
}
