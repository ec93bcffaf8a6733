// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Attributes are what the token reports of a private key. Local,
// AlwaysSensitive and NeverExtractable are false for an imported key on a token
// that tells the truth; only a false Local can be believed.
type Attributes struct {
	Token            bool `json:"token"`
	Private          bool `json:"private"`
	Sensitive        bool `json:"sensitive"`
	Extractable      bool `json:"extractable"`
	AlwaysSensitive  bool `json:"always_sensitive"`
	NeverExtractable bool `json:"never_extractable"`
	Local            bool `json:"local"`
}

// protection is what was asked of the token for a private key.
type protection struct {
	token       bool // a token object, not a session object
	extractable bool // may be extractable
}

// secretParts are the components of a private key, each of which gives the
// whole key away.
var secretParts = []uint{
	pkcs11.CKA_PRIVATE_EXPONENT, pkcs11.CKA_PRIME_1, pkcs11.CKA_PRIME_2,
	pkcs11.CKA_EXPONENT_1, pkcs11.CKA_EXPONENT_2, pkcs11.CKA_COEFFICIENT,
}

// inspect reads back what the token made of a private key and refuses
// (KF-HSM-ATTRIBUTES) when it is less protected than asked, or when a secret
// component can be read whatever the attributes say.
func (t *Token) inspect(h pkcs11.ObjectHandle, want protection) (Attributes, error) {
	var a Attributes
	fields := []*bool{&a.Token, &a.Private, &a.Sensitive, &a.Extractable, &a.AlwaysSensitive, &a.NeverExtractable, &a.Local}
	// In one call: SoftHSM reads a stored object's file again for each.
	got, err := t.ck.GetAttributeValue(t.session, h, template{
		attr(pkcs11.CKA_TOKEN, nil), attr(pkcs11.CKA_PRIVATE, nil), attr(pkcs11.CKA_SENSITIVE, nil), attr(pkcs11.CKA_EXTRACTABLE, nil),
		attr(pkcs11.CKA_ALWAYS_SENSITIVE, nil), attr(pkcs11.CKA_NEVER_EXTRACTABLE, nil), attr(pkcs11.CKA_LOCAL, nil),
	})
	if err != nil {
		return a, control.HSMAttributes.Refuse("the token does not tell how it protects the private key: %w", err)
	}
	for i, field := range fields {
		if len(got[i].Value) != 1 {
			return a, control.HSMAttributes.Refuse("the token tells attribute 0x%X of the private key in %d bytes, not one", got[i].Type, len(got[i].Value))
		}
		*field = got[i].Value[0] != 0
	}
	switch {
	case !a.Sensitive:
		return a, control.HSMAttributes.Refuse("the token reports the private key as not sensitive: it can be read")
	case !a.Private:
		return a, control.HSMAttributes.Refuse("the token reports the private key as not private: it can be used without the PIN")
	case a.Extractable && !want.extractable:
		return a, control.HSMAttributes.Refuse("the token reports the private key as extractable, which it was not to be")
	case a.Token != want.token:
		return a, control.HSMAttributes.Refuse("the token reports the private key as stored: %t, asked for: %t", a.Token, want.token)
	}
	return a, t.hides(h)
}

// hides refuses a private key of which a secret component can be read. Each is
// asked for by itself: one that is hidden makes a joint answer fail as a whole.
func (t *Token) hides(h pkcs11.ObjectHandle) error {
	for _, part := range secretParts {
		got, err := t.ck.GetAttributeValue(t.session, h, template{attr(part, nil)})
		switch {
		case err == nil && len(got[0].Value) == 0:
		case err == nil:
			clear(got[0].Value)
			return control.HSMAttributes.Refuse("the token gives out attribute 0x%X of the private key, a secret component", part)
		case err != pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE) && err != pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
			return failed("say that a private key's components are secret", err)
		}
	}
	return nil
}
