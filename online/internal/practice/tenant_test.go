// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
	"keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// travelled brings the vector's key into the vault and returns what the tenant
// is to be given.
func (r *rehearsal) travelled(v vectors.TPD) tenant.TPDImport {
	r.Helper()
	kid, kek := r.create("kek", 2048, nil, "import")
	answer, err := r.importBlob(v.Name, wrapped(r.T, kid, kek, v.Key))
	if err != nil {
		r.Fatal(err)
	}
	return tenant.TPDImport{TPD: r.keyless(v), Password: v.Password, KeyURL: string(*answer.Key.KID), FriendlyName: v.Name}
}

func (r *rehearsal) keyless(v vectors.TPD) []byte {
	r.Helper()
	export, err := tpd.Parse(v.XML)
	if err != nil {
		r.Fatal(err)
	}
	domain, err := export.Decrypt(v.Password)
	if err != nil {
		r.Fatal(err)
	}
	file, err := domain.Keyless(tpd.OmitElement)
	if err != nil {
		r.Fatal(err)
	}
	return file
}

func plain(guid string) string { return strings.ToLower(strings.Trim(guid, "{}")) }

// listed is the tenant's key of that identifier.
func (r *rehearsal) listed(identifier string) tenant.Key {
	r.Helper()
	keys, err := r.cloud.Tenant().Keys(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	i := slices.IndexFunc(keys, func(k tenant.Key) bool { return k.KeyIdentifier == identifier })
	if i < 0 {
		r.Fatalf("the tenant does not list %s", identifier)
	}
	return keys[i]
}

func (r *rehearsal) statuses() map[string]tenant.Status {
	r.Helper()
	keys, err := r.cloud.Tenant().Keys(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	statuses := map[string]tenant.Status{}
	for _, key := range keys {
		statuses[key.FriendlyName] = key.Status
	}
	return statuses
}

func TestTenantTakesAndActivates(t *testing.T) {
	dir := t.TempDir()
	r := newRehearsal(t, dir)
	if keys, err := r.cloud.Tenant().Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Fatalf("a new tenant: %v, %v", keys, err)
	}
	ids := map[string]string{}
	for _, name := range []string{"contoso-mode2", "contoso-legacy-kdf", "contoso-utf16"} {
		v := vectors.OneTPD(t, name)
		in := r.travelled(v)
		if err := r.cloud.Tenant().ImportTPD(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		key := r.listed(plain(v.GUID))
		if key.Status != tenant.Archived || key.KeyURL != in.KeyURL || !key.Holds(&v.Key.PublicKey) || key.KeyType != tenant.CustomerManaged {
			t.Errorf("imported %+v", key)
		}
		ids[name] = key.KeyIdentifier
	}
	for _, chosen := range []string{"contoso-mode2", "contoso-utf16", "contoso-utf16"} {
		if err := r.cloud.Tenant().SetActive(t.Context(), ids[chosen]); err != nil {
			t.Fatal(err)
		}
		r = newRehearsal(t, dir) // another run sees the same
		for name, status := range r.statuses() {
			if (status == tenant.Active) != (name == chosen) {
				t.Errorf("%s chosen: %s is %s", chosen, name, status)
			}
		}
	}
	if err := r.cloud.Tenant().SetActive(t.Context(), "00000000-0000-0000-0000-000000000000"); !control.Is(err, control.RMSKeyMissing) {
		t.Errorf("got %v, want %s", err, control.RMSKeyMissing.ID)
	}
	paths, err := filepath.Glob(r.cloud.tenantFile("*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// TestTenantMicrosoftManaged: a key that no vault takes comes inside its TPD.
func TestTenantMicrosoftManaged(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	v := vectors.OneTPD(t, "contoso-mode1")
	in := tenant.TPDImport{TPD: v.XML, Password: v.Password, MicrosoftManaged: true, FriendlyName: v.Name}
	if err := r.cloud.Tenant().ImportTPD(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	key := r.listed(plain(v.GUID))
	if key.Status != tenant.Archived || key.KeyURL != "" || key.KeyType != tenant.MicrosoftManaged || len(key.PublicKey) > 0 {
		t.Errorf("imported %+v", key)
	}
	if err := r.cloud.Tenant().ImportTPD(t.Context(), in); !control.Is(err, control.RMSKeyExists) {
		t.Errorf("got %v, want %s", err, control.RMSKeyExists.ID)
	}
}

func TestTenantRefuses(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	v, other := vectors.OneTPD(t, "contoso-mode2"), vectors.OneTPD(t, "contoso-anyone")
	good := r.travelled(v)
	otherURL := r.travelled(other).KeyURL
	now := time.Now()
	r.cloud.now = func() time.Time { return now }
	kekURL, _ := r.create("kek", 2048, nil, "import")
	signOnlyURL, _ := r.create("sign-only", 2048, nil, "sign")
	expiredURL, _ := r.create("expired", 2048, &azkeys.KeyAttributes{Expires: to.Ptr(now)})
	unversioned := good.KeyURL[:strings.LastIndex(good.KeyURL, "/")]
	for _, test := range []struct {
		name    string
		change  func(in *tenant.TPDImport)
		control control.Control
		part    string
	}{
		{"wrong password", func(in *tenant.TPDImport) { in.Password = []byte("wrong") }, control.RMSCorrupted, "Trusted Publishing Domain data is corrupted."},
		{"not a TPD", func(in *tenant.TPDImport) { in.TPD = []byte("<x/>") }, control.RMSCorrupted, "Trusted Publishing Domain data is corrupted."},
		{"tampered SLC", func(in *tenant.TPDImport) {
			in.TPD = r.keyless(vectors.OneTPD(t, "bad-slc-signature"))
		}, control.TPDSLCSignature, ""},
		{"private key present", func(in *tenant.TPDImport) { in.TPD = v.XML }, control.TPDKeyPresent, ""},
		{"1024 bits", func(in *tenant.TPDImport) { in.TPD = r.keyless(vectors.OneTPD(t, "contoso-mode1")) }, control.TPDMode1, "1024"},
		{"key URL without version", func(in *tenant.TPDImport) { in.KeyURL = unversioned }, control.RMSKeyURL, "with version"},
		{"key URL with an empty version", func(in *tenant.TPDImport) { in.KeyURL = unversioned + "/" }, control.RMSKeyURL, "with version"},
		{"key URL of an unknown version", func(in *tenant.TPDImport) { in.KeyURL = unversioned + "/0" }, control.RMSKeyURL, "no key"},
		{"key URL of another vault", func(in *tenant.TPDImport) {
			in.KeyURL = strings.Replace(in.KeyURL, "practice.", "contoso.", 1)
		}, control.RMSKeyURL, "practice vault"},
		{"key URL of the KEK", func(in *tenant.TPDImport) { in.KeyURL = kekURL }, control.RMSKeyURL, "may import"},
		{"key that may not decrypt", func(in *tenant.TPDImport) { in.KeyURL = signOnlyURL }, control.RMSKeyURL, "may sign"},
		{"expired key", func(in *tenant.TPDImport) { in.KeyURL = expiredURL }, control.RMSKeyURL, "has expired"},
		{"a key inside, and a key URL", func(in *tenant.TPDImport) { in.MicrosoftManaged = true }, control.RMSKeyURL, "without"},
		{"a key inside that a vault takes", func(in *tenant.TPDImport) {
			in.TPD, in.KeyURL, in.MicrosoftManaged = v.XML, "", true
		}, control.TPDNotMode1, ""},
		{"no key inside", func(in *tenant.TPDImport) {
			in.TPD, in.KeyURL, in.MicrosoftManaged = r.keyless(vectors.OneTPD(t, "contoso-mode1")), "", true
		}, control.TPDKeyAbsent, ""},
		{"another TPD's key", func(in *tenant.TPDImport) { in.KeyURL = otherURL }, control.RMSKeyMismatch, "moduli differ"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := good
			test.change(&in)
			err := r.cloud.Tenant().ImportTPD(t.Context(), in)
			if !control.Is(err, test.control) || !strings.Contains(err.Error(), test.part) {
				t.Errorf("got %v, want %s with %q", err, test.control.ID, test.part)
			}
		})
	}
	if len(r.statuses()) != 0 {
		t.Error("a refusal left a key in the tenant")
	}
	if err := r.cloud.Tenant().ImportTPD(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	file := r.cloud.tenantFile(plain(v.GUID))
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cloud.Tenant().ImportTPD(t.Context(), good); !control.Is(err, control.RMSKeyExists) {
		t.Errorf("got %v, want %s", err, control.RMSKeyExists.ID)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the refusal changed the tenant: %v", err)
	}
}
