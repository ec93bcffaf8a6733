// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// SignerKind is a kind of key that signs bundles.
type SignerKind string

const (
	RSA3072   SignerKind = "rsa-3072"
	ECDSAP256 SignerKind = "ecdsa-p256"
)

// oidP256 is secp256r1 as DER, which CKA_EC_PARAMS holds.
var oidP256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

// CreateSigner makes a key pair in the token that can sign and cannot leave,
// with a CKA_ID of the caller's, if the token takes it, who can so write down before
// what it is about to make. Refuses a label in use (KF-HSM-EXISTS). The signer ends
// with the Token.
func (t *Token) CreateSigner(label string, id []byte, kind SignerKind) (crypto.Signer, error) {
	if err := errors.Join(t.CheckLabel(label), t.readyToStore()); err != nil {
		return nil, err
	}
	if err := t.makeSigner(label, id, kind, true); err != nil {
		return nil, err
	}
	return t.Signer(label)
}

// makeSigner makes the pair, and no second one: a module that lost an answer may
// have repeated the call by itself.
func (t *Token) makeSigner(label string, id []byte, kind SignerKind, stored bool) error {
	t.next("make a signing key")
	how, of := mechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil), template{attr(pkcs11.CKA_EC_PARAMS, oidP256)}
	switch kind {
	case ECDSAP256:
	case RSA3072:
		how, of = mechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil), template{attr(pkcs11.CKA_MODULUS_BITS, 3072), attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	default:
		return control.HSMSigner.Refuse("there is no signing key of kind %s, only %s and %s", control.Quote(string(kind)), RSA3072, ECDSAP256)
	}
	var last error
	for _, name := range names(stored, label, id) {
		private := slices.Concat(name, template{attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, false), attr(pkcs11.CKA_SIGN, true)})
		for _, public := range []template{slices.Concat(name, of, template{attr(pkcs11.CKA_VERIFY, true)}), slices.Concat(name, of, template{attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_PRIVATE, true)})} {
			err := t.asOfficer(func() error {
				_, _, err := t.ck.GenerateKeyPair(t.session, how, public, private)
				return err
			})
			if err == nil {
				return t.alone(label)
			}
			// A NetHSM says that it failed, of a name that it does not take and of an answer that was lost.
			if !Declines(err) && !is(err, pkcs11.CKR_FUNCTION_FAILED) {
				return t.halfMade(err)
			}
			t.listed = false
			if e := t.CheckLabel(label); e != nil {
				return t.halfMade(err)
			}
			last = err
		}
	}
	return t.halfMade(last)
}

// halfMade is the refusal of a signing key that was not made, or may have been all
// the same (KF-HSM-LEFTOVER).
func (t *Token) halfMade(err error) error {
	if t.hidden(err) {
		return control.HSMLeftover.Refuse("%w; and the token may have made it though the call failed", module.Failed("make a signing key", err)).
			WithHint("run the same command again: it removes that key and makes a new one")
	}
	return module.Failed("make a signing key", err)
}

// alone leaves one private key of a label that was free: the first that is listed.
func (t *Token) alone(label string) error {
	t.listed = false
	if err := t.list(); err != nil {
		return err
	}
	private, _ := t.labelled(label)
	if len(private) < 2 {
		return nil
	}
	err := t.remove(private[1:])
	t.listed = false // their public halves are gone, or in the way
	return err
}

// labelled returns the private and public keys of a label.
func (t *Token) labelled(label string) (private, public []object) {
	for _, o := range t.objects {
		switch {
		case o.label == label && o.class == pkcs11.CKO_PRIVATE_KEY:
			private = append(private, o)
		case o.label == label && o.class == pkcs11.CKO_PUBLIC_KEY:
			public = append(public, o)
		}
	}
	return private, public
}

// RemoveSigner destroys what CreateSigner has made under the label and CKA_ID, or
// half made: a token may have taken the label's bytes as CKA_ID, or have one of its
// own, but not another state directory's. The caller had found the label free before
// and written that down. Nothing there is no error.
func (t *Token) RemoveSigner(label string, id []byte) error {
	var left []object
	for range 3 { // a public half may be listed again without its private one
		t.listed = false
		if err := t.list(); err != nil {
			return err
		}
		private, public := t.labelled(label)
		left = slices.DeleteFunc(append(private, public...), func(o object) bool { return len(o.id) == len(id) && !bytes.Equal(o.id, id) && string(o.id) != label })
		if len(left) == 0 {
			return nil
		}
		if err := t.remove(left); err != nil {
			return err
		}
	}
	return control.HSMLeftover.Refuse("the token keeps %s, though it says that it was removed", left[0])
}

