// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/rms"
	"keyferry/pkg/strictjson"
	"keyferry/pkg/tpd"
)

const tenantFormat = "keyferry-practice-tenant-v1"

// tenantState is tenant.json. The TPDs themselves are not kept.
type tenantState struct {
	Format string    `json:"format"`
	Keys   []rms.Key `json:"keys"` // oldest first
}

// Tenant returns the practice cloud's Azure RMS tenant. It takes keyless TPDs
// whose key is in the practice vault, and no Microsoft-managed keys.
func (c *Cloud) Tenant() rms.Tenant { return tenant{c} }

type tenant struct{ *Cloud }

func (t tenant) Keys(context.Context) ([]rms.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, err := t.loadTenant()
	return state.Keys, err
}

// ImportTPD opens the TPD with its password as the service does and pairs it
// with the vault's key.
func (t tenant) ImportTPD(_ context.Context, in rms.TPDImport) (rms.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	domain, err := openKeyless(in, t.now())
	if err != nil {
		return rms.Key{}, err
	}
	state, err := t.loadTenant()
	if err != nil {
		return rms.Key{}, err
	}
	if i := state.index(domain.GUID()); i >= 0 {
		return rms.Key{}, control.RMSKeyExists.Refuse("the practice tenant has the TPD %s already", domain.GUID())
	}
	v, err := t.signingKey(in.KeyURL)
	if err != nil {
		return rms.Key{}, err
	}
	if !v.public.Equal(domain.Public()) {
		return rms.Key{}, control.RMSKeyMismatch.Refuse("the key %s is not the key of the TPD %s: their moduli differ", in.KeyURL, domain.GUID())
	}
	key := rms.Key{
		KeyIdentifier: domain.GUID(), FriendlyName: in.FriendlyName,
		Status: rms.Archived, KeyType: rms.CustomerManaged,
		KeyURL: in.KeyURL, PublicKey: v.PublicKey, CreationTime: t.now().UTC(),
	}
	state.Keys = append(state.Keys, key)
	return key, t.storeTenant(state)
}

// openKeyless reads the TPD as the service does. What opens but is not sound, or
// not keyless, is refused by the TPD's own controls.
func openKeyless(in rms.TPDImport, now time.Time) (*tpd.CheckedKeyless, error) {
	export, err := tpd.Parse(in.TPD)
	if err != nil {
		return nil, corrupted(err)
	}
	domain, err := export.Decrypt(in.Password)
	if err != nil {
		return nil, corrupted(err)
	}
	defer domain.Clear() // a TPD that is not keyless after all
	return domain.CheckedKeyless(now)
}

// corrupted is the service's one answer to a wrong password and to a file that
// it cannot read, with our reason beside it.
func corrupted(reason error) error {
	return control.RMSCorrupted.Refuse("the practice tenant says \"Trusted Publishing Domain data is corrupted.\": %w", reason)
}

// signingKey returns the vault's key behind a key URL, which must name its
// version.
func (t tenant) signingKey(url string) (*version, error) {
	name, id, ok := splitKID(url)
	if !ok {
		return nil, control.RMSKeyURL.Refuse("%s is not the URL, with version, of a key in the practice vault", control.Quote(url))
	}
	_, v, err := t.find(name, id)
	var unknown *apiError
	switch {
	case errors.As(err, &unknown):
		return nil, control.RMSKeyURL.Refuse("Failure to access Azure KeyVault: the practice vault has no key %s", control.Quote(url))
	case err != nil:
		return nil, err
	case v.unusable(t.now().Unix()) != "":
		return nil, control.RMSKeyURL.Refuse("Failure to access Azure KeyVault: the key %s %s", url, v.unusable(t.now().Unix()))
	case !slices.Contains(v.KeyOps, "sign") || !slices.Contains(v.KeyOps, "decrypt"):
		return nil, control.RMSKeyURL.Refuse("Failure to access Azure KeyVault: the key %s may %s, and the service must sign and decrypt", url, join(v.KeyOps))
	}
	return v, nil
}

func (t tenant) SetActive(_ context.Context, keyIdentifier string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	state, err := t.loadTenant()
	if err != nil {
		return err
	}
	chosen := state.index(keyIdentifier)
	if chosen < 0 {
		return control.RMSKeyMissing.Refuse("the practice tenant has no key %s", control.Quote(keyIdentifier))
	}
	if state.Keys[chosen].Status == rms.Active {
		return nil
	}
	for i := range state.Keys {
		state.Keys[i].Status = rms.Archived
	}
	state.Keys[chosen].Status = rms.Active
	return t.storeTenant(state)
}

// index finds a key by its identifier, -1 when there is none.
func (s tenantState) index(keyIdentifier string) int {
	return slices.IndexFunc(s.Keys, func(k rms.Key) bool { return k.KeyIdentifier == keyIdentifier })
}

func (c *Cloud) tenantFile() string { return filepath.Join(c.dir, "tenant.json") }

func (c *Cloud) loadTenant() (tenantState, error) {
	var state tenantState
	data, err := os.ReadFile(c.tenantFile())
	if errors.Is(err, fs.ErrNotExist) {
		return tenantState{Format: tenantFormat}, nil
	}
	if err != nil {
		return state, err
	}
	if err := strictjson.Unmarshal(data, maxState, &state); err != nil {
		return state, damaged(c.tenantFile(), err)
	}
	count := map[rms.Status]int{}
	for _, key := range state.Keys {
		count[key.Status]++
	}
	if state.Format != tenantFormat || count[rms.Active] > 1 || count[rms.Active]+count[rms.Archived] != len(state.Keys) {
		return state, damaged(c.tenantFile(), errors.New("not the state of a practice tenant"))
	}
	return state, nil
}

func (c *Cloud) storeTenant(state tenantState) error {
	data, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	return durable.Replace(c.tenantFile(), append(data, '\n'), 0o600)
}
