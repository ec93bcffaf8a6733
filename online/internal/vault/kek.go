// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// kekOps is what a KEK may do: serve for import, and nothing else.
var kekOps = []string{string(azkeys.KeyOperationImport)}

// NewKEK is a KEK to be made.
type NewKEK struct {
	Name    string
	Bits    int               // 2048, 3072 or 4096
	Expires time.Time         // whole seconds count; zero: no limit
	Tags    map[string]string // name what it is made for; they tell a KEK taken up again from a foreign key
}

// KEK is a key exchange key that passed every check: RSA-HSM, import only,
// 2048, 3072 or 4096 bits, enabled, within its validity.
type KEK struct {
	Key
	// Attestation is a JSON object that the service gives with the KEK, nil where it
	// gives none. It proves nothing until somebody has checked its certificates.
	Attestation json.RawMessage
	Resumed     bool // CreateKEK found it made already, for the same purpose
}

// CreateKEK makes a new KEK in the vault's HSM. A name that is taken is refused
// (KF-VAULT-KEY-EXISTS), unless by the KEK that was to be made, for the same
// purpose: that one is checked for exactly what was asked for, and returned as
// Resumed.
func (c *Client) CreateKEK(ctx context.Context, in NewKEK) (*KEK, error) {
	in.Expires = in.Expires.Truncate(time.Second)
	switch {
	case !slices.Contains(byok.KeyBits, in.Bits):
		return nil, control.VaultKEKSize.Refuse("a KEK has 2048, 3072 or 4096 bits, not %d", in.Bits)
	case !in.Expires.IsZero() && !time.Now().Before(in.Expires):
		return nil, control.VaultKEKValidity.Refuse("a KEK that expires at %s would be of no use", in.Expires.UTC().Format(time.RFC3339)).
			WithHint("choose a later date, and check this machine's clock")
	}
	look := func() (*KEK, error) { return c.existingKEK(ctx, in) }
	if kek, err := look(); kek != nil || err != nil {
		return kek, err
	}
	key, err := c.makeKEK(ctx, in)
	if err != nil {
		return landed(err, look)
	}
	if got := key.Public.N.BitLen(); got != in.Bits {
		return nil, control.VaultKEKSize.Refuse("asked for a KEK of %d bits, the vault made one of %d", in.Bits, got)
	}
	if !key.Expires.Equal(in.Expires) {
		return nil, control.VaultKEKValidity.Refuse("the KEK %s expires at %s, not when it was asked to, %s", key.KID, date(key.Expires), date(in.Expires))
	}
	return c.asKEK(ctx, key, false)
}

// takenHint is for both who may want a KEK whose name is taken.
const takenHint = "for a new KEK, choose another name with --kek-name; to use the one that is there, `online kek fetch --kek-name %s`"

// existingKEK returns the KEK if it is there already, nil when its name is
// free.
func (c *Client) existingKEK(ctx context.Context, in NewKEK) (*KEK, error) {
	key, err := c.Key(ctx, in.Name)
	switch {
	case control.Is(err, control.VaultKeyMissing):
		return nil, nil
	case err != nil:
		return nil, err
	case !carries(key.Tags, in.Tags):
		return nil, control.VaultKeyExists.Refuse("the vault has a key %s already: %s", in.Name, key.KID).
			WithHint(takenHint, in.Name)
	case key.Public.N.BitLen() != in.Bits || !key.Expires.Equal(in.Expires):
		return nil, control.VaultKeyExists.Refuse("the vault has the KEK %s already, of %d bits, expiring %s; asked for were %d bits, expiring %s",
			key.KID, key.Public.N.BitLen(), date(key.Expires), in.Bits, date(in.Expires)).
			WithHint(takenHint, in.Name)
	}
	return c.asKEK(ctx, key, true)
}

func (c *Client) makeKEK(ctx context.Context, in NewKEK) (*Key, error) {
	attributes := &azkeys.KeyAttributes{Enabled: to.Ptr(true)}
	if !in.Expires.IsZero() {
		attributes.Expires = &in.Expires
	}
	answer, err := c.keys.CreateKey(c.change(ctx), in.Name, azkeys.CreateKeyParameters{
		Kty:           to.Ptr(azkeys.KeyTypeRSAHSM),
		KeySize:       to.Ptr(int32(in.Bits)),
		KeyOps:        pointers[azkeys.KeyOperation](kekOps),
		KeyAttributes: attributes,
		Tags:          pointersOf(in.Tags),
	}, nil)
	if err != nil {
		return nil, c.explain(ctx, "making the KEK "+in.Name+" in the vault", in.Name, err)
	}
	return c.read(in.Name, answer.KeyBundle)
}

