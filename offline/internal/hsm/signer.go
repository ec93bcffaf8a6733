// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto"
	"crypto/elliptic"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// SignerKind is a kind of key that signs bundles.
type SignerKind string

const (
	RSA3072   SignerKind = "rsa-3072"
	ECDSAP256 SignerKind = "ecdsa-p256"
)

// CreateSigner makes a key pair in the token that can sign and cannot leave,
// with a CKA_ID of the caller's, who can so write down before what it is about
// to make. Refuses a label in use (KF-HSM-EXISTS). The signer ends with the Token.
func (t *Token) CreateSigner(label string, id []byte, kind SignerKind) (crypto.Signer, error) {
	if err := t.canSign(); err != nil {
		return nil, err
	}
	if err := t.checkLabel(label); err != nil {
		return nil, err
	}
	t.listed = false // the token has a key more from here on
	var signer crypto11.Signer
	var err error
	switch kind {
	case RSA3072:
		signer, err = t.crypto11.GenerateRSAKeyPairWithLabel(id, []byte(label), 3072)
	case ECDSAP256:
		signer, err = t.crypto11.GenerateECDSAKeyPairWithLabel(id, []byte(label), elliptic.P256())
	default:
		return nil, control.HSMSigner.Refuse("there is no signing key of kind %s, only %s and %s", control.Quote(string(kind)), RSA3072, ECDSAP256)
	}
	if err != nil {
		return nil, failed("make a signing key", err)
	}
	return signer, nil
}

// RemoveSigner destroys what CreateSigner has made under the label and CKA_ID,
// or half made. Nothing there is no error.
func (t *Token) RemoveSigner(label string, id []byte) error {
	handles, err := t.search(attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_ID, id))
	if err != nil {
		return failed("find the signing key", err)
	}
	t.listed = false
	for _, h := range handles {
		if err := t.ck.DestroyObject(t.session, h); err != nil {
			return failed("remove the signing key", err)
		}
	}
	return nil
}

// Signer returns the one signing key with the label, for as long as the Token
// is open. Refuses when there is none, or more than one (KF-HSM-SIGNER).
func (t *Token) Signer(label string) (crypto.Signer, error) {
	if err := t.canSign(); err != nil {
		return nil, err
	}
	// crypto11 tells "not found" by an empty answer.
	signers, err := t.crypto11.FindKeyPairs(nil, []byte(label))
	if err != nil {
		return nil, failed("find the signing key", err)
	}
	if len(signers) != 1 {
		return nil, control.HSMSigner.Refuse("the token has %d key pairs labelled %s, not one", len(signers), control.Quote(label))
	}
	return signers[0], nil
}

// canSign refuses where crypto11 could not open the token.
func (t *Token) canSign() error {
	if t.noSigning != nil {
		return control.HSMSigner.Refuse("bundles can't be signed by this token: %w", t.noSigning).
			WithHint("keep the signing key in a file, with --signer file, or use another token")
	}
	return nil
}
