// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// keySizes are the RSA sizes in bits that both the vault and Azure RMS know as
// HSM keys.
var keySizes = []int{2048, 3072, 4096}

// SessionKey is a private key in the token's session memory: it ends with
// Destroy, or with the session.
type SessionKey struct {
	Way      string   // how it came in: "C_UnwrapKey MECHANISM" or "C_CreateObject"
	Declined []string // the better ways that the token declined, and why

	token  *Token
	handle pkcs11.ObjectHandle
}

// Import brings key into the token as a session object: by C_UnwrapKey under a
// key pair that was made in the token, or, where it cannot, by C_CreateObject.
// The object is private and sensitive, and extractable since it is to be
// wrapped. Refuses other than two-prime keys of 2048, 3072 or 4096 bits
// (KF-HSM-KEY-SIZE), a token that takes keys in no way (KF-HSM-IMPORT) and one
// from which the key can be read again (KF-HSM-ATTRIBUTES).
func (t *Token) Import(key *rsa.PrivateKey) (*SessionKey, error) {
	if !slices.Contains(keySizes, key.N.BitLen()) || len(key.Primes) != 2 {
		return nil, control.HSMKeySize.Refuse("the key is RSA of %d bits with %d primes, not of 2048, 3072 or 4096 bits with two", key.N.BitLen(), len(key.Primes))
	}
	// A way that the token once declined is not tried again for each key.
	for ; t.way < len(importWays); t.way++ {
		way := importWays[t.way]
		handle, err := way.bring(t, key)
		if err != nil {
			t.declined = append(t.declined, way.name+": "+err.Error())
			continue
		}
		session := &SessionKey{Way: way.name, Declined: slices.Clone(t.declined), token: t, handle: handle}
		if _, err := t.inspect(handle, protection{extractable: true}); err != nil {
			t.destroy(handle, &err)
			return nil, err
		}
		return session, nil
	}
	err := control.HSMImport.Refuse("the token takes the private key in no way (%s)", strings.Join(t.declined, "; "))
	t.way, t.declined = 0, nil
	return nil, err
}

// Destroy ends the session object.
func (k *SessionKey) Destroy() error {
	return failed("destroy the session key", k.token.ck.DestroyObject(k.token.session, k.handle))
}

// importWay is a way to bring a private key in as a session object.
type importWay struct {
	name  string
	bring func(*Token, *rsa.PrivateKey) (pkcs11.ObjectHandle, error)
}

// importWays are tried in this order: those by which the key crosses the
// interface wrapped come first.
var importWays = func() (ways []importWay) {
	for _, m := range wrapMechanisms {
		ways = append(ways, importWay{"C_UnwrapKey " + m.name, func(t *Token, key *rsa.PrivateKey) (pkcs11.ObjectHandle, error) {
			return t.unwrap(m, key)
		}})
	}
	return append(ways, importWay{"C_CreateObject", (*Token).create})
}()

// privateTemplate describes the session object of an imported key, all but the
// key itself.
func privateTemplate() template {
	return template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, true),
		attr(pkcs11.CKA_SIGN, true),
		attr(pkcs11.CKA_DECRYPT, true),
		attr(pkcs11.CKA_UNWRAP, false), // SoftHSM's default is true
	}
}

// unwrap brings key in wrapped in the very layout that the vault takes, under
// the transport pair.
func (t *Token) unwrap(m wrapMechanism, key *rsa.PrivateKey) (handle pkcs11.ObjectHandle, err error) {
	pair, err := t.transportKeys()
	if err != nil {
		return 0, err
	}
	wrapped, err := byok.Wrap(rand.Reader, key, &pair.public)
	if err != nil {
		return 0, err
	}
	if m.oneStep() {
		return t.ck.UnwrapKey(t.session, m.call(), pair.private, wrapped, privateTemplate())
	}
	head := pair.public.Size()
	aes, err := t.ck.UnwrapKey(t.session, oaep(), pair.private, wrapped[:head], template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false),
		attr(pkcs11.CKA_UNWRAP, true),
	})
	if err != nil {
		return 0, err
	}
	defer t.destroy(aes, &err)
	return t.ck.UnwrapKey(t.session, m.call(), aes, wrapped[head:], privateTemplate())
}

// create brings key in by its components: all eight, since SoftHSM takes a key
// without CRT members and then fails to wrap it.
func (t *Token) create(key *rsa.PrivateKey) (pkcs11.ObjectHandle, error) {
	key.Precompute()
	secret := template{
		attr(pkcs11.CKA_MODULUS, key.N.Bytes()),
		attr(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
		attr(pkcs11.CKA_PRIVATE_EXPONENT, key.D.Bytes()),
		attr(pkcs11.CKA_PRIME_1, key.Primes[0].Bytes()),
		attr(pkcs11.CKA_PRIME_2, key.Primes[1].Bytes()),
		attr(pkcs11.CKA_EXPONENT_1, key.Precomputed.Dp.Bytes()),
		attr(pkcs11.CKA_EXPONENT_2, key.Precomputed.Dq.Bytes()),
		attr(pkcs11.CKA_COEFFICIENT, key.Precomputed.Qinv.Bytes()),
	}
	defer func() {
		for _, a := range secret {
			clear(a.Value)
		}
	}()
	return t.ck.CreateObject(t.session, append(privateTemplate(), secret...))
}

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
	defer t.destroy(publicHandle, &err)
	public, err := t.publicKey(publicHandle)
	if err != nil {
		return nil, err
	}
	t.transport = &transportPair{public: *public, private: private}
	return t.transport, nil
}

// publicKey reads the RSA public key of an object of either half.
func (t *Token) publicKey(h pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	got, err := t.ck.GetAttributeValue(t.session, h, template{attr(pkcs11.CKA_MODULUS, nil), attr(pkcs11.CKA_PUBLIC_EXPONENT, nil)})
	if err != nil {
		return nil, failed("read a public key", err)
	}
	exponent := new(big.Int).SetBytes(got[1].Value)
	return &rsa.PublicKey{N: new(big.Int).SetBytes(got[0].Value), E: int(exponent.Int64())}, nil
}