// FetchKEK reads a KEK of the vault. An empty version means the current one.
func (c *Client) FetchKEK(ctx context.Context, name, version string) (*KEK, error) {
	key, err := c.get(ctx, name, version)
	if err != nil {
		return nil, err
	}
	return c.asKEK(ctx, key, false)
}

func (c *Client) asKEK(ctx context.Context, key *Key, resumed bool) (*KEK, error) {
	if err := checkKEK(key, time.Now()); err != nil {
		return nil, err
	}
	attestation, err := c.attestation(ctx, key)
	if err != nil {
		return nil, err
	}
	return &KEK{Key: *key, Attestation: attestation, Resumed: resumed}, nil
}

func checkKEK(key *Key, now time.Time) error {
	switch bits := key.Public.N.BitLen(); {
	case key.Type != string(azkeys.KeyTypeRSAHSM):
		return control.VaultKEKType.Refuse("the KEK %s is of the type %s, not RSA-HSM", key.KID, control.Quote(key.Type))
	case key.HSMPlatform == softwarePlatform:
		return control.VaultKEKType.Refuse("the vault keeps the KEK %s in software (hsmPlatform 0), not in an HSM", key.KID)
	case !slices.Equal(key.Ops, kekOps):
		return control.VaultKEKOps.Refuse("the KEK %s may %s, not import alone", key.KID, control.Quote(fmt.Sprint(key.Ops)))
	case !slices.Contains(byok.KeyBits, bits):
		return control.VaultKEKSize.Refuse("the KEK %s has %d bits, not 2048, 3072 or 4096", key.KID, bits)
	case !key.Enabled:
		return control.VaultKEKValidity.Refuse("the KEK %s is disabled", key.KID)
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return control.VaultKEKValidity.Refuse("the KEK %s expired at %s", key.KID, date(key.Expires))
	case now.Before(key.NotBefore):
		return control.VaultKEKValidity.Refuse("the KEK %s is not valid before %s", key.KID, date(key.NotBefore))
	}
	return nil
}

// GrantCommands are the commands of the Azure CLI that let a service principal get a
// key of this vault, decrypt and sign with it: a vault has roles, as new ones do, or
// access policies, and it may have a firewall, none of which its keys tell.
func (c *Client) GrantCommands(principal, key string) []string {
	const firewalled = " --bypass AzureServices  # where it has a firewall: Azure RMS is a trusted service"
	if c.hsm {
		return []string{
			"az keyvault role assignment create --hsm-name " + c.name + " --role \"Managed HSM Crypto User\" --assignee " + principal + " --scope /keys/" + key,
			"az keyvault update-hsm --hsm-name " + c.name + firewalled,
		}
	}
	return []string{
		"az role assignment create --role \"Key Vault Crypto User\" --assignee " + principal +
			" --scope \"$(az keyvault show --name " + c.name + " --query id --output tsv)/keys/" + key + "\"  # in a vault with roles",
		"az keyvault set-policy --name " + c.name + " --spn " + principal + " --key-permissions get decrypt sign  # in one with access policies",
		"az keyvault update --name " + c.name + firewalled,
	}
}

// RemoveCommands are the commands of the Azure CLI that delete a key of this vault
// and purge it, so that its name is free again.
func (c *Client) RemoveCommands(key string) []string {
	return []string{
		"az keyvault key delete " + c.az() + " --name " + key,
		"az keyvault key purge " + c.az() + " --name " + key,
	}
}

// date writes the limit of a validity.
func date(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

// noAttestation are the statuses of a service that has no attestation to give,
// or none to this account. It is documented for Managed HSM alone.
var noAttestation = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}

// attestation asks for the KEK's attestation.
func (c *Client) attestation(ctx context.Context, key *Key) (json.RawMessage, error) {
	answer, err := c.keys.GetKeyAttestation(ctx, key.Name, key.Version, nil)
	var refused *azcore.ResponseError
	switch {
	case errors.As(err, &refused) && slices.Contains(noAttestation, refused.StatusCode):
		return nil, nil
	case err != nil:
		return nil, c.explain(ctx, "asking for the attestation of "+key.KID, key.Name, err)
	case answer.Attributes == nil || answer.Attributes.Attestation == nil:
		return nil, nil
	}
	given, err := json.Marshal(answer.Attributes.Attestation)
	if err != nil {
		return nil, control.VaultAnswer.Refuse("the attestation of %s cannot be kept: %w", key.KID, err)
	}
	if string(given) == "{}" {
		return nil, nil
	}
	return given, nil
}
