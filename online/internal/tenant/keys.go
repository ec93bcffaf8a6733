// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"keyferry/pkg/control"
)

// Listed is a key as the scripts write it down: the texts that the cmdlet shows.
type Listed struct {
	KeyIdentifier string `json:"key_identifier"`
	FriendlyName  string `json:"friendly_name"`
	Status        string `json:"status"`
	KeyType       string `json:"key_type"`
	KeyURL        string `json:"key_url"`
	PublicKey     string `json:"public_key"`
	CreationTime  string `json:"creation_time"`
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ReadKeys normalises the tenant's list, oldest first. A tenant has keys of its
// own, which may be in a state that this program does not know: they are listed
// as they are, and it is for who looks a key up to mind what it is.
func ReadKeys(list []Listed) ([]Key, error) {
	keys := []Key{}
	active := 0
	for _, k := range list {
		key := Key{
			KeyIdentifier: strings.ToLower(strings.Trim(k.KeyIdentifier, "{}")),
			FriendlyName:  k.FriendlyName, Status: status(k.Status), KeyType: keyType(k.KeyType), KeyURL: k.KeyURL,
			PublicKey: publicKey(k.PublicKey), CreationTime: creationTime(k.CreationTime),
		}
		if key.Status == Active {
			active++
		}
		keys = append(keys, key)
	}
	if active > 1 {
		return nil, control.RMSFailed.Refuse("the tenant lists %d active keys, which makes no sense", active)
	}
	slices.SortStableFunc(keys, func(a, b Key) int { return a.CreationTime.Compare(b.CreationTime) })
	return keys, nil
}

// letters are those of a text, in lower case: "Customer-managed (BYOK)" is shown
// with other blanks and dashes too.
func letters(text string) string {
	return strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) {
			return r
		}
		return -1
	}, text))
}

// status gives the two statuses one name each, and leaves any other as it is.
func status(text string) Status {
	for _, known := range []Status{Active, Archived} {
		if letters(text) == letters(string(known)) {
			return known
		}
	}
	return Status(text)
}

// keyType does so with the two types of keys, also where they are translated.
func keyType(text string) string {
	switch said := letters(text); {
	case strings.Contains(said, "byok"), strings.Contains(said, "customermanaged"):
		return CustomerManaged
	case strings.Contains(said, "microsoft"):
		return MicrosoftManaged
	}
	return text
}

// publicKey decodes base64, or the hexadecimal that constrained language can
// write; nil when it is none.
func publicKey(text string) []byte {
	text = strings.Join(strings.Fields(text), "")
	decode := base64.StdEncoding.DecodeString
	if digits, ok := strings.CutPrefix(text, "hex:"); ok {
		text, decode = digits, hex.DecodeString
	}
	der, err := decode(text)
	if err != nil {
		return nil
	}
	return der
}

// creationTime is zero for a time that is not written as expected: it orders
// the list and serves for nothing else.
func creationTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Holds reports whether the tenant's public key for k has the modulus of
// public. How the service writes a public key down is not published; that it
// holds the modulus, in one byte order or the other, is what there is to see.
// Of a Microsoft-managed key the tenant shows none.
func (k Key) Holds(public *rsa.PublicKey) bool {
	n := public.N.Bytes()
	if bytes.Contains(k.PublicKey, n) {
		return true
	}
	slices.Reverse(n)
	return bytes.Contains(k.PublicKey, n)
}
