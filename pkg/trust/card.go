// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/json"
	"fmt"
	"time"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

const cardFormat = "keyferry-offline-card-v1"

// Card is what the online side pins of the offline side. It holds public keys
// only; the spoken forms are there for people, and must fit.
type Card struct {
	Format       string           `json:"format"`
	Name         string           `json:"name"` // heads the bundles of the offline side
	Created      time.Time        `json:"created"`
	Rehearsal    bool             `json:"rehearsal"`
	Signer       sshsig.PublicKey `json:"signer"`    // signs bundles
	Recipient    string           `json:"recipient"` // age; receipts are encrypted to it
	Fingerprints struct {
		Signer    Spoken `json:"signer"`
		Recipient Spoken `json:"recipient"`
	} `json:"fingerprints"`
}

// Spoken is a fingerprint in the two forms that people compare.
type Spoken struct {
	Hex   string   `json:"hex"`   // 64 digits
	Words []string `json:"words"` // 32
}

func speak(f fingerprint.Fingerprint) Spoken {
	return Spoken{f.Hex(), f.Words()}
}

// CardName is the file name of an offline side's card.
func CardName(name string) string { return fmt.Sprintf("offline-card-%s.json", name) }

// Encode writes the card, spoken fingerprints included.
func (c Card) Encode() ([]byte, error) {
	c.Format = cardFormat
	c.speak()
	data, err := json.MarshalIndent(c, "", "  ")
	return append(data, '\n'), err
}

func (c *Card) speak() {
	c.Fingerprints.Signer = speak(c.Signer.Fingerprint())
	c.Fingerprints.Recipient = speak(fingerprint.Of([]byte(c.Recipient)))
}

// OpenCard reads a card. That it is the right one only its fingerprint can
// tell.
func OpenCard(file []byte) (*Card, error) {
	c, err := openCard(file)
	if err != nil {
		return nil, filetype.Explain(err, file, filetype.Card)
	}
	return c, nil
}

func openCard(file []byte) (*Card, error) {
	var c Card
	if err := strictjson.Unmarshal(file, maxPackage, &c); err != nil {
		return nil, control.CardFormat.Refuse("this is not an offline card: %w", err)
	}
	if c.Format != cardFormat || !keyid.Valid(c.Name) {
		return nil, control.CardFormat.Refuse("this is not an offline card but %s of %s", control.Quote(c.Format), control.Quote(c.Name))
	}
	if _, err := c.AgeRecipient(); err != nil {
		return nil, control.CardFormat.Refuse("the card's recipient: %w", err)
	}
	again, err := c.Encode()
	if err != nil {
		return nil, err
	}
	if string(again) != string(file) {
		return nil, control.CardFormat.Refuse("the card is not as Keyferry writes it, or its fingerprints do not fit its keys")
	}
	return &c, nil
}

// AgeRecipient is the recipient to which receipts are encrypted.
func (c *Card) AgeRecipient() (age.Recipient, error) { return parseRecipient(c.Recipient) }
