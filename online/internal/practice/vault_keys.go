// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"slices"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

const keyType = "RSA-HSM"

// tenantOps are the operations of a key that is used; "import" is a KEK's and
// stands alone.
var tenantOps = []string{"encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify"}

var kekOps = []string{"import"}

// attributes of a key in a request. Times are Unix seconds.
type attributes struct {
	Enabled    *bool  `json:"enabled"`
	NotBefore  *int64 `json:"nbf"`
	Expires    *int64 `json:"exp"`
	Exportable *bool  `json:"exportable"`
}

type createRequest struct {
	KeyType        string            `json:"kty"`
	KeySize        *int              `json:"key_size"`
	PublicExponent *int              `json:"public_exponent"`
	KeyOps         []string          `json:"key_ops"`
	Attributes     attributes        `json:"attributes"`
	Tags           map[string]string `json:"tags"`
}

// createKey answers POST /keys/{name}/create.
func (c *Cloud) createKey(name string, body []byte) (any, error) {
	var in createRequest
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	bits := 2048
	if in.KeySize != nil {
		bits = *in.KeySize
	}
	if in.KeyOps == nil {
		in.KeyOps = tenantOps
	}
	switch {
	case in.KeyType != keyType:
		return nil, badParameter("kty is %s, the practice vault makes RSA-HSM only", control.Quote(in.KeyType))
	case !slices.Contains(byok.KeyBits, bits):
		return nil, badParameter("key_size is %d, not 2048, 3072 or 4096", bits)
	case in.PublicExponent != nil && *in.PublicExponent != 65537:
		return nil, badParameter("public_exponent is %d, not 65537", *in.PublicExponent)
	case !slices.Equal(in.KeyOps, kekOps) && !legalOps(in.KeyOps):
		return nil, badParameter("key_ops are %s: import stands alone, the others are %v", control.Quote(join(in.KeyOps)), tenantOps)
	}
	if err := in.Attributes.check(); err != nil {
		return nil, err
	}
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	v := version{Origin: madeHere, KeyOps: in.KeyOps, Tags: in.Tags, public: &private.PublicKey}
	return c.addVersion(name, v, in.Attributes, private)
}

// legalOps reports whether ops are operations of a key that is used, each at
// most once.
func legalOps(ops []string) bool {
	for i, op := range ops {
		if !slices.Contains(tenantOps, op) || slices.Contains(ops[:i], op) {
			return false
		}
	}
	return len(ops) > 0
}

func (a attributes) check() error {
	switch {
	case a.Exportable != nil && *a.Exportable:
		return badParameter("exportable keys need a release policy, which the practice vault does not know")
	case a.NotBefore != nil && a.Expires != nil && *a.NotBefore >= *a.Expires:
		return badParameter("nbf is not before exp")
	}
	return nil
}

// addVersion completes and keeps a new version of the key, with the private
// half of one that is made here, and answers with its bundle.
func (c *Cloud) addVersion(name string, v version, a attributes, private *rsa.PrivateKey) (any, error) {
	var err error
	if v.PublicKey, err = x509.MarshalPKIXPublicKey(v.public); err != nil {
		return nil, err
	}
	v.Version, v.Created = randomHex(16), c.now().Unix()
	v.Enabled, v.NotBefore, v.Expires = a.Enabled == nil || *a.Enabled, a.NotBefore, a.Expires
	r, err := c.add(name, v, private)
	if err != nil {
		return nil, err
	}
	return bundle(r.Name, &v), nil
}

// find returns a version of a key, the current one for "".
func (c *Cloud) find(name, id string) (*record, *version, error) {
	r, err := c.loadRecord(name)
	if err != nil {
		return nil, nil, err
	}
	if r != nil && r.Deleted != nil {
		r = nil
	}
	if r != nil && id == "" {
		return r, &r.Versions[len(r.Versions)-1], nil
	}
	if r != nil {
		for i := range r.Versions {
			if r.Versions[i].Version == id {
				return r, &r.Versions[i], nil
			}
		}
	}
	return nil, nil, notFound("A key with (name/id) %s was not found in this key vault.", control.Quote(name+"/"+id))
}

// getKey answers GET /keys/{name} and GET /keys/{name}/{version}.
func (c *Cloud) getKey(name, id string) (any, error) {
	r, v, err := c.find(name, id)
	if err != nil {
		return nil, err
	}
	return bundle(r.Name, v), nil
}

// listVersions answers GET /keys/{name}/versions, in one page.
func (c *Cloud) listVersions(name string) (any, error) {
	r, err := c.loadRecord(name)
	if err != nil {
		return nil, err
	}
	items := []any{}
	if r != nil && r.Deleted == nil {
		for i := range r.Versions {
			v := &r.Versions[i]
			items = append(items, map[string]any{"kid": kid(r.Name, v.Version), "attributes": v.attributes(), "tags": v.Tags})
		}
	}
	return map[string]any{"value": items, "nextLink": nil}, nil
}

// listKeys answers GET /keys, in one page.
func (c *Cloud) listKeys() (any, error) {
	records, err := c.records()
	if err != nil {
		return nil, err
	}
	items := []any{}
	for _, r := range records {
		if v := &r.Versions[len(r.Versions)-1]; r.Deleted == nil {
			items = append(items, map[string]any{"kid": URL + "/keys/" + r.Name, "attributes": v.attributes(), "tags": v.Tags})
		}
	}
	return map[string]any{"value": items, "nextLink": nil}, nil
}

// bundle is a key version as the REST interface describes it.
func bundle(name string, v *version) map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]any{
		"key": map[string]any{
			"kid": kid(name, v.Version), "kty": keyType, "key_ops": v.KeyOps,
			"n": b64(v.public.N.Bytes()), "e": b64(big.NewInt(int64(v.public.E)).Bytes()),
		},
		"attributes": v.attributes(),
		"tags":       v.Tags,
	}
}

func (v *version) attributes() map[string]any {
	a := map[string]any{
		"enabled": v.Enabled, "created": v.Created, "updated": v.Created,
		"recoveryLevel": "CustomizedRecoverable+Purgeable", "recoverableDays": recoverableDays, "exportable": false, "hsmPlatform": "practice",
	}
	if v.NotBefore != nil {
		a["nbf"] = *v.NotBefore
	}
	if v.Expires != nil {
		a["exp"] = *v.Expires
	}
	return a
}
