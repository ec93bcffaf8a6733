// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
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

	Cause error `json:"-"` // the reason, as an error
}

// Judged notes the reason of a trial that failed; without one, all is exact.
func (v *Verdict) Judged(err error) {
	if v.Cause = err; err == nil {
		v.Result = Exact
	} else {
		v.Reason = err.Error()
	}
}

func reasonsOf(verdicts []Verdict) (reasons module.Reasons) {
	for _, v := range verdicts {
		reasons = append(reasons, module.Reason{What: strings.TrimPrefix(v.Mechanism, "C_UnwrapKey "), Why: v.Cause})
	}
	return reasons
}

// trialKeys draws the throw-away keys at their first use: two RSA keys are made
// in software, some tenths of a second.
func (t *Token) trialKeys() (trial *trial, err error) {
	if t.trial == nil {
		t.trial, err = newTrial(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	}
	return t.trial, err
}

// ThrowAwayKey is a key to try the token with.
func (t *Token) ThrowAwayKey() (*rsa.PrivateKey, error) {
	trial, err := t.trialKeys()
	if err != nil {
		return nil, err
	}
	return trial.key, nil
}

// trial holds the throw-away keys on which a token is tried.
type trial struct {
	key *rsa.PrivateKey // to be thrown away
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
			return &trial{key: key, kek: kek}, nil
		}
	}
}

// judge opens what a mechanism made, strictly, and says how it is flawed.
func (tr *trial) judge(ciphertext []byte) error {
	key, err := byok.Unwrap(ciphertext, tr.kek)
	if err == nil && !equal(key, tr.key) {
		err = errors.New("it wraps another key")
	}
	return err
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

// throwAwayPrefix heads the label of a key that is stored for a trial. What follows
// is the head of its own KeyID, so that a key that a run has left can be told for
// certain: nobody labels another key so.
const throwAwayPrefix = "keyferry-throw-away-"

// ThrowAwaySigner labels a signing key that is made for a trial, whose CKA_ID is ThrowAwaySignerID.
const ThrowAwaySigner = throwAwayPrefix + "signer"

var ThrowAwaySignerID = sha256.Sum256([]byte(ThrowAwaySigner))

// ThrowAway labels a throw-away key.
func ThrowAway(public *rsa.PublicKey) string {
	return throwAwayPrefix + hex.EncodeToString(KeyID(public)[:8])
}

// Sweep removes the throw-away keys that an earlier run has left, and returns how
// many. It changes nothing else.
func (t *Token) Sweep() (swept int, err error) {
	if err := t.list(); err != nil {
		return 0, err
	}
	var left []Object
	for _, o := range t.objects { // the private ones first: the other half may go with them
		signer := o.Label == ThrowAwaySigner || o.Label == string(ThrowAwaySignerID[:])
		if o.Class == pkcs11.CKO_SECRET_KEY || !signer && !strings.HasPrefix(o.Label, throwAwayPrefix) && len(o.Label) != sha256.Size {
			continue
		}
		public, err := t.PublicKey(o.Handle)
		if err == nil && public.E == 0 { // not told; each of these has this one
			public.E = 65537
		}
		// A token that names keys by CKA_ID alone has the KeyID of one that is half named.
		if signer || err == nil && (o.Label == ThrowAway(public) || o.Label == string(KeyID(public))) {
			left = append(left, o)
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	t.next("remove what an earlier run has left")
	if err := t.Destroy(left); err != nil {
		return 0, err
	}
	t.listed = false
	return len(left), t.list()
}
