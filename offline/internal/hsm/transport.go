// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
)

// transportPair is a key pair that was made in the token for keys to come in
// under. It lives as long as the session.
type transportPair struct {
	public  rsa.PublicKey
	private pkcs11.ObjectHandle
}

// transportKeys returns the transport pair, made at its first use.
func (t *Token) transportKeys() (pair *transportPair, err error) {
	if t.transport != nil {
		return t.transport, nil
	}
	// A call that can make nothing comes first: without C_UnwrapKey no pair is of use.
	if _, err := t.ck.UnwrapKey(t.session, oaep(), 0, make([]byte, 256), aesTemplate()); is(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return nil, err
	}
	// 2048 bits are quick to make, and guard a way that does not leave the machine.
	publicHandle, private, err := t.ck.GenerateKeyPair(t.session, mechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil),
		template{
			attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_WRAP, true),
			attr(pkcs11.CKA_MODULUS_BITS, 2048),
			attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		},
		template{
			attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_PRIVATE, true),
			attr(pkcs11.CKA_SENSITIVE, true),
			attr(pkcs11.CKA_EXTRACTABLE, false),
			attr(pkcs11.CKA_UNWRAP, true),
		})
	if err != nil {
		return nil, err
	}
	t.temporary[private] = true
	defer t.destroy(publicHandle, &err)
	public, err := t.PublicKey(publicHandle)
	if err != nil {
		return nil, module.Failed("read the public key of a pair that it made", err)
	}
	t.transport = &transportPair{public: *public, private: private}
	return t.transport, nil
}
