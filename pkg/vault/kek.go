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

	"keyferry/pkg/control"
)

// sizes are the RSA key sizes in bits that a vault's HSM takes.
var sizes = []int{2048, 3072, 4096}

// kekOps is what a KEK may do: serve for import, and nothing else.
var kekOps = []string{string(azkeys.KeyOperationImport)}

// KEK is a key exchange key that passed every check: RSA-HSM, import only,
// 2048, 3072 or 4096 bits, enabled, within its validity.
type KEK struct {
	Key
	// Attestation is the HSM's evidence for the KEK in the service's JSON, nil
	// where the service has none to give.
	Attestation json.RawMessage
}

// CreateKEK makes a new KEK of that many bits in the vault's HSM. A name that
// is taken is refused (KF-VAULT-KEY-EXISTS).
func (c *Client) CreateKEK(ctx context.Context, name string, bits int) (*KEK, error) {
	if !slices.Contains(sizes, bits) {
		return nil, control.VaultKEKSize.Refuse("a KEK has 2048, 3072 or 4096 bits, not %d", bits)
	}
	switch existing, err := c.Key(ctx, name); {
	case err == nil:
		return nil, control.VaultKeyExists.Refuse("the vault has a key %s already: %s", name, existing.KID).
			WithHint("fetch the KEK that is there with `online kek fetch`, or choose another name")
	case !control.Is(err, control.VaultKeyMissing):
		return nil, err
	}
	answer, err := c.keys.CreateKey(once(ctx), name, azkeys.CreateKeyParameters{
		Kty:           to.Ptr(azkeys.KeyTypeRSAHSM),
		KeySize:       to.Ptr(int32(bits)),
		KeyOps:        pointers[azkeys.KeyOperation](kekOps),
		KeyAttributes: &azkeys.KeyAttributes{Enabled: to.Ptr(true)},
	}, nil)
	if err != nil {
		return nil, explain(ctx, "making the KEK "+name+" in the vault", err)
	}
	key, err := c.read(name, answer.KeyBundle)
	if err != nil {
		return nil, err
	}
	if got := key.Public.N.BitLen(); got != bits {
		return nil, control.VaultKEKSize.Refuse("asked for a KEK of %d bits, the vault made one of %d", bits, got)
	}
	return c.asKEK(ctx, key)
}

// FetchKEK reads a KEK of the vault. An empty version means the current one.
func (c *Client) FetchKEK(ctx context.Context, name, version string) (*KEK, error) {
	key, err := c.get(ctx, name, version)
	if err != nil {
		return nil, err
	}
	return c.asKEK(ctx, key)
}

func (c *Client) asKEK(ctx context.Context, key *Key) (*KEK, error) {
	if err := checkKEK(key, time.Now()); err != nil {
		return nil, err
	}
	attestation, err := c.attestation(ctx, key)
	if err != nil {
		return nil, err
	}
	return &KEK{Key: *key, Attestation: attestation}, nil
}

func checkKEK(key *Key, now time.Time) error {
	switch bits := key.Public.N.BitLen(); {
	case key.Type != string(azkeys.KeyTypeRSAHSM):
		return control.VaultKEKType.Refuse("the KEK %s is of the type %s, not RSA-HSM", key.KID, control.Quote(key.Type))
	case key.HSMPlatform == softwarePlatform:
		return control.VaultKEKType.Refuse("the vault keeps the KEK %s in software (hsmPlatform 0), not in an HSM", key.KID)
	case !slices.Equal(key.Ops, kekOps):
		return control.VaultKEKOps.Refuse("the KEK %s may %s, not import alone", key.KID, control.Quote(fmt.Sprint(key.Ops)))
	case !slices.Contains(sizes, bits):
		return control.VaultKEKSize.Refuse("the KEK %s has %d bits, not 2048, 3072 or 4096", key.KID, bits)
	case !key.Enabled:
		return control.VaultKEKValidity.Refuse("the KEK %s is disabled", key.KID)
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return control.VaultKEKValidity.Refuse("the KEK %s expired at %s", key.KID, key.Expires.UTC().Format(time.RFC3339))
	case now.Before(key.NotBefore):
		return control.VaultKEKValidity.Refuse("the KEK %s is not valid before %s", key.KID, key.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// noAttestation are the statuses of a service that has no attestation to give,
// or none to this account. It is documented for Managed HSM alone.
var noAttestation = []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}

// attestation asks for the HSM's evidence.
func (c *Client) attestation(ctx context.Context, key *Key) (json.RawMessage, error) {
	answer, err := c.keys.GetKeyAttestation(ctx, key.Name, key.Version, nil)
	var refused *azcore.ResponseError
	switch {
	case errors.As(err, &refused) && slices.Contains(noAttestation, refused.StatusCode):
		return nil, nil
	case err != nil:
		return nil, explain(ctx, "asking for the attestation of "+key.KID, err)
	case answer.Attributes == nil || answer.Attributes.Attestation == nil:
		return nil, nil
	}
	evidence, err := json.Marshal(answer.Attributes.Attestation)
	if err != nil {
		return nil, control.VaultAnswer.Refuse("the attestation of %s cannot be kept: %w", key.KID, err)
	}
	return evidence, nil
}
