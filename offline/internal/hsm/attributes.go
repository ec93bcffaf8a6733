// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
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

	unwraps bool // it may unwrap other keys
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
// component can be read whatever the attributes say. What decides must be told;
// of the rest, a token may know nothing.
func (t *Token) inspect(h pkcs11.ObjectHandle, want protection) (Attributes, error) {
	var a Attributes
	fields := []struct {
		typ     uint
		name    string
		is      *bool
		decides bool
	}{
		{pkcs11.CKA_TOKEN, "CKA_TOKEN", &a.Token, true}, {pkcs11.CKA_PRIVATE, "CKA_PRIVATE", &a.Private, true},
		{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", &a.Sensitive, true}, {pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", &a.Extractable, true},
		{pkcs11.CKA_ALWAYS_SENSITIVE, "", &a.AlwaysSensitive, false}, {pkcs11.CKA_NEVER_EXTRACTABLE, "", &a.NeverExtractable, false}, {pkcs11.CKA_LOCAL, "", &a.Local, false},
		{pkcs11.CKA_UNWRAP, "", &a.unwraps, false},
	}
	types := make([]uint, len(fields))
	for i, f := range fields {
		types[i] = f.typ
	}
	got, err := t.Ask(h, types...) // in one call: SoftHSM reads a stored object's file again for each
	if err != nil {
		return a, module.Failed("say how it protects the private key", err)
	}
	for i, f := range fields {
		if len(got[i]) != 1 && f.decides {
			return a, control.HSMAttributes.Refuse("the token does not tell %s of the private key", f.name)
		}
		*f.is = len(got[i]) == 1 && got[i][0] != 0
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
	// Each component is asked for by itself: one that is hidden makes a joint answer fail as a whole.
	for _, part := range secretParts {
		got, err := t.ck.GetAttributeValue(t.session, h, template{attr(part, nil)})
		switch {
		case err == nil && len(got) == 1 && len(got[0].Value) > 0:
			clear(got[0].Value)
			return a, control.HSMAttributes.Refuse("the token gives out attribute 0x%X of the private key, a secret component", part)
		case gone(err) || is(err, lost...):
			return a, module.Failed("say that a private key's components are secret", err)
		}
	}
	return a, nil
}
