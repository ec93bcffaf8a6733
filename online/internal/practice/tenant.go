// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/strictjson"
	"keyferry/pkg/tpd"
)

const tenantFormat = "keyferry-practice-tenant-v3"

// tenantKey is tenant/<guid>.json: a key as Get-AipServiceKeys is documented to show it,
// so with a public key where it is customer-managed alone. Of the URL nothing is
// documented; here those have it, so that a rehearsal tells two copies of a key in the
// vault apart. The TPD itself is not kept. A file for each key lets a tenant grow
// without a rewrite of the others.
type tenantKey struct {
	Format string        `json:"format"`
	Key    tenant.Listed `json:"key"`
}

// How the cmdlet shows the types of keys.
const (
	shownMicrosoftManaged = "Microsoft-managed"
	shownCustomerManaged  = "Customer-managed (BYOK)"
)

// Tenant returns the practice cloud's Azure RMS tenant. It takes keyless TPDs
// whose key is in the practice vault, and TPDs that carry a key which is too
// small for any vault, to be managed by Microsoft.
func (c *Cloud) Tenant() tenant.Tenant { return practiceTenant{c} }

type practiceTenant struct{ *Cloud }

func (t practiceTenant) Keys(context.Context) ([]tenant.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.tenantTrouble("tenant-sign-in", "tenant-rights"); err != nil {
		return nil, err
	}
	keys, err := t.loadTenant()
	if err != nil {
		return nil, err
	}
	return tenant.ReadKeys(keys)
}

// ImportTPD opens the TPD with its password as the service does. A keyless one
// is paired with the vault's key; in one that carries its key, that is the key
// of its certificate.
func (t practiceTenant) ImportTPD(_ context.Context, in tenant.TPDImport) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.tenantTrouble("tenant-key-url"); err != nil {
		return err
	}
	checked, err := openTPD(in, t.now())
	if err != nil {
		return err
	}
	if _, err := os.Stat(t.tenantFile(checked.GUID())); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, control.RMSKeyExists.Refuse("the practice tenant has the TPD %s already", checked.GUID()))
	}
	key := tenant.Listed{
		KeyIdentifier: checked.GUID(), FriendlyName: in.FriendlyName,
		Status: string(tenant.Archived), KeyType: shownMicrosoftManaged, CreationTime: t.now().UTC().Format(time.RFC3339Nano), // they are listed by it
	}
	if !in.MicrosoftManaged {
		key.KeyType, key.KeyURL = shownCustomerManaged, in.KeyURL
		public, err := x509.MarshalPKIXPublicKey(checked.Public())
		if err != nil {
			return err
		}
		key.PublicKey = base64.StdEncoding.EncodeToString(public)
		v, err := t.signingKey(in.KeyURL)
		if err != nil {
			return err
		}
		if !v.public.Equal(checked.Public()) {
			return control.RMSKeyMismatch.Refuse("the key %s is not the key of the TPD %s: their moduli differ", in.KeyURL, checked.GUID())
		}
	}
	return t.storeKey(key)
}

// tenantTrouble is the refusal of one of the troubles, if it was ordered.
func (c *Cloud) tenantTrouble(names ...string) error {
	name, err := c.trouble()
	if err != nil || !slices.Contains(names, name) {
		return err
	}
	return tenantTroubles[name]()
}

// openTPD reads the TPD as the service does. What opens but is not sound, or not
// keyless where it should be, is refused by the TPD's own controls.
func openTPD(in tenant.TPDImport, now time.Time) (id tpd.Identity, err error) {
	if in.MicrosoftManaged && in.KeyURL != "" {
		return id, control.RMSKeyURL.Refuse("a TPD that carries its key is imported without a key URL, not with %s", control.Quote(in.KeyURL))
	}
	export, err := tpd.Parse(in.TPD)
	if err != nil {
		return id, corrupted(err)
	}
	domain, err := export.Decrypt(in.Password)
	if err != nil {
		return id, corrupted(err)
	}
	defer domain.Clear()
	terms := tpd.Terms{Now: now, AcceptTemplates: []string{tpd.AnyTemplate}} // the service signs them anew
	if in.MicrosoftManaged {
		checked, err := domain.CheckedMicrosoftManaged(terms)
		if err != nil {
			return id, err
		}
		return checked.Identity, nil
	}
	checked, err := domain.CheckedKeyless(terms)
	if err != nil {
		return id, err
	}
	return checked.Identity, nil
}

// corrupted is the service's one answer to a wrong password and to a file that
// it cannot read, with our reason beside it.
func corrupted(reason error) error {
	return control.RMSCorrupted.Refuse("the practice tenant says \"Trusted Publishing Domain data is corrupted.\": %w", reason)
}

// signingKey returns the vault's key behind a key URL, which must name its
// version.
func (t practiceTenant) signingKey(url string) (*version, error) {
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

func (t practiceTenant) SetActive(_ context.Context, keyIdentifier string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	keys, err := t.loadTenant()
	if err != nil {
		return err
	}
	chosen := slices.IndexFunc(keys, func(k tenant.Listed) bool { return k.KeyIdentifier == keyIdentifier })
	if chosen < 0 {
		return control.RMSKeyMissing.Refuse("the practice tenant has no key %s", control.Quote(keyIdentifier))
	}
	if keys[chosen].Status == string(tenant.Active) {
		return nil
	}
	for _, key := range keys { // first, so that there are never two
		if key.Status == string(tenant.Active) {
			key.Status = string(tenant.Archived)
			if err := t.storeKey(key); err != nil {
				return err
			}
		}
	}
	keys[chosen].Status = string(tenant.Active)
	return t.storeKey(keys[chosen])
}

func (c *Cloud) tenantFile(guid string) string { return filepath.Join(c.dir, "tenant", guid+".json") }

func (c *Cloud) loadTenant() ([]tenant.Listed, error) {
	paths, err := filepath.Glob(c.tenantFile("*"))
	if err != nil {
		return nil, err
	}
	var keys []tenant.Listed
	active := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var kept tenantKey
		if err := strictjson.Unmarshal(data, maxState, &kept); err != nil {
			return nil, damaged(path, err)
		}
		switch tenant.Status(kept.Key.Status) {
		case tenant.Active:
			active++
		case tenant.Archived:
		default:
			active = 2
		}
		if kept.Format != tenantFormat || active > 1 || path != c.tenantFile(kept.Key.KeyIdentifier) {
			return nil, damaged(path, errors.New("not a key of a practice tenant, or a second active one"))
		}
		keys = append(keys, kept.Key)
	}
	return keys, nil
}

func (c *Cloud) storeKey(key tenant.Listed) error {
	data, err := json.MarshalIndent(tenantKey{tenantFormat, key}, "", "  ")
	if err != nil {
		return err
	}
	path := c.tenantFile(key.KeyIdentifier)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Replace(path, append(data, '\n'), 0o600)
}
