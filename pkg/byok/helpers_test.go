// SPDX-License-Identifier: Apache-2.0

package byok

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"hash"
	"math/big"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"
)

// keys are one RSA key of each size, made once in a run.
var keys = map[int]func() *rsa.PrivateKey{2048: newKey(2048), 3072: newKey(3072), 4096: newKey(4096)}

func newKey(bits int) func() *rsa.PrivateKey {
	return sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		return key
	})
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// layout seals anything in the layout of a transfer blob, right or wrong.
type layout struct {
	hash    hash.Hash
	aesKey  int // bytes
	content []byte
	label   []byte
}

func (l layout) seal(t testing.TB, kek *rsa.PublicKey) []byte {
	t.Helper()
	aesKey := make([]byte, l.aesKey)
	rand.Read(aesKey)
	head, err := rsa.EncryptOAEP(l.hash, rand.Reader, kek, aesKey, l.label)
	if err != nil {
		t.Fatal(err)
	}
	if l.aesKey != 16 { // AES-128 is wrong, but the library knows it
		aesKey = append(aesKey, make([]byte, 32)...)[:32]
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		t.Fatal(err)
	}
	body, err := kwp.Wrap(l.content)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// sealed is the right layout around any content.
func sealed(t testing.TB, content []byte, kek *rsa.PublicKey) []byte {
	t.Helper()
	return layout{hash: sha1.New(), aesKey: aesKeySize, content: content}.seal(t, kek)
}

// pkcs1Fields and pkcs8Fields are the DER structures of RFC 8017 and RFC 5958,
// to spell them in ways that Wrap does not.
type pkcs1Fields struct {
	Version    int
	N          *big.Int
	E          int
	D, P, Q    *big.Int
	DP, DQ, QI *big.Int `asn1:"optional"`
}

type pkcs8Fields struct {
	Version    int
	Algorithm  asn1.RawValue
	Key        []byte
	Attributes asn1.RawValue `asn1:"optional"`
}

var rsaAlgorithm = asn1.RawValue{FullBytes: []byte{0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0}}

func fieldsOf(key *rsa.PrivateKey) pkcs1Fields {
	return pkcs1Fields{
		0, key.N, key.E, key.D, key.Primes[0], key.Primes[1],
		key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv,
	}
}

func encode(t testing.TB, inner pkcs1Fields, change func(*pkcs8Fields)) []byte {
	t.Helper()
	der, err := asn1.Marshal(inner)
	if err != nil {
		t.Fatal(err)
	}
	outer := pkcs8Fields{Algorithm: rsaAlgorithm, Key: der}
	if change != nil {
		change(&outer)
	}
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	return der
}
