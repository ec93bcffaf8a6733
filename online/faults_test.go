// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/practice"
	"keyferry/online/internal/tenant"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
	"keyferry/test/faults"
	"keyferry/test/memdir"
)

const samplePassword = "Passw0rd!"

// sealed plays a rehearsal up to the bundle, by the real binaries, and returns
// its directory: the states S and T, the stick, and the password in pw.
func sealed(t *testing.T) string {
	t.Helper()
	dir := memdir.New(t)
	sample, err := filepath.Abs("../testdata/vectors/tpd/contoso-mode2.xml")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "stick"), 0o700), os.WriteFile(filepath.Join(dir, "pw"), []byte(samplePassword+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"offline init --rehearsal --state S --out stick",
		"online init --rehearsal --state T",
		"online kek create --state T --size 2048 --out stick",
		"online trust --state T --yes stick/offline-card-offline.json",
		"offline trust --state S --yes stick/BYOK-SecurityWorld-pkg-NA-1",
		"offline import --state S --out stick --tpd-file-path " + sample + " --key-identifier contoso-slc --protection-password-file pw --exchange-key-package stick/BYOK-KEK-pkg-NA-1",
	} {
		words := strings.Fields(command)
		cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return dir
}

// uploader is an upload of the sample, with a cloud that a test chooses.
type uploader struct {
	dir   string // a copy of sealed's
	cloud *practice.Cloud
	end   *practice.Endpoint
	said  strings.Builder // all that the command printed
}

func newUploader(t *testing.T, made string) *uploader {
	t.Helper()
	u := &uploader{dir: memdir.Copy(t, made)}
	var err error
	if u.cloud, err = practice.Open(filepath.Join(u.dir, "T", "practice")); err != nil {
		t.Fatal(err)
	}
	if u.end, err = u.cloud.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.end.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// run does what `online upload` does once the cloud is there, and returns the
// command's error.
func (u *uploader) run(ctx context.Context, way ceremony.Way, through policy.Transporter, driven tenant.Tenant) (failed error) {
	run := func(io *cli.IO, s *state.State, j *ceremony.Journal, r *ceremony.Received, password *cli.SecretFlags) error {
		transfers, err := r.Transfers()
		if err != nil {
			return err
		}
		client, err := vault.New(practice.URL, u.end.Credential(), through)
		if err != nil {
			return err
		}
		client.Trouble = func(text string) { io.Note("%s", text) }
		_, err = ceremony.Upload(ctx, io, s, j, ceremony.UploadRequest{
			Transfers: transfers, Accept: r.Acceptance(), Active: "contoso-slc", Way: way, Again: ceremony.Again{Command: "upload"},
			Passwords: func(files []string, check func(int, []byte) error) ([][]byte, error) {
				return password.ReadEach(ctx, io, files, check)
			},
			Connect: func(f func(ceremony.Cloud) error) error {
				return withTenant(ctx, io, s, way, ceremony.Cloud{Vault: client, Tenant: driven, Azure: "public"}, f)
			},
		})
		return errors.Join(err, ctx.Err())
	}
	command := cli.Command{Name: "test", Setup: func(flags *pflag.FlagSet) cli.Run {
		password := cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		return func(ctx context.Context, io *cli.IO, _ []string) error {
			failed = withBundle(io, filepath.Join(u.dir, "stick", "keyferry-offline-1.kfb"), false, func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error {
				return run(io, s, j, r, password)
			})
			return failed
		}
	}}
	app := &cli.App{Name: "online", Commands: []cli.Command{command}}
	app.Run(ctx, []string{"test", "--state", filepath.Join(u.dir, "T"), "--protection-password-file", filepath.Join(u.dir, "pw"), "--yes", "--verbose"}, strings.NewReader(""), &u.said, &u.said)
	return failed
}

// holds describes what there is in the end: versions in the vault, keys in the
// tenant, and the ledger's events about them.
func (u *uploader) holds(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	records, err := filepath.Glob(filepath.Join(u.dir, "T", "practice", "vault", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range records {
		record, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "vault: %s, %d versions\n", filepath.Base(path), strings.Count(string(record), `"origin"`))
	}
	keys, err := u.cloud.Tenant().Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		fmt.Fprintf(&text, "tenant: %s %s %s\n", k.KeyIdentifier, k.Status, k.KeyType)
	}
	s, err := state.Open(filepath.Join(u.dir, "T"), state.Online, ceremony.Self)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, e := range s.Ledger.Entries() {
		switch e.Event {
		case ceremony.EventAccepted, ceremony.EventKeyImported, ceremony.EventTPDImported, ceremony.EventActivated, ceremony.EventHandedOver:
			fmt.Fprintf(&text, "ledger: %s\n", e.Event)
		}
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range h.Keys {
		fmt.Fprintf(&text, "receipt: %s %s by %s\n", k.ID, k.Tenant, k.TenantBy)
	}
	return text.String()
}

// TestFaultsOfUpload: however an exchange with the vault goes wrong in a whole
// upload, run again it ends as if nothing had.
func TestFaultsOfUpload(t *testing.T) {
	made := sealed(t)
	cases := faults.Table(t, func(t *testing.T) faults.World {
		u := newUploader(t, made)
		return faults.World{
			Next: u.end.Transport(),
			Work: func(through policy.Transporter) error {
				return u.run(faults.AtOnce(t.Context()), ceremony.ByPractice, through, u.cloud.Tenant())
			},
			State: func() string { return u.holds(t) },
		}
	})
	if cases < 150 {
		t.Errorf("%d cases, expected at least 150", cases)
	}
}

// faultyTenant fails at one call, before it takes effect or after.
type faultyTenant struct {
	tenant.Tenant
	at    int
	after bool
	calls int
}

func (f *faultyTenant) fail(do func() error) error {
	f.calls++
	if f.calls != f.at {
		return do()
	}
	if f.after {
		if err := do(); err != nil {
			return err
		}
	}
	return control.RMSFailed.Refuse("the session is lost")
}

func (f *faultyTenant) Keys(ctx context.Context) (keys []tenant.Key, err error) {
	return keys, f.fail(func() error { keys, err = f.Tenant.Keys(ctx); return err })
}

func (f *faultyTenant) ImportTPD(ctx context.Context, in tenant.TPDImport) error {
	return f.fail(func() error { return f.Tenant.ImportTPD(ctx, in) })
}

func (f *faultyTenant) SetActive(ctx context.Context, id string) error {
	return f.fail(func() error { return f.Tenant.SetActive(ctx, id) })
}

// TestFaultsOfTenant: likewise each call of the tenant.
func TestFaultsOfTenant(t *testing.T) {
	made := sealed(t)
	clean := newUploader(t, made)
	count := &faultyTenant{Tenant: clean.cloud.Tenant()}
	if err := clean.run(t.Context(), ceremony.ByPractice, clean.end.Transport(), count); err != nil {
		t.Fatal(err)
	}
	want := clean.holds(t)
	for at := 1; at <= count.calls; at++ {
		for _, after := range []bool{false, true} {
			u := newUploader(t, made)
			first := u.run(t.Context(), ceremony.ByPractice, u.end.Transport(), &faultyTenant{Tenant: u.cloud.Tenant(), at: at, after: after})
			if !control.Is(first, control.RMSFailed) {
				t.Errorf("call %d, after %v: got %v", at, after, first)
			}
			if err := u.run(t.Context(), ceremony.ByPractice, u.end.Transport(), u.cloud.Tenant()); err != nil {
				t.Errorf("call %d, after %v: the second run: %v", at, after, err)
			} else if got := u.holds(t); got != want {
				t.Errorf("call %d, after %v: the end differs:\n%s\nwant:\n%s", at, after, got, want)
			}
		}
	}
	if count.calls < 5 {
		t.Errorf("%d calls", count.calls)
	}
	t.Logf("count: %d calls, each failing before and after: %d cases", count.calls, 2*count.calls)
}

// TestRefusedForAWhile: a refusal that passes is not in the journal for good, and
// one of a later run takes nothing back of a key that has arrived.
func TestRefusedForAWhile(t *testing.T) {
	u := newUploader(t, sealed(t))
	for i, run := range []struct {
		tenant          tenant.Tenant
		fails, refused  bool
		tenantHasStatus string
	}{
		{&faultyTenant{Tenant: u.cloud.Tenant(), at: 3}, true, true, ""}, // the import
		{u.cloud.Tenant(), false, false, ceremony.StatusActive},
		{&faultyTenant{Tenant: u.cloud.Tenant(), at: 2}, true, false, ceremony.StatusActive},
		{u.cloud.Tenant(), false, false, ceremony.StatusActive},
	} {
		if err := u.run(t.Context(), ceremony.ByPractice, u.end.Transport(), run.tenant); (err != nil) != run.fails {
			t.Fatalf("run %d: %v", i, err)
		}
		s, err := state.Open(filepath.Join(u.dir, "T"), state.Online, ceremony.Self)
		if err != nil {
			t.Fatal(err)
		}
		j, err := ceremony.ReadJournal(s.Ledger)
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		if refused := j.Refused["contoso-slc"] != ""; refused != run.refused || j.Key("contoso-slc").Tenant != run.tenantHasStatus {
			t.Errorf("run %d: refused %v, %+v", i, refused, j.Key("contoso-slc"))
		}
	}
}

// quietTenant shows neither key URLs nor public keys.
type quietTenant struct{ tenant.Tenant }

func (q quietTenant) Keys(ctx context.Context) ([]tenant.Key, error) {
	keys, err := q.Tenant.Keys(ctx)
	for i := range keys {
		keys[i].KeyURL, keys[i].PublicKey = "", nil
	}
	return keys, err
}

// TestQuietTenant: a key that the ledger knows to be imported is known again by
// its identifier; a foreign one is not taken for it.
func TestQuietTenant(t *testing.T) {
	made := sealed(t)
	u := newUploader(t, made)
	for range 2 {
		if err := u.run(t.Context(), ceremony.ByPractice, u.end.Transport(), quietTenant{u.cloud.Tenant()}); err != nil {
			t.Fatal(err)
		}
	}
	other := newUploader(t, made)
	tenant := &faultyTenant{Tenant: other.cloud.Tenant(), at: 3, after: true} // imported, and nobody knows
	if err := other.run(t.Context(), ceremony.ByPractice, other.end.Transport(), tenant); !control.Is(err, control.RMSFailed) {
		t.Fatal(err)
	}
	if err := other.run(t.Context(), ceremony.ByPractice, other.end.Transport(), quietTenant{other.cloud.Tenant()}); !control.Is(err, control.RMSKeyExists) {
		t.Errorf("got %v", err)
	}
}
