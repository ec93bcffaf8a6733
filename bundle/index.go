// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/strictjson"
	"keyferry/pkg/trust"
)

var (
	saltSyntax      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nameSyntax      = regexp.MustCompile(`^[0-9a-z_][0-9a-z_.-]{0,149}$`)
	mechanismSyntax = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z _(),.+/-]{0,99}$`) // as PKCS#11 or its vendor names it
)

func parseIndex(data []byte) (x Index, err error) {
	if err := strictjson.UnmarshalLines(data, maxIndex, &x); err != nil {
		return x, control.BundleContents.Refuse("the index: %w", err)
	}
	return x, x.check()
}

// files lists all members of the payload behind index.json, in order.
func (x Index) files() []File {
	var all []File
	for _, k := range x.Keys {
		all = append(all, k.Files...)
	}
	return append(all, x.Files...)
}

// check refuses fields that can't be, paths that are not keys/<id>/<name> or a
// plain name, anything twice, and more than a bundle may hold. The index is
// signed, but its texts end up in file names and on screens.
func (x Index) check() error {
	if !saltSyntax.MatchString(x.Salt) {
		return control.BundleContents.Refuse("the index has no salt of 64 hex digits")
	}
	if len(x.Keys) > MaxKeys {
		return control.BundleSize.Refuse("the bundle has %d keys; at most %d are allowed", len(x.Keys), MaxKeys)
	}
	seen := map[string]bool{indexName: true, keysDir: true}
	left := int64(MaxContents)
	take := func(prefix string, files []File) error {
		for _, f := range files {
			name, ok := strings.CutPrefix(f.Path, prefix)
			if !ok || !nameSyntax.MatchString(name) || seen[f.Path] || f.Size < 0 {
				return control.BundleContents.Refuse("the index lists %s of %d bytes, which can't be", control.Quote(f.Path), f.Size)
			}
			if f.Size > left {
				return control.BundleSize.Refuse("the files in the bundle have more than %d bytes together", MaxContents)
			}
			seen[f.Path] = true
			left -= f.Size
		}
		return nil
	}
	ids := map[string]bool{}
	for _, k := range x.Keys {
		if ids[k.ID] {
			return control.BundleContents.Refuse("the index lists the key %s twice", control.Quote(k.ID))
		}
		ids[k.ID] = true
		if err := k.check(); err != nil {
			return control.BundleContents.Refuse("the index's key %s: %w", control.Quote(k.ID), err)
		}
		if err := take(KeyPath(k.ID, ""), k.Files); err != nil {
			return err
		}
	}
	return take("", x.Files)
}

// manifestKey is what the manifest says of the key.
func (k Key) manifestKey() ManifestKey {
	return ManifestKey{k.ID, k.Disposition, k.SLC, fingerprint.Of(k.PublicKey), k.KEK, k.Warnings}
}

// manifestKeys is what the manifest says of the keys.
func (x Index) manifestKeys() []ManifestKey {
	keys := []ManifestKey{}
	for _, k := range x.Keys {
		keys = append(keys, k.manifestKey())
	}
	return keys
}

// agrees wants the manifest to say of each key what the index says.
func (x Index) agrees(m Manifest) error {
	if !reflect.DeepEqual(x.manifestKeys(), m.Keys) {
		return control.BundleContents.Refuse("the manifest, which people have read and signed, says something else of the keys than the index")
	}
	return nil
}

func (k ManifestKey) check() error {
	switch {
	case !keyid.Valid(k.ID):
		return errors.New("this can't be a key identifier")
	case k.Disposition != DispositionHSM && k.Disposition != DispositionMicrosoftManaged:
		return fmt.Errorf("it has the disposition %s, which this version does not know", control.Quote(k.Disposition))
	case (k.Disposition == DispositionHSM) != (k.KEK != nil):
		return fmt.Errorf("its disposition %s does not fit its KEK", k.Disposition)
	case !guidSyntax.MatchString(k.SLC):
		return fmt.Errorf("its SLC %s is not a GUID", control.Quote(k.SLC))
	case !validWarnings(k.Warnings):
		return errors.New("its warnings are not a sorted list of control IDs")
	}
	return nil
}

func (k Key) check() error {
	if err := k.manifestKey().check(); err != nil {
		return err
	}
	if _, err := k.RSA(); err != nil {
		return err
	}
	switch {
	case k.MicrosoftManaged():
		if k.KID+k.WrappedBy+k.Mechanism != "" {
			return fmt.Errorf("it is %s, which is wrapped for no HSM, but names the KEK %s", k.Disposition, control.Quote(k.KID))
		}
	case !trust.ValidKID(k.KID):
		return fmt.Errorf("its KEK %s is not the URL of a key and its version", control.Quote(k.KID))
	case k.WrappedBy != WrappedByToken && k.WrappedBy != WrappedBySoftware:
		return fmt.Errorf("it was wrapped by %s, not by %s or %s", control.Quote(k.WrappedBy), WrappedByToken, WrappedBySoftware)
	case !mechanismSyntax.MatchString(k.Mechanism):
		return fmt.Errorf("it was wrapped by the mechanism %s, which is no name of one", control.Quote(k.Mechanism))
	}
	return nil
}

// RSA is the public key.
func (k Key) RSA() (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(k.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("its public key can't be read: %w", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("its public key is not an RSA key")
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, k.PublicKey) {
		return nil, errors.New("its public key is not in the one form that DER has")
	}
	return public, nil
}
