// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"

	"filippo.io/age"

	"keyferry/pkg/control"
)

// alone is an identity that opens only what is encrypted to it alone, and by
// the kind of recipient that it has: who else could read a payload, or could
// once X25519 is broken, is not for the one who seals to decide.
type alone struct{ age.Identity }

func (a alone) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 {
		return nil, control.BundleRecipient.Refuse("the payload is encrypted to %d recipients, not to this side alone", len(stanzas))
	}
	if kind := a.kind(); stanzas[0].Type != kind {
		return nil, control.BundleRecipient.Refuse("the payload is encrypted to a recipient of the kind %s, this side's is of the kind %s", control.Quote(stanzas[0].Type), kind)
	}
	return a.Identity.Unwrap(stanzas)
}

func (a alone) kind() string {
	if _, hybrid := a.Identity.(*age.HybridIdentity); hybrid {
		return "mlkem768x25519"
	}
	return "X25519"
}

func refuseDecrypt(err error) error {
	if r := new(control.Refusal); errors.As(err, &r) {
		return r
	}
	return control.BundleDecrypt.Refuse("the payload can't be decrypted: %w", err)
}