// Signer returns the one signing key with the label, for as long as the Token
// is open: by crypto11 where that can serve, else in the Token's own session.
// Refuses when there is none, or more than one (KF-HSM-SIGNER).
func (t *Token) Signer(label string) (crypto.Signer, error) {
	if err := t.list(); err != nil {
		return nil, err
	}
	private, public := t.labelled(label)
	if len(private) != 1 {
		return nil, control.HSMSigner.Refuse("the token has %d private keys labelled %s, not one", len(private), control.Quote(label))
	}
	signer := &sessionSigner{token: t, handle: private[0].handle}
	for _, o := range append(public, private...) {
		if signer.public = t.signingKey(o.handle); signer.public != nil {
			break
		}
	}
	if signer.public == nil {
		return nil, control.HSMSigner.Refuse("the token shows no public half of its key labelled %s", control.Quote(label))
	}
	if shared := t.shared(private[0], signer.public); shared != nil {
		return shared, nil
	}
	return signer, prove(signer)
}

// shared is the signing key by crypto11; nil where that can't serve. It searches by
// name, which is not for tokens that keep all they are given.
func (t *Token) shared(o object, public crypto.PublicKey) crypto.Signer {
	if keeps, err := t.Keeps(); t.chosen.Shared == nil || err != nil || keeps {
		return nil
	}
	found, err := t.chosen.Shared.FindKeyPair(o.id, []byte(o.label))
	if err != nil || found == nil { // crypto11 tells "not found" by an empty answer
		return nil
	}
	if same, ok := public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(found.Public()) || prove(found) != nil {
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
	good := false
	switch public := signer.Public().(type) {
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(public, digest[:], signature)
	}
	if !good {
		return control.HSMSigner.Refuse("what the token signs does not verify under its signing key's public half")
	}
	return nil
}

// signingKey reads the public half of a signing key, nil if it is none.
func (t *Token) signingKey(h pkcs11.ObjectHandle) crypto.PublicKey {
	told, err := t.ask(h, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_EC_POINT, pkcs11.CKA_EC_PARAMS)
	if err != nil {
		return nil
	}
	if public := publicOf(told); public.N.Sign() > 0 && public.E > 0 {
		return public
	}
	point := told[2] // by the standard in an OCTET STRING; some give it bare
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	if !bytes.Equal(told[3], oidP256) {
		return nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil
	}
	return public
}

// sessionSigner signs in the Token's own session.
type sessionSigner struct {
	token  *Token
	handle pkcs11.ObjectHandle
	public crypto.PublicKey
}

func (s *sessionSigner) Public() crypto.PublicKey { return s.public }

func (s *sessionSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	t := s.token
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("the HSM signs SHA-256 here, not %s", opts.HashFunc())
	}
	t.next("sign")
	how, message := mechanism(pkcs11.CKM_ECDSA, nil), digest
	if _, isRSA := s.public.(*rsa.PublicKey); isRSA {
		how, message = mechanism(pkcs11.CKM_RSA_PKCS, nil), slices.Concat(sha256DigestInfo, digest)
	}
	if err := t.ck.SignInit(t.session, how, s.handle); err != nil {
		return nil, module.Failed("sign", err)
	}
	signature, err := t.ck.Sign(t.session, message)
	if err != nil || how[0].Mechanism == pkcs11.CKM_RSA_PKCS {
		return signature, module.Failed("sign", err)
	}
	if len(signature) == 0 || len(signature)%2 != 0 {
		return nil, module.Failed("sign", errors.New("the signature is not of two halves"))
	}
	half := len(signature) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
}

// TrySigner makes a throw-away signing key, of the session where the token has such,
// signs with it, and removes it.
func (t *Token) TrySigner(stored bool) (err error) {
	if err := t.interrupted(); err != nil {
		return err
	}
	label := throwAwaySigner
	if err := t.CheckLabel(label); err != nil {
		return err
	}
	id := make([]byte, 32) // as init draws it
	if _, err := rand.Read(id); err != nil {
		return err
	}
	if err := t.makeSigner(label, id, ECDSAP256, stored); err != nil {
		if e := t.RemoveSigner(label, id); e != nil && !control.Is(err, control.HSMLeftover) {
			return e
		}
		return err
	}
	_, err = t.Signer(label)
	if e := t.RemoveSigner(label, id); e != nil {
		return e
	}
	return err
}
