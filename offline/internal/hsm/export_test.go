// SPDX-License-Identifier: Apache-2.0

package hsm

import "github.com/miekg/pkcs11"

// What hsm_test has of these tests: it tests what stands on this package.
var (
	BenchToken = benchToken
	Beside     = beside
	NewToken   = newToken
	OpenToken  = openToken
	Refused    = refused
	AllObjects = allObjects
)

// Fake is a fake by some of its functions.
type Fake struct {
	Attribute func(pkcs11.ObjectHandle, *pkcs11.Attribute) (value []byte, err error, faked bool)
	Sign      func([]byte) ([]byte, error)
	Random    func(int) ([]byte, error)
}

// Before sets the fake before a token.
func (f Fake) Before(t *Token) {
	t.ck = &fake{cryptoki: t.ck, getAttribute: f.Attribute, sign: f.Sign, random: f.Random}
}
