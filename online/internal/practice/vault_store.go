// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/strictjson"
)

const (
	recordFormat = "keyferry-practice-key-v1"
	maxState     = 4 << 20 // bytes of one state file
)

// record is vault/<name>.json. A version counts from the moment the record
// names it: a PEM file without one is what an interrupted create left, and is
// swept away.
type record struct {
	Format   string    `json:"format"`
	Name     string    `json:"name"`
	Versions []version `json:"versions"`          // oldest first
	Deleted  *int64    `json:"deleted,omitempty"` // Unix seconds; nil: the key is there
}

// version is one version of a key. Times are Unix seconds.
type version struct {
	Version   string            `json:"version"` // 32 hex digits
	Origin    origin            `json:"origin"`
	PublicKey []byte            `json:"public_key"` // PKIX DER
	KeyOps    []string          `json:"key_ops"`
	Enabled   bool              `json:"enabled"`
	NotBefore *int64            `json:"not_before,omitempty"`
	Expires   *int64            `json:"expires,omitempty"`
	Created   int64             `json:"created"`
	Tags      map[string]string `json:"tags,omitempty"`

	public *rsa.PublicKey // PublicKey, parsed
}

type origin string

const (
	madeHere origin = "made here"
	imported origin = "imported"
)

func parsePublic(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return key, nil
}

// unusable says why the version cannot be used at the time now, or nothing.
func (v *version) unusable(now int64) string {
	switch {
	case !v.Enabled:
		return "is disabled"
	case v.Expires != nil && now >= *v.Expires:
		return "has expired"
	case v.NotBefore != nil && now < *v.NotBefore:
		return "is not valid yet"
	}
	return ""
}

// kid is the identifier of a key version.
func kid(name, version string) string { return URL + "/keys/" + name + "/" + version }

// splitKID takes the identifier of a key version of this vault apart.
func splitKID(id string) (name, version string, ok bool) {
	name, version, _ = strings.Cut(strings.TrimPrefix(id, URL+"/keys/"), "/")
	return name, version, keyName.MatchString(name) && version != "" && kid(name, version) == id
}

// File names are in lower case, as Azure's names know no case.
func (c *Cloud) vaultFile(name string) string {
	return filepath.Join(c.dir, "vault", strings.ToLower(name))
}

func damaged(path string, err error) error {
	return control.StateDamaged.Refuse("the practice cloud's file %s is damaged: %w", path, err)
}

// loadRecord returns the record of a key, nil when there is none.
func (c *Cloud) loadRecord(name string) (*record, error) {
	path := c.vaultFile(name) + ".json"
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err := strictjson.Unmarshal(data, maxState, r); err != nil {
		return nil, damaged(path, err)
	}
	if r.Format != recordFormat || !strings.EqualFold(r.Name, name) || len(r.Versions) == 0 {
		return nil, damaged(path, errors.New("not the record of this key"))
	}
	for i := range r.Versions {
		v := &r.Versions[i]
		if v.public, err = parsePublic(v.PublicKey); err != nil {
			return nil, damaged(path, err)
		}
	}
	return r, nil
}

// records loads every record.
func (c *Cloud) records() ([]*record, error) {
	paths, err := filepath.Glob(filepath.Join(c.dir, "vault", "*.json"))
	if err != nil {
		return nil, err
	}
	var records []*record
	for _, path := range paths {
		r, err := c.loadRecord(strings.TrimSuffix(filepath.Base(path), ".json"))
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// sweep removes what a killed create left: private keys that no record names,
// whole or in part.
func (c *Cloud) sweep(records []*record) error {
	named := map[string]bool{}
	for _, r := range records {
		for _, v := range r.Versions {
			named[c.privateFile(r.Name, v.Version)] = true
		}
	}
	for _, pattern := range []string{"*.pem", ".*.pem.part"} {
		paths, err := filepath.Glob(filepath.Join(c.dir, "vault", pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if named[path] {
				continue
			}
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cloud) storeRecord(r *record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(c.vaultFile(r.Name)+".json", append(data, '\n'), 0o600)
}

// add makes v the newest version of the key. A key made here is kept with its
// private half, which reaches the disk before the record that names it.
func (c *Cloud) add(name string, v version, private *rsa.PrivateKey) (*record, error) {
	r, err := c.loadRecord(name)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &record{Format: recordFormat, Name: name}
	}
	if r.Deleted != nil {
		return nil, heldByDeleted(r.Name)
	}
	r.Versions = append(slices.Clone(r.Versions), v)
	if err := durable.MkdirAll(filepath.Join(c.dir, "vault"), 0o700); err != nil {
		return nil, err
	}
	if private != nil {
		if err := c.keepPrivate(name, v.Version, private); err != nil {
			return nil, err
		}
	}
	return r, c.storeRecord(r)
}

func (c *Cloud) privateFile(name, version string) string {
	return c.vaultFile(name) + "-" + version + ".pem"
}

func (c *Cloud) keepPrivate(name, version string, key *rsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	return durable.Create(c.privateFile(name, version), text, 0o600)
}

// loadPrivate returns the private half of a key made here.
func (c *Cloud) loadPrivate(name string, v *version) (*rsa.PrivateKey, error) {
	path := c.privateFile(name, v.Version)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, damaged(path, errors.New("not a PEM file"))
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, damaged(path, err)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(v.public) {
		return nil, damaged(path, errors.New("not the private half of this key"))
	}
	return key, nil
}
