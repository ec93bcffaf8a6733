// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"

	"keyferry/pkg/byok"
)

// Result is what a token made of a throw-away key.
type Result string

const (
	Exact  Result = "exact"  // just what is needed; of a wrap, byte for byte what the vault takes
	Flawed Result = "flawed" // something, but not that
	None   Result = "none"   // nothing

	Unproven Result = "unproven" // not tried: it would have stored something unasked
)

// Verdict is the outcome of a trial.
type Verdict struct {
	Mechanism string `json:"mechanism"` // PKCS#11 name, of an import with the call before it
	ID        string `json:"id"`        // the mechanism's number, as 0x0000210A
	Result    Result `json:"result"`
	Reason    string `json:"reason"` // how it is flawed, or why there is none

	cause error // what the token answered
}

// trialKeys draws the throw-away keys at their first use: two RSA keys are made
// in software, some tenths of a second.
func (t *Token) trialKeys() (*trial, error) {
	if t.trial == nil {
		drawn, err := newTrial(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
		if err != nil {
			return nil, err
		}
		t.trial = drawn
	}
	return t.trial, nil
}

// trial holds the throw-away keys on which a token is tried.
type trial struct {
	key *rsa.PrivateKey // to be thrown away
	der []byte          // key as PKCS#8
	kek *rsa.PrivateKey
}

// newTrial draws a KEK, then keys up to one whose PKCS#8 length is no
// multiple of 8: with any other, a mechanism that pads to whole blocks first
// would pass.
func newTrial(draw func() (*rsa.PrivateKey, error)) (*trial, error) {
	kek, err := draw()
	if err != nil {
		return nil, err
	}
	for {
		key, err := draw()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		if len(der)%8 != 0 {
			return &trial{key: key, der: der, kek: kek}, nil
		}
	}
}

// judge opens what a mechanism made, strictly, and says how it is flawed.
func (tr *trial) judge(ciphertext []byte) (Result, string) {
	key, err := byok.Unwrap(ciphertext, tr.kek)
	if err != nil {
		return Flawed, err.Error()
	}
	if !equal(key, tr.key) {
		return Flawed, "it wraps another key"
	}
	return Exact, ""
}

// equal compares what makes a key: modulus, exponent, and the primes in either
// order. A token that is given the primes makes its own private exponent, by one
// of two formulas.
func equal(a, b *rsa.PrivateKey) bool {
	if !a.PublicKey.Equal(&b.PublicKey) || len(a.Primes) != 2 || len(b.Primes) != 2 {
		return false
	}
	return a.Primes[0].Cmp(b.Primes[0]) == 0 && a.Primes[1].Cmp(b.Primes[1]) == 0 ||
		a.Primes[0].Cmp(b.Primes[1]) == 0 && a.Primes[1].Cmp(b.Primes[0]) == 0
}
