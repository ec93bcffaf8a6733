// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"keyferry/online/internal/blob"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// importRequest knows no n, d, p, q: a clear key is refused as a field that
// the practice vault does not know.
type importRequest struct {
	Key struct {
		KeyType string   `json:"kty"`
		KeyOps  []string `json:"key_ops"`
		KeyHSM  string   `json:"key_hsm"` // base64url of the whole transfer blob
	} `json:"key"`
	HSM        *bool             `json:"Hsm"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags"`
}

// importKey answers PUT /keys/{name}. As in Azure, a name that is taken gets a
// new version: not to do that is the client's part.
func (c *Cloud) importKey(name string, body []byte) (any, error) {
	var in importRequest
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	switch {
	case in.Key.KeyType != keyType:
		return nil, badParameter("kty is %s, a transfer blob imports as RSA-HSM only", control.Quote(in.Key.KeyType))
	case in.HSM != nil && !*in.HSM:
		return nil, badParameter("Hsm is false, a transfer blob imports as an HSM key only")
	case !legalOps(in.Key.KeyOps):
		return nil, badParameter("key_ops are %s, not some of %v", control.Quote(join(in.Key.KeyOps)), tenantOps)
	}
	if err := in.Attributes.check(); err != nil {
		return nil, err
	}
	file, err := base64.RawURLEncoding.Strict().DecodeString(in.Key.KeyHSM)
	if err != nil {
		return nil, badParameter("key_hsm is not unpadded base64url: %v", err)
	}
	public, err := c.open(file)
	if err != nil {
		return nil, err
	}
	v := version{Origin: imported, KeyOps: in.Key.KeyOps, Tags: in.Tags, public: public}
	return c.addVersion(name, v, in.Attributes, nil)
}

// open unwraps a transfer blob under its KEK and returns the public half of
// the key in it.
func (c *Cloud) open(file []byte) (*rsa.PublicKey, error) {
	transfer, ciphertext, err := blob.Parse(file)
	var refusal *control.Refusal
	if errors.As(err, &refusal) {
		return nil, badParameter("key_hsm: %s", refusal.Message)
	} else if err != nil {
		return nil, err
	}
	kek, err := c.kek(transfer.Header.KID)
	if err != nil {
		return nil, err
	}
	key, err := byok.Unwrap(ciphertext, kek)
	if err != nil {
		return nil, badParameter("key_hsm: %v", err)
	}
	if bits := key.N.BitLen(); !slices.Contains(byok.KeyBits, bits) {
		return nil, badParameter("key_hsm: the key inside has %d bits, not 2048, 3072 or 4096", bits)
	}
	return &key.PublicKey, nil
}

// kek returns the KEK that a blob names, which must be one of this vault, by
// its version, made for import alone, enabled and within its validity.
func (c *Cloud) kek(id string) (*rsa.PrivateKey, error) {
	name, version, ok := splitKID(id)
	if !ok {
		return nil, badParameter("kid: %s is not the identifier, with version, of a key in this vault", control.Quote(id))
	}
	r, v, err := c.find(name, version)
	var unknown *apiError
	switch {
	case errors.As(err, &unknown):
		return nil, badParameter("kid: this vault has no key %s", control.Quote(id))
	case err != nil:
		return nil, err
	case kid(r.Name, v.Version) != id:
		return nil, badParameter("kid: this vault writes it %s", kid(r.Name, v.Version))
	case !slices.Equal(v.KeyOps, kekOps):
		return nil, badParameter("kid: this key may %s, it is not for import alone", join(v.KeyOps))
	case v.unusable(c.now().Unix()) != "":
		return nil, badParameter("kid: the KEK %s", v.unusable(c.now().Unix()))
	}
	return c.loadPrivate(r.Name, v)
}

func join(ops []string) string { return strings.Join(ops, ", ") }
