// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Probing leaves nothing and says the same again.
func TestProbeLeavesNothing(t *testing.T) {
	token, _ := newToken(t)
	probe := func() string {
		t.Helper()
		imports, wraps, uses, err := token.TryAll()
		if err != nil {
			t.Fatal(err)
		}
		library, mechanisms, err := token.Chosen().Describe(token.Chosen().ID)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(map[string]any{"imports": imports, "wraps": wraps, "uses": uses, "module": library, "mechanisms": mechanisms})
		return string(text)
	}
	one := probe()
	before := allObjects(t, token) // the transport pair
	two := probe()
	if after := allObjects(t, token); after != before || before != 1 {
		t.Errorf("%d objects after the first, %d after the second", before, after)
	}
	if one != two {
		t.Errorf("%s\n%s", one, two)
	}
	for _, field := range []string{`"imports":[{"mechanism":"C_UnwrapKey CKM_RSA_AES_KEY_WRAP","id":"0x00001054","result":"none"`, `"uses":[`, `"module":{"manufacturer":"SoftHSM"`} {
		if !strings.Contains(one, field) {
			t.Errorf("%s is not in %s", field, one)
		}
	}
}

// A token that hands out what comes in is flawed, and is given no real key.
func TestProbeFlaws(t *testing.T) {
	for _, test := range []struct {
		name string
		fake fake
		want string // in the reasons of the imports
	}{
		{"not sensitive", fake{getAttribute: func(_ pkcs11.ObjectHandle, a *pkcs11.Attribute) ([]byte, error, bool) {
			return []byte{0}, nil, a.Type == pkcs11.CKA_SENSITIVE
		}}, "not sensitive"},
		{"signs wrongly", fake{sign: func(b []byte) ([]byte, error) { b[0] ^= 1; return b, nil }}, "does not verify"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, _ := newToken(t)
			test.fake.cryptoki = token.ck
			token.ck = &test.fake
			imports, wraps, uses, err := token.TryAll()
			if err != nil {
				t.Fatal(err)
			}
			flawed := 0
			for _, v := range imports {
				if v.Result == Exact {
					t.Errorf("%+v", v)
				}
				if v.Result == Flawed && strings.Contains(v.Reason, test.want) {
					flawed++
				}
			}
			if flawed != 3 {
				t.Errorf("%d ways are flawed: %+v", flawed, imports)
			}
			for _, v := range append(wraps, uses[:2]...) {
				if v.Result != None {
					t.Errorf("%+v", v)
				}
			}
			_, err = token.Import(vectorKey(t, "contoso-mode2"))
			refused(t, err, control.HSMImport)
			if left := allObjects(t, token); left != 1 { // the transport pair
				t.Errorf("%d objects are left", left)
			}
		})
	}
}

func TestRandom(t *testing.T) {
	for _, test := range []struct {
		name string
		draw func(int) ([]byte, error)
		want Result
	}{
		{"the same again", func(n int) ([]byte, error) { return make([]byte, n), nil }, Flawed},
		{"nothing", func(int) ([]byte, error) { return nil, nil }, Flawed},
		{"fails", func(int) ([]byte, error) { return nil, pkcs11.Error(pkcs11.CKR_RANDOM_NO_RNG) }, None},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := &Token{ck: &fake{random: test.draw}}
			if v := token.Random(); v.Result != test.want || v.Reason == "" {
				t.Errorf("%+v", v)
			}
		})
	}
}

// A token that is given the primes makes its own private exponent, and may give the
// primes back in the other order: it is the same key all the same.
func TestEqual(t *testing.T) {
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	swapped := &rsa.PrivateKey{PublicKey: key.PublicKey, D: new(big.Int).Add(key.D, big.NewInt(2)), Primes: []*big.Int{key.Primes[1], key.Primes[0]}}
	if !equal(key, swapped) || !equal(swapped, key) {
		t.Error("the primes in the other order, with another private exponent, are told as another key")
	}
	if equal(key, other) || equal(key, &rsa.PrivateKey{PublicKey: key.PublicKey, D: key.D, Primes: other.Primes}) {
		t.Error("another key is told as the same")
	}
}
