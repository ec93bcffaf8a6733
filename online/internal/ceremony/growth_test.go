// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
)

// countedTenant counts its calls, and the keys that it lists.
type countedTenant struct {
	keys                                []tenant.Key
	lists, listed, imports, activations int
}

func (c *countedTenant) Keys(context.Context) ([]tenant.Key, error) {
	c.lists++
	c.listed += len(c.keys)
	return append([]tenant.Key(nil), c.keys...), nil
}

func (c *countedTenant) ImportTPD(_ context.Context, in tenant.TPDImport) error {
	c.imports++
	c.keys = append(c.keys, tenant.Key{KeyIdentifier: in.FriendlyName, Status: tenant.Archived, KeyType: tenant.CustomerManaged, KeyURL: in.KeyURL})
	return nil
}

func (c *countedTenant) SetActive(_ context.Context, id string) error {
	c.activations++
	for i := range c.keys {
		c.keys[i].Status = tenant.Archived
		if c.keys[i].KeyIdentifier == id {
			c.keys[i].Status = tenant.Active
		}
	}
	return nil
}

// TestUploadGrowsAsTheKeys: in the tenant's part of an upload the list is asked for
// as often for 100 keys as for 10, each TPD is imported once, and the ledger gets one
// record a key and two for all. The same run again imports and records nothing.
func TestUploadGrowsAsTheKeys(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 10, 100} {
		service := new(countedTenant)
		l, err := ledger.Open(filepath.Join(t.TempDir(), "ledger.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for run := range 2 {
			j, err := ReadJournal(l)
			if err != nil {
				t.Fatal(err)
			}
			u := &upload{io: quietIO(t), state: new(state.State), journal: j, cloud: Cloud{Tenant: service}, request: UploadRequest{Way: ByPowerShell}}
			for i := range n {
				slc, url := fmt.Sprintf("slc-%d", i), fmt.Sprintf("https://contoso.vault.azure.net/keys/k%d/0", i)
				u.steps = append(u.steps, &step{Transfer: &Transfer{Key: bundle.Key{ID: fmt.Sprintf("k%d", i), SLC: slc}, Public: &key.PublicKey}, friendlyName: slc, url: url})
			}
			u.active = u.steps[n/2]
			before, records := *service, len(l.Entries())
			if err := u.enterTenant(t.Context()); err != nil {
				t.Fatal(err)
			}
			lists, listed, imports, activations := service.lists-before.lists, service.listed-before.listed, service.imports-before.imports, service.activations-before.activations
			records = len(l.Entries()) - records
			t.Logf("%d keys, run %d: %d lists of %d keys together, %d imports, %d activations, %d records", n, run+1, lists, listed, imports, activations, records)
			want := []int{3, 2 * n, n, 1, n + 2} // before, after the imports, after the activation
			if run == 1 {
				want = []int{1, n, 0, 0, 0}
			}
			if got := []int{lists, listed, imports, activations, records}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d keys, run %d: lists, keys in them, imports, activations, records: %v, want %v", n, run+1, got, want)
			}
		}
	}
}

// quietIO is what a command says to nobody.
func quietIO(t *testing.T) *cli.IO {
	t.Helper()
	var got *cli.IO
	app := &cli.App{Name: "online", Commands: []cli.Command{{Name: "test", Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, _ []string) error { got = io; return nil }
	}}}}
	app.Run(t.Context(), []string{"test"}, strings.NewReader(""), io.Discard, io.Discard)
	return got
}
