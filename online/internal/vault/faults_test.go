// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
	"keyferry/test/faults"
	"keyferry/test/memdir"
	"keyferry/test/vectors"
)

// begin opens a practice vault in dir, for the length of the test.
func begin(t *testing.T, dir string) *practice.Endpoint {
	t.Helper()
	cloud, err := practice.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := cloud.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := endpoint.Close(); err != nil {
			t.Error(err)
		}
	})
	return endpoint
}

func newClientOf(t *testing.T, endpoint *practice.Endpoint, through policy.Transporter) *vault.Client {
	t.Helper()
	client, err := vault.New(endpoint.URL(), endpoint.Credential(), through)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// holdings describes the keys of a vault, by Microsoft's client alone.
func holdings(t *testing.T, endpoint *practice.Endpoint, want *rsa.PublicKey, names ...string) string {
	t.Helper()
	keys, err := azkeys.NewClient(endpoint.URL(), endpoint.Credential(), &azkeys.ClientOptions{
		ClientOptions: policy.ClientOptions{Transport: endpoint.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, name := range names {
		page, err := keys.NewListKeyPropertiesVersionsPager(name, nil).NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		key, err := keys.GetKey(t.Context(), name, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s: %d version, %d bits, expiring %v", name, len(page.Value), 8*len(key.Key.N), key.Attributes.Expires)
		for tag, value := range key.Tags {
			fmt.Fprintf(&text, ", %s=%s", tag, *value)
		}
		if want != nil {
			fmt.Fprintf(&text, ", right key: %v", string(key.Key.N) == string(want.N.Bytes()))
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// TestFaultsOfCreate: however the making of a KEK goes wrong, run again it ends
// with that one KEK in one version.
func TestFaultsOfCreate(t *testing.T) {
	t.Parallel()
	in := vault.NewKEK{Name: "kek", Bits: 2048, Expires: time.Now().Add(time.Hour), Tags: map[string]string{"for": "NA-1"}}
	cases := faults.Table(t, func(t *testing.T) faults.World {
		endpoint := begin(t, memdir.New(t))
		return faults.World{
			Next: endpoint.Transport(),
			Work: func(through policy.Transporter) error {
				_, err := newClientOf(t, endpoint, through).CreateKEK(faults.AtOnce(t.Context()), in)
				return err
			},
			State: func() string { return holdings(t, endpoint, nil, "kek") },
		}
	})
	if cases < 100 {
		t.Errorf("%d cases, expected at least 100", cases)
	}
}

// TestFaultsOfImport: likewise the import, with the check before it as an
// upload makes it.
func TestFaultsOfImport(t *testing.T) {
	t.Parallel()
	made := t.TempDir()
	endpoint := begin(t, made)
	kek := newKEK(t, newClientOf(t, endpoint, endpoint.Transport()), "kek")
	key := vectors.OneTPD(t, "contoso-mode2").Key
	in := vault.Import{Name: "tenant", Blob: blobFor(t, kek, key), Want: &key.PublicKey, Tags: map[string]string{"bundle": "b1"}}
	cases := faults.Table(t, func(t *testing.T) faults.World {
		endpoint := begin(t, memdir.Copy(t, made))
		return faults.World{
			Next: endpoint.Transport(),
			Work: func(through policy.Transporter) error {
				client, ctx := newClientOf(t, endpoint, through), faults.AtOnce(t.Context())
				if _, err := client.CheckImport(ctx, in); err != nil {
					return err
				}
				_, err := client.ImportKey(ctx, in)
				return err
			},
			State: func() string { return holdings(t, endpoint, &key.PublicKey, "tenant") },
		}
	})
	if cases < 150 {
		t.Errorf("%d cases, expected at least 150", cases)
	}
}

// TestFaultsAreNamed: each fault of an import ends in its own refusal.
func TestFaultsAreNamed(t *testing.T) {
	for _, test := range []struct {
		fault   faults.Fault
		control control.Control
		hint    string
	}{
		{faults.Answer("soft-deleted", 409, "Conflict", "ObjectIsDeletedButRecoverable", "Key tenant is currently in a deleted but recoverable state"),
			control.VaultKeyDeleted, "az keyvault key recover --vault-name practice --name tenant"},
		{faults.Answer("Standard", 400, "BadParameter", "", "Hardware key operation not allowed on standard vault"), control.VaultSKU, "Premium"},
		{faults.Answer("firewall", 403, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized"), control.VaultFirewall, "add its address"},
		{faults.Answer("rights", 403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized"), control.VaultRights, "Crypto Officer"},
		{faults.Answer("throttled", 429, "Throttled", "", "too many"), control.VaultThrottled, "wait"},
	} {
		t.Run(test.fault.Name, func(t *testing.T) {
			endpoint := begin(t, t.TempDir())
			through := &faults.Transport{Next: endpoint.Transport(), Fault: test.fault, At: 1, On: true}
			_, err := newClientOf(t, endpoint, through).CreateKEK(faults.AtOnce(t.Context()), vault.NewKEK{Name: "tenant", Bits: 2048})
			holds(t, err, test.control, "tenant")
			var refusal *control.Refusal
			if !errors.As(err, &refusal) || !strings.Contains(refusal.Hint, test.hint) {
				t.Errorf("hint %q, want %q in it", refusal.Hint, test.hint)
			}
		})
	}
}

// TestThrottledWaits: the wait that the vault asks for is kept, and told.
func TestThrottledWaits(t *testing.T) {
	asked := 0
	client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
		if asked++; asked == 1 {
			return 429, said("Throttled", "", "too many"), nil
		}
		return 200, describe(t, "import").answer(t), nil
	}), token{})
	var told []string
	client.Trouble = func(what string) { told = append(told, what) }
	if _, err := client.Key(faults.AtOnce(t.Context()), "kek"); err != nil || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "429") {
		t.Errorf("told %q", told)
	}
}

// TestSoftDeletedName: the practice vault's own soft delete is explained.
func TestSoftDeletedName(t *testing.T) {
	dir := t.TempDir()
	endpoint := begin(t, dir)
	client := newClientOf(t, endpoint, endpoint.Transport())
	kek := newKEK(t, client, "kek")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, practice.URL+"/keys/kek?api-version=7.6", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+endpoint.Token())
	if answer, err := endpoint.Transport().Do(request); err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	_, err = client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek", Bits: 2048})
	holds(t, err, control.VaultKeyDeleted, "deleted")

	key := vectors.OneTPD(t, "contoso-mode2").Key
	in := vault.Import{Name: "tenant", Blob: blobFor(t, kek, key), Want: &key.PublicKey, Tags: map[string]string{"a": "b"}}
	_, err = client.CheckImport(t.Context(), in)
	holds(t, err, control.VaultKEKForeign, kek.Version)
}
