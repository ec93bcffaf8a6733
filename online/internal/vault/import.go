// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/rsa"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/online/internal/blob"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// softwarePlatform is the hsmPlatform of a key that is kept in software.
const softwarePlatform = "0"

// tenantKeyOps is what a tenant key of Azure RMS may do.
var tenantKeyOps = []string{"encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify"}

// Import is a transfer blob on its way into the vault.
type Import struct {
	Name string                  // of the key to be made
	Blob []byte                  // the whole .byok file
	Want *rsa.PublicKey          // of the key that travelled
	Tags map[string]string       // tell an import that is taken up again from a foreign key
	KID  string                  // of the key that this ceremony is known to have imported; empty: of none
	KEK  fingerprint.Fingerprint // of the KEK that it was wrapped for, PKIX DER; zero: nothing but the blob tells

	// What a policy of the vault's owner may demand of the key.
	Expires time.Time         // zero: never
	More    map[string]string // tags, which tell nothing
}

// Imported is a key in the vault that was compared with the key that
// travelled: in an HSM, same modulus and exponent, enabled.
type Imported struct {
	Key
	Resumed bool // it was there already, by the same ceremony
}

// CheckImport makes every check that needs no change in the vault: the blob's
// form, its KEK, the name. It returns the key when this ceremony imported it
// already, nil when the name is free.
func (c *Client) CheckImport(ctx context.Context, in Import) (*Imported, error) {
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	transfer, _, err := blob.Parse(in.Blob)
	if err != nil {
		return nil, err
	}
	if _, _, err := c.splitKID(transfer.Header.KID); err != nil {
		return nil, err
	}
	if done, err := c.existingImport(ctx, in); done != nil || err != nil {
		return done, err
	}
	kek, err := c.CompareKEK(ctx, transfer.Header.KID, in.KEK)
	if err != nil {
		return nil, err
	}
	return nil, checkKEK(kek, time.Now())
}

// existingImport returns the key if this ceremony imported it already, nil when
// its name is free.
func (c *Client) existingImport(ctx context.Context, in Import) (*Imported, error) {
	existing, err := c.Key(ctx, in.Name)
	switch {
	case control.Is(err, control.VaultKeyMissing):
		return nil, nil
	case err != nil:
		return nil, err
	case !existing.Public.Equal(in.Want):
		return nil, control.VaultKeyExists.Refuse("the vault has another key under the name %s: %s", in.Name, existing.KID)
	case !carries(existing.Tags, in.Tags) && existing.KID != in.KID:
		return nil, control.VaultKeyExists.Refuse("the vault has this key under the name %s already, but not from this ceremony: %s", in.Name, existing.KID)
	}
	return checkImported(existing, in.Want, true)
}

// splitKID takes the identifier of a KEK of this vault apart.
func (c *Client) splitKID(kid string) (name, version string, err error) {
	if !startsWith(kid, c.url+"/keys/") {
		return "", "", control.VaultKEKForeign.Refuse("the key was wrapped under the KEK %s, which is not in the vault %s", control.Quote(kid), c.url)
	}
	name, version, _ = strings.Cut(kid[len(c.url+"/keys/"):], "/")
	if !keyName.MatchString(name) || !keyVersion.MatchString(version) {
		return "", "", control.VaultKEKForeign.Refuse("the key was wrapped under the KEK %s, which is not the identifier of a key with its version", control.Quote(kid))
	}
	return name, version, nil
}

// CompareKEK returns the vault's KEK of that identifier, if it is the one that a key was
// wrapped for, by the fingerprint of its PKIX DER: an identifier can be put on any key.
func (c *Client) CompareKEK(ctx context.Context, kid string, want fingerprint.Fingerprint) (*Key, error) {
	name, version, err := c.splitKID(kid)
	if err != nil {
		return nil, err
	}
	kek, err := c.get(ctx, name, version)
	switch {
	case control.Is(err, control.VaultKeyMissing):
		return nil, control.VaultKEKForeign.Refuse("the key was wrapped under the KEK %s, which the vault does not have", kid).
			WithHint("if the KEK was deleted, recover it (`az keyvault key recover %s --name %s`); else wrap the key again under the KEK that the vault has", c.az(), name)
	case err != nil:
		return nil, err
	}
	if got := fingerprint.OfKey(kek.Public); want != (fingerprint.Fingerprint{}) && got != want {
		return nil, control.VaultKEKMismatch.Refuse("the key was wrapped for a KEK with the fingerprint %s; the vault's %s has %s", want, kid, got)
	}
	return kek, nil
}

// ImportKey imports the blob as an HSM key and compares what the vault says of
// it with the key that travelled (KF-VAULT-NOT-HSM, KF-VAULT-KEY-MISMATCH). A
// key that this ceremony imported before is compared and returned as Resumed.
func (c *Client) ImportKey(ctx context.Context, in Import) (*Imported, error) {
	if done, err := c.CheckImport(ctx, in); done != nil || err != nil {
		return done, err
	}
	key, err := c.importBlob(ctx, in)
	if err != nil {
		return landed(err, func() (*Imported, error) { return c.existingImport(ctx, in) })
	}
	return checkImported(key, in.Want, false)
}

func (c *Client) importBlob(ctx context.Context, in Import) (*Key, error) {
	attributes, tags := &azkeys.KeyAttributes{Enabled: to.Ptr(true)}, maps.Clone(in.More)
	if !in.Expires.IsZero() {
		attributes.Expires = &in.Expires
	}
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, in.Tags)
	answer, err := c.keys.ImportKey(c.change(ctx), in.Name, azkeys.ImportKeyParameters{
		Key: &azkeys.JSONWebKey{
			Kty:    to.Ptr(azkeys.KeyTypeRSAHSM),
			KeyOps: pointers[azkeys.KeyOperation](tenantKeyOps),
			T:      in.Blob,
		},
		HSM:           to.Ptr(true),
		KeyAttributes: attributes,
		Tags:          pointersOf(tags),
	}, nil)
	if err != nil {
		return nil, c.explain(ctx, "importing the key "+in.Name+" into the vault", in.Name, err)
	}
	return c.read(in.Name, answer.KeyBundle)
}

// carries reports whether tags has all of want, which must name something.
func carries(tags, want map[string]string) bool {
	for name, text := range want {
		if got, ok := tags[name]; !ok || got != text {
			return false
		}
	}
	return len(want) > 0
}

func checkImported(key *Key, want *rsa.PublicKey, resumed bool) (*Imported, error) {
	ops := slices.Sorted(slices.Values(key.Ops))
	switch {
	case !key.Public.Equal(want):
		return nil, control.VaultKeyMismatch.Refuse("the vault's key %s has another modulus or exponent than the key that travelled", key.KID)
	case key.Type != string(azkeys.KeyTypeRSAHSM):
		return nil, control.VaultNotHSM.Refuse("the vault's key %s is of the type %s, not RSA-HSM", key.KID, control.Quote(key.Type))
	case key.HSMPlatform == softwarePlatform:
		return nil, control.VaultNotHSM.Refuse("the vault keeps the key %s in software (hsmPlatform 0), not in an HSM", key.KID)
	case !slices.Equal(ops, slices.Sorted(slices.Values(tenantKeyOps))):
		return nil, control.VaultKeyState.Refuse("the vault's key %s may do %s, not what was asked for", key.KID, control.Quote(strings.Join(key.Ops, ", ")))
	case !key.Enabled:
		return nil, control.VaultKeyState.Refuse("the vault's key %s is disabled", key.KID)
	}
	return &Imported{Key: *key, Resumed: resumed}, nil
}
