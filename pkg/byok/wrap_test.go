// SPDX-License-Identifier: Apache-2.0

package byok

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"testing/iotest"
)

func TestRoundTrip(t *testing.T) {
	for _, bits := range []int{2048, 3072, 4096} {
		for _, kekBits := range []int{2048, 3072, 4096} {
			t.Run(fmt.Sprintf("%d under %d", bits, kekBits), func(t *testing.T) {
				key, kek := keys[bits](), keys[kekBits]()
				ciphertext, err := Wrap(rand.Reader, key, &kek.PublicKey)
				if err != nil {
					t.Fatal(err)
				}
				if want := kekBits/8 + (len(pkcs8(t, key))+7)/8*8 + 8; len(ciphertext) != want {
					t.Errorf("%d bytes, want %d", len(ciphertext), want)
				}
				got, err := Unwrap(ciphertext, kek)
				if err != nil {
					t.Fatal(err)
				}
				if !got.Equal(key) || got.Precomputed.Dp.Cmp(key.Precomputed.Dp) != 0 {
					t.Error("another key came out")
				}
				again, err := Wrap(rand.Reader, key, &kek.PublicKey)
				if err != nil || bytes.Equal(again[kek.Size():], ciphertext[kek.Size():]) {
					t.Errorf("the AES key is not a fresh one (%v)", err)
				}
			})
		}
	}
}

func TestWrapFails(t *testing.T) {
	key := keys[2048]()
	broken := errors.New("no randomness")
	if _, err := Wrap(iotest.ErrReader(broken), key, &key.PublicKey); !errors.Is(err, broken) {
		t.Errorf("no randomness: %v", err)
	}
	if _, err := Wrap(rand.Reader, &rsa.PrivateKey{PublicKey: key.PublicKey, D: key.D}, &key.PublicKey); err == nil {
		t.Error("a key without primes was wrapped")
	}
	if _, err := Wrap(rand.Reader, key, &rsa.PublicKey{N: big.NewInt(3233), E: 17}); err == nil {
		t.Error("a KEK too small was taken")
	}
}

