// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// ProvenKey is a session key that has been shown to be the private half of a
// public key. Only [SessionKey.Prove] makes one.
type ProvenKey struct {
	session *SessionKey
	public  *rsa.PublicKey
}

// Prove shows that k is the private half of public, which comes from the
// certificate and not from the token or the imported key: the token signs a
// fresh message (PKCS#1 v1.5, SHA-256) and decrypts a fresh secret (OAEP,
// SHA-1), and both are checked in software. Refuses with KF-HSM-POSSESSION.
func (k *SessionKey) Prove(public *rsa.PublicKey) (*ProvenKey, error) {
	if err := k.token.possesses(k.handle, public); err != nil {
		return nil, err
	}
	return &ProvenKey{session: k, public: public}, nil
}

// possesses is the proof itself, for an object of either kind.
func (t *Token) possesses(h pkcs11.ObjectHandle, public *rsa.PublicKey) error {
	challenge := make([]byte, 64)
	if _, err := rand.Read(challenge); err != nil {
		return err
	}
	message, secret := challenge[:32], challenge[32:]
	defer clear(challenge)

	signature, err := t.sign(h, message)
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
	opened, err := t.decrypt(h, sealed)
	if err != nil {
		return control.HSMPossession.Refuse("the token does not decrypt what was encrypted with the certificate's public key: %w", err)
	}
	defer clear(opened)
	if subtle.ConstantTimeCompare(opened, secret) != 1 {
		return control.HSMPossession.Refuse("the token decrypts to something else than was encrypted with the certificate's public key")
	}
	return nil
}

func (t *Token) sign(h pkcs11.ObjectHandle, message []byte) ([]byte, error) {
	if err := t.ck.SignInit(t.session, mechanism(pkcs11.CKM_SHA256_RSA_PKCS, nil), h); err != nil {
		return nil, err
	}
	return t.ck.Sign(t.session, message)
}

func (t *Token) decrypt(h pkcs11.ObjectHandle, ciphertext []byte) ([]byte, error) {
	if err := t.ck.DecryptInit(t.session, oaep(), h); err != nil {
		return nil, err
	}
	return t.ck.Decrypt(t.session, ciphertext)
}
