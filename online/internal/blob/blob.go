// SPDX-License-Identifier: Apache-2.0

// Package blob makes and reads transfer blobs (.byok files), in which a wrapped key goes
// into a key vault: one JSON object, by the "Bring your own key specification" of Azure
// Key Vault:
//
//	{
//	  "schema_version": "1.0.0",
//	  "header": {
//	    "kid": "https://NAME.vault.azure.net/keys/KEK/VERSION",
//	    "alg": "dir",
//	    "enc": "CKM_RSA_AES_KEY_WRAP"
//	  },
//	  "ciphertext": "BASE64URL, unpadded",
//	  "generator": "free text"
//	}
//
// The kid is the KEK's identifier with its version. Package byok makes the ciphertext, on
// the disconnected side, and opens it.
package blob

import (
	"encoding/base64"
	"encoding/json"

	"keyferry/pkg/control"
	"keyferry/pkg/strictjson"
)

// The fixed words of a transfer blob.
const (
	SchemaVersion = "1.0.0"
	Algorithm     = "dir"
	Encryption    = "CKM_RSA_AES_KEY_WRAP"
)

// maxSize bounds a transfer blob in bytes. A 4096-bit key under a 4096-bit KEK
// takes some 4 KiB.
const maxSize = 64 << 10

// Blob is a transfer blob.
type Blob struct {
	SchemaVersion string `json:"schema_version"`
	Header        Header `json:"header"`
	Ciphertext    string `json:"ciphertext"` // base64url, unpadded
	Generator     string `json:"generator"`
}

// Header names the KEK and the algorithms of a transfer blob.
type Header struct {
	KID string `json:"kid"` // the KEK's identifier with its version
	Alg string `json:"alg"`
	Enc string `json:"enc"`
}

// Marshal writes the transfer blob of a ciphertext made for the KEK kid.
func Marshal(kid string, ciphertext []byte, generator string) ([]byte, error) {
	data, err := json.MarshalIndent(Blob{
		SchemaVersion: SchemaVersion,
		Header:        Header{KID: kid, Alg: Algorithm, Enc: Encryption},
		Ciphertext:    base64.RawURLEncoding.EncodeToString(ciphertext),
		Generator:     generator,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// Parse reads a transfer blob and returns it with its decoded ciphertext.
// Anything but the fields and words of the specification is refused
// (KF-BYOK-FORMAT).
func Parse(data []byte) (*Blob, []byte, error) {
	var b Blob
	if err := strictjson.Unmarshal(data, maxSize, &b); err != nil {
		return nil, nil, control.BlobFormat.Refuse("this is not a transfer blob: %w", err)
	}
	for _, word := range []struct{ field, got, want string }{
		{"schema_version", b.SchemaVersion, SchemaVersion},
		{"alg", b.Header.Alg, Algorithm},
		{"enc", b.Header.Enc, Encryption},
	} {
		if word.got != word.want {
			return nil, nil, control.BlobFormat.Refuse("the transfer blob's %s is %s, not %q", word.field, control.Quote(word.got), word.want)
		}
	}
	if b.Header.KID == "" {
		return nil, nil, control.BlobFormat.Refuse("the transfer blob names no KEK (kid)")
	}
	ciphertext, err := base64.RawURLEncoding.DecodeString(b.Ciphertext)
	// The decoder passes over line ends and stray bits: what it read must be written the same.
	if err != nil || base64.RawURLEncoding.EncodeToString(ciphertext) != b.Ciphertext {
		return nil, nil, control.BlobFormat.Refuse("the transfer blob's ciphertext is not unpadded base64url")
	}
	return &b, ciphertext, nil
}
