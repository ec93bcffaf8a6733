// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// ProvenKey is a key in the token that has been shown to be the private half of
// a public key. Only [SessionKey.Prove] and [StoredKey.Prove] make one.
type ProvenKey struct {
	token   *Token
	handle  pkcs11.ObjectHandle
	public  *rsa.PublicKey
	session *SessionKey // nil: the key is stored already
}

// Prove shows that k is the private half of public, which comes from the
// certificate and not from the token or the imported key: the token signs a
// fresh message (PKCS#1 v1.5, SHA-256) and decrypts a fresh secret (OAEP,
// SHA-1), and both are checked in software. Refuses with KF-HSM-POSSESSION.
func (k *SessionKey) Prove(public *rsa.PublicKey) (*ProvenKey, error) {
	if err := k.token.possesses(k.handle, public); err != nil {
		return nil, err
	}
	return &ProvenKey{token: k.token, handle: k.handle, public: public, session: k}, nil
}

// possesses is the proof itself, for an object of either kind.
func (t *Token) possesses(h pkcs11.ObjectHandle, public *rsa.PublicKey) error {
	message, secret := make([]byte, 32), make([]byte, 32)
	rand.Read(message) // never fails
	rand.Read(secret)
	defer clear(secret)

	signature, err := t.signMessage(h, message)
	if err != nil {
		return control.HSMPossession.Refuse("the token does not sign with the key: %w", err)
	}
	digest := sha256.Sum256(message)
	if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
		return control.HSMPossession.Refuse("the certificate's public key does not verify what the token signed: %w", err)
	}

	sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, secret, nil)
	if err != nil {
		return control.HSMPossession.Refuse("the certificate's public key does not encrypt: %w", err)
	}
	var opened []byte
	if err = t.ck.DecryptInit(t.session, oaep(), h); err == nil {
		opened, err = t.ck.Decrypt(t.session, sealed)
	}
	defer clear(opened)
	if err != nil {
		return control.HSMPossession.Refuse("the token does not decrypt what was encrypted with the certificate's public key: %w", err)
	}
	if subtle.ConstantTimeCompare(opened, secret) != 1 {
		return control.HSMPossession.Refuse("the token decrypts to something else than was encrypted with the certificate's public key")
	}
	return nil
}

// signMessage signs a message by PKCS#1 v1.5 with SHA-256. Tokens that don't hash, such as
// opencryptoki's, get the digest as the standard lays it out (RFC 8017, 9.2).
func (t *Token) signMessage(h pkcs11.ObjectHandle, message []byte) ([]byte, error) {
	signature, err := t.Sign(h, pkcs11.CKM_SHA256_RSA_PKCS, message)
	if err == pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID) {
		digest := sha256.Sum256(message)
		return t.Sign(h, pkcs11.CKM_RSA_PKCS, slices.Concat(sha256DigestInfo, digest[:]))
	}
	return signature, err
}

// Sign has the token sign by a mechanism without parameters.
func (t *Token) Sign(h pkcs11.ObjectHandle, by uint, message []byte) ([]byte, error) {
	t.next("sign")
	if err := t.ck.SignInit(t.session, mechanism(by, nil), h); err != nil {
		return nil, err
	}
	return t.ck.Sign(t.session, message)
}

// sha256DigestInfo is what stands before a SHA-256 digest that is signed.
var sha256DigestInfo = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}
