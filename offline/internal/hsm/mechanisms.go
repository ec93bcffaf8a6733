// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/offline/internal/module"
)

// wrapMechanism is a way to wrap a private key: CKM_RSA_AES_KEY_WRAP does it in
// one step, any other wraps it under an AES key that OAEP wraps under the KEK.
type wrapMechanism struct {
	id   uint
	name string
}

var (
	rsaAES     = named(pkcs11.CKM_RSA_AES_KEY_WRAP)
	aesKWP     = named(module.AESKWP)
	lunaKWP    = named(module.LunaKWP)
	cloudHSM   = named(module.CloudHSMPad)
	nShieldCRT = named(module.NShieldCRT)
	aesPad     = named(pkcs11.CKM_AES_KEY_WRAP_PAD)
	aesCBCPad  = named(pkcs11.CKM_AES_CBC_PAD)
)

func named(id uint) wrapMechanism { return wrapMechanism{id, module.MechanismName(id)} }

// wrapMechanisms are tried in this order for keys that go out; 0x210A is last,
// as tokens disagree on what it means.
var wrapMechanisms = []wrapMechanism{rsaAES, aesKWP, lunaKWP, cloudHSM, nShieldCRT, aesPad}

// unwrapMechanisms are tried in this order for keys that come in under an AES
// key. CBC is for tokens that know no better: nobody but the token and this
// process sees what it makes.
var unwrapMechanisms = []wrapMechanism{aesKWP, lunaKWP, cloudHSM, aesPad, aesCBCPad}

func (m wrapMechanism) oneStep() bool { return m == rsaAES }

func (m wrapMechanism) number() string { return fmt.Sprintf("0x%08X", m.id) }

// call is m for C_WrapKey, and for C_UnwrapKey in one step.
func (m wrapMechanism) call() []*pkcs11.Mechanism {
	if m.oneStep() {
		return mechanism(m.id, &pkcs11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaepParams})
	}
	return mechanism(m.id, nil)
}

// seal encrypts key as PKCS#8 in software under an AES key of its own use, and
// returns the call by which the token opens it.
func (m wrapMechanism) seal(aesKey []byte, key *rsa.PrivateKey) (sealed []byte, open []*pkcs11.Mechanism, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(der)
	if m == aesCBCPad {
		block, err := aes.NewCipher(aesKey)
		if err != nil {
			return nil, nil, err
		}
		pad := aes.BlockSize - len(der)%aes.BlockSize
		sealed = make([]byte, len(der)+pad)
		for i := copy(sealed, der); i < len(sealed); i++ {
			sealed[i] = byte(pad)
		}
		iv := make([]byte, aes.BlockSize) // the key is used once, so the IV may be anything
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(sealed, sealed)
		return sealed, mechanism(m.id, iv), nil
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, nil, err
	}
	sealed, err = kwp.Wrap(der)
	return sealed, mechanism(m.id, nil), err
}
