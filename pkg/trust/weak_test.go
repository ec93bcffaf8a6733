// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"testing"

	"keyferry/pkg/control"
)

// weakLine is an Ed25519 key of order 1, by which anybody can sign anything.
const weakLine = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// A weak key is refused as an approver's, in a security world that its owner
// signed, and in a card.
func TestWeakKeysAreRefused(t *testing.T) {
	_, err := ReadApprover("weak.pub", []byte(weakLine+" weak\n"))
	refused(t, err, control.TrustApprover)
	w := world(t)
	_, err = OpenWorld(resign(t, online, mustSeal(t, online, w), replaced(t, w.Approvers[0].Key.String(), weakLine)))
	refused(t, err, control.PackageFormat)
	card, err := Card{Name: "offline", Created: now, Signer: public(t, offline), Recipient: recipient(t)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenCard(bytes.Replace(card, []byte(public(t, offline).String()), []byte(weakLine), 1))
	refused(t, err, control.CardFormat)
}
