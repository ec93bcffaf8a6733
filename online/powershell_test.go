// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant/tenanttest"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// withStandIn puts the stand-in for powershell.exe on the path, on the practice
// cloud of the uploader.
func withStandIn(t *testing.T, u *uploader, mode string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(u.dir, "T", "practice"), filepath.Join(dir, "practice")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SystemRoot", "")
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("PATH", filepath.Dir(tenanttest.Link(t, dir, mode)))
}

// TestUploadByPowerShell: the TPD goes into the tenant through the module's
// cmdlets; what they say is shown, and the password is nowhere.
func TestUploadByPowerShell(t *testing.T) {
	u := newUploader(t, sealed(t))
	withStandIn(t, u, "")
	for range 2 {
		if err := u.run(t.Context(), ceremony.ByPowerShell, u.end.Transport(), nil); err != nil {
			t.Fatalf("%v\n%s", err, u.said.String())
		}
	}
	if got := u.holds(t); !strings.Contains(got, "receipt: contoso-slc Active by powershell\n") || strings.Count(got, "tenant: ") != 1 {
		t.Error(got)
	}
	if said := u.said.String(); !strings.Contains(said, "AIPService: ") || !strings.Contains(said, "plan: sign out of Azure RMS") || strings.Contains(said, samplePassword) {
		t.Errorf("it said\n%s", said)
	}
	ledger, err := os.ReadFile(filepath.Join(u.dir, "T", "ledger.jsonl"))
	if err != nil || strings.Contains(string(ledger), samplePassword) {
		t.Errorf("the ledger: %v", err)
	}
}

// TestPowerShellStopsTheUpload: what stands in the module's way is told before
// anything is changed.
func TestPowerShellStopsTheUpload(t *testing.T) {
	made := sealed(t)
	for mode, want := range map[string]control.Control{
		"core": control.RMSPowerShell, "module": control.RMSModule, "sign-in": control.RMSSignIn, "garbage": control.RMSFailed,
	} {
		t.Run(mode, func(t *testing.T) {
			u := newUploader(t, made)
			before := u.holds(t)
			withStandIn(t, u, mode)
			if err := u.run(t.Context(), ceremony.ByPowerShell, u.end.Transport(), nil); !control.Is(err, want) {
				t.Errorf("got %v, want %s", err, want.ID)
			}
			if got := u.holds(t); got != before {
				t.Errorf("it changed\n%s", got)
			}
		})
	}
}

// examine runs the doctor on the tenant by PowerShell, and returns its findings.
func examine(t *testing.T, u *uploader) (findings string, failed error) {
	t.Helper()
	app := &cli.App{Name: "online", Commands: []cli.Command{{Name: "test", Setup: func(*pflag.FlagSet) cli.Run {
		return func(ctx context.Context, io *cli.IO, _ []string) error {
			failed = withState(io, func(s *state.State) error {
				client, err := vault.New(u.end.URL(), u.end.Credential(), u.end.Transport())
				if err != nil {
					return err
				}
				d := &doctor{io: io, way: ceremony.ByPowerShell}
				d.lookAtVault(ctx, client, defaultKEK)
				d.lookAtTenant(ctx, ceremony.Cloud{Vault: client, Azure: "public"})
				for _, c := range d.checks {
					findings += strings.TrimSpace(c.Result+" "+c.Name+" "+c.Control) + "\n"
				}
				return d.report(s)
			})
			return failed
		}
	}}}}
	app.Run(t.Context(), []string{"test", "--state", filepath.Join(u.dir, "T")}, strings.NewReader(""), &u.said, &u.said)
	return findings, failed
}

// TestDoctorLooksAtPowerShell, and stops the day where it would.
func TestDoctorLooksAtPowerShell(t *testing.T) {
	made := sealed(t)
	for mode, want := range map[string]string{
		"":        "ok Windows PowerShell\nok AIPService module\nok sign in to Azure RMS\nok keys of the tenant\n",
		"module":  "fail Windows PowerShell KF-RMS-MODULE\n",
		"core":    "fail Windows PowerShell KF-RMS-POWERSHELL\n",
		"sign-in": "ok AIPService module\nfail sign in to Azure RMS KF-RMS-SIGN-IN\n",
	} {
		t.Run(mode, func(t *testing.T) {
			u := newUploader(t, made)
			withStandIn(t, u, mode)
			got, err := examine(t, u)
			if !strings.Contains(got, want) || !strings.Contains(got, "ok KEK keyferry-kek\n") || !strings.Contains(got, "warn right of Azure RMS on the keys\n") {
				t.Errorf("got\n%s", got)
			}
			if stops := control.Is(err, control.CloudNotReady); stops != strings.Contains(want, "fail") {
				t.Errorf("ends with %v", err)
			}
		})
	}
}