// Each rule of the layout, broken in a ciphertext that is good otherwise.
func TestUnwrapRefuses(t *testing.T) {
	key, kek := keys[2048](), keys[3072]()
	der := pkcs8(t, key)
	good := sealed(t, der, &kek.PublicKey)
	head := kek.Size()
	flip := func(at int) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= 1
		return bad
	}
	for _, test := range []struct {
		name       string
		ciphertext []byte
		want       error // nil: it opens
	}{
		{"as specified", good, nil},
		{"empty", nil, ErrShort},
		{"the first part alone", good[:head], ErrShort},
		{"one byte less than a block", good[:head+15], ErrShort},
		{"one block", good[:head+16], ErrKWP},
		{"the first part changed", flip(0), ErrOAEP},
		{"the first part changed at its end", flip(head - 1), ErrOAEP},
		{"the first part too large a number", append(bytes.Repeat([]byte{0xff}, head), good[head:]...), ErrOAEP},
		{"under another KEK", sealed(t, der, &keys[4096]().PublicKey), ErrOAEP},
		{"OAEP with SHA-256", layout{sha256.New(), 32, der, nil}.seal(t, &kek.PublicKey), ErrOAEP},
		{"OAEP with a label", layout{sha1.New(), 32, der, []byte("label")}.seal(t, &kek.PublicKey), ErrOAEP},
		{"AES-128", layout{sha1.New(), 16, der, nil}.seal(t, &kek.PublicKey), ErrAESSize},
		{"AES-192", layout{sha1.New(), 24, der, nil}.seal(t, &kek.PublicKey), ErrAESSize},
		{"no AES key", layout{sha1.New(), 0, der, nil}.seal(t, &kek.PublicKey), ErrAESSize},
		{"an AES key with a byte behind it", layout{sha1.New(), 33, der, nil}.seal(t, &kek.PublicKey), ErrAESSize},
		{"the second part changed", flip(head), ErrKWP},
		{"the second part changed at its end", flip(len(good) - 1), ErrKWP},
		{"the second part cut", good[:len(good)-8], ErrKWP},
		{"a byte less", good[:len(good)-1], ErrKWP},
		{"a byte more", append(bytes.Clone(good), 0), ErrKWP},
		{"eight bytes more", append(bytes.Clone(good), make([]byte, 8)...), ErrKWP},
		{"no PKCS#8", sealed(t, make([]byte, 1216), &kek.PublicKey), ErrPKCS8},
		{"a byte behind the PKCS#8", sealed(t, append(bytes.Clone(der), 0), &kek.PublicKey), ErrStray},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Unwrap(test.ciphertext, kek)
			if !errors.Is(err, test.want) || (got == nil) != (test.want != nil) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

func TestEveryFlipIsRefused(t *testing.T) {
	key, kek := keys[2048](), keys[2048]()
	good := sealed(t, pkcs8(t, key), &kek.PublicKey)
	for i := range good {
		for _, pattern := range []byte{0x01, 0x80} {
			good[i] ^= pattern
			if _, err := Unwrap(good, kek); err == nil {
				t.Fatalf("byte %d changed: it opens", i)
			}
			good[i] ^= pattern
		}
	}
	t.Logf("count: %d flips, all refused", 2*len(good))
}

func TestParsePKCS8(t *testing.T) {
	key := keys[2048]()
	der, fields := pkcs8(t, key), fieldsOf(key)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the test needs a key that nobody should make
	three, err := rsa.GenerateMultiPrimeKey(rand.Reader, 3, 2048)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*pkcs1Fields)) []byte {
		f := fields
		change(&f)
		return encode(t, f, nil)
	}
	plus := func(n *big.Int, by int64) *big.Int { return new(big.Int).Add(n, big.NewInt(by)) }
	phi := new(big.Int).Mul(plus(fields.P, -1), plus(fields.Q, -1))
	tail := func(tail ...byte) []byte { return append(bytes.Clone(der), tail...) }
	for _, test := range []struct {
		name string
		der  []byte
		want error // nil: it is taken
	}{
		{"as Go writes it", der, nil},
		{"as this test writes it", encode(t, fields, nil), nil},
		{"empty", nil, ErrPKCS8},
		{"cut", der[:len(der)-1], ErrPKCS8},
		{"PKCS#1", x509.MarshalPKCS1PrivateKey(key), ErrPKCS8},
		{"no RSA key", pkcs8(t, ec), ErrPKCS8},
		{"three primes", pkcs8(t, three), ErrPKCS8},
		{"a wrong exponent DP", with(func(f *pkcs1Fields) { f.DP = plus(f.DP, 2) }), ErrPKCS8},
		{"a wrong exponent DQ", with(func(f *pkcs1Fields) { f.DQ = plus(f.DQ, 2) }), ErrPKCS8},
		{"a wrong coefficient", with(func(f *pkcs1Fields) { f.QI = plus(f.QI, 1) }), ErrPKCS8},
		{"CRT members that are zero", with(func(f *pkcs1Fields) { f.DP, f.DQ, f.QI = new(big.Int), new(big.Int), new(big.Int) }), ErrPKCS8},
		{"a wrong prime", with(func(f *pkcs1Fields) { f.P = plus(f.P, 2) }), ErrPKCS8},
		{"a wrong private exponent", with(func(f *pkcs1Fields) { f.D = plus(f.D, 2) }), ErrPKCS8},
		{"another modulus", with(func(f *pkcs1Fields) { f.N = keys[3072]().N }), ErrPKCS8},
		{"one zero behind it", tail(0), ErrStray},
		{"seven zeros behind it", tail(make([]byte, 7)...), ErrStray},
		{"something behind it", tail(0x30), ErrStray},
		{"no CRT members", with(func(f *pkcs1Fields) { f.DP, f.DQ, f.QI = nil, nil, nil }), ErrCRT},
		{"the primes swapped, the CRT members too", with(func(f *pkcs1Fields) {
			f.P, f.Q, f.DP, f.DQ = f.Q, f.P, f.DQ, f.DP
			f.QI = new(big.Int).ModInverse(f.Q, f.P)
		}), nil},
		{"a private exponent modulo phi", with(func(f *pkcs1Fields) { f.D = new(big.Int).ModInverse(big.NewInt(65537), phi) }), nil},
		{"a private exponent too long", with(func(f *pkcs1Fields) { f.D = new(big.Int).Add(f.D, phi) }), ErrPKCS8},
		{"without the algorithm's NULL", encode(t, fields, func(o *pkcs8Fields) {
			o.Algorithm = asn1.RawValue{FullBytes: append([]byte{0x30, 11}, rsaAlgorithm.FullBytes[2:13]...)}
		}), ErrCRT},
		{"with attributes", encode(t, fields, func(o *pkcs8Fields) {
			o.Attributes = asn1.RawValue{FullBytes: []byte{0xa0, 0}}
		}), ErrCRT},
		{"version 1", encode(t, fields, func(o *pkcs8Fields) { o.Version = 1 }), ErrCRT},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParsePKCS8(test.der)
			if !errors.Is(err, test.want) || (got == nil) != (test.want != nil) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
