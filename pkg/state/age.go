// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"fmt"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
)

// createAge makes an age identity in the file format of age-keygen.
func createAge(path string, classic bool) error {
	var recipient, identity fmt.Stringer
	if classic {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		identity, recipient = id, id.Recipient()
	} else {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return err
		}
		identity, recipient = id, id.Recipient()
	}
	data := fmt.Appendf(nil, "# public key: %s\n%s\n", recipient, identity)
	defer clear(data)
	return durable.Create(path, data, 0o600)
}

// AgeIdentity returns the identity that opens what was encrypted to this side.
func (s *State) AgeIdentity() (age.Identity, error) {
	id, _, err := s.readAge()
	return id, err
}

// Recipient returns the age recipient by which the other side reaches this one.
func (s *State) Recipient() (string, error) {
	_, recipient, err := s.readAge()
	return recipient, err
}

func (s *State) readAge() (age.Identity, string, error) {
	path := s.Path("identity", "age.txt")
	data, err := s.readIdentity("age.txt")
	if err != nil {
		return nil, "", err
	}
	defer clear(data)
	identities, err := age.ParseIdentities(bytes.NewReader(data))
	if err != nil || len(identities) != 1 {
		return nil, "", control.StateDamaged.Refuse("%s does not hold one age identity", path)
	}
	switch id := identities[0].(type) {
	case *age.HybridIdentity:
		return id, id.Recipient().String(), nil
	case *age.X25519Identity:
		return id, id.Recipient().String(), nil
	}
	return nil, "", control.StateDamaged.Refuse("%s holds an age identity of another kind", path)
}
