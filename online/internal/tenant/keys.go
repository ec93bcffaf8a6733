// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
)

// tenantKey is a key as the scripts write it down.
type tenantKey struct {
	KeyIdentifier string `json:"key_identifier"`
	FriendlyName  string `json:"friendly_name"`
	Status        string `json:"status"`
	KeyType       string `json:"key_type"`
	KeyURL        string `json:"key_url"`
	PublicKey     string `json:"public_key"`
	CreationTime  string `json:"creation_time"`
}

var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// readKeys checks and normalises the tenant's list, oldest first.
func readKeys(list []tenantKey) ([]Key, error) {
	keys := []Key{}
	active := 0
	for _, k := range list {
		key := Key{
			KeyIdentifier: strings.ToLower(strings.Trim(k.KeyIdentifier, "{}")),
			FriendlyName:  k.FriendlyName, Status: Status(k.Status), KeyType: keyType(k.KeyType), KeyURL: k.KeyURL,
		}
		if !guid.MatchString(key.KeyIdentifier) || key.Status != Archived && key.Status != Active {
			return nil, control.RMSFailed.Refuse("the tenant lists a key %s with the status %s, which makes no sense", control.Quote(k.KeyIdentifier), control.Quote(k.Status))
		}
		if key.Status == Active {
			active++
		}
		key.PublicKey = publicKey(k.PublicKey)
		key.CreationTime = creationTime(k.CreationTime)
		keys = append(keys, key)
	}
	if active > 1 {
		return nil, control.RMSFailed.Refuse("the tenant lists %d active keys, which makes no sense", active)
	}
	slices.SortStableFunc(keys, func(a, b Key) int { return a.CreationTime.Compare(b.CreationTime) })
	return keys, nil
}

// keyType gives the two types of keys one name each: the cmdlet shows
// "Customer-managed (BYOK)" and "Microsoft-managed".
func keyType(said string) string {
	switch said = strings.ToLower(strings.ReplaceAll(said, "-", "")); {
	case strings.HasPrefix(said, "customermanaged"):
		return CustomerManaged
	case strings.HasPrefix(said, "microsoftmanaged"):
		return MicrosoftManaged
	}
	return said
}

// publicKey decodes base64, with what may be around it; nil when it is none.
func publicKey(text string) []byte {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
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
func (k Key) Holds(public *rsa.PublicKey) bool {
	n := public.N.Bytes()
	if bytes.Contains(k.PublicKey, n) {
		return true
	}
	slices.Reverse(n)
	return bytes.Contains(k.PublicKey, n)
}
