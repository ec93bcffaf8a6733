// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
	"keyferry/test/aipservice"
	"keyferry/test/memdir"
	"keyferry/test/vectors"
)

// withModule makes a tenant that can open the TPD of a bundle, behind the
// stand-in of the AIPService module in a real PowerShell.
func withModule(t *testing.T, made string) *aipservice.Module {
	t.Helper()
	m := aipservice.New(t, aipservice.Version)
	cmd := exec.CommandContext(t.Context(), "online", "package", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "out")
	cmd.Dir = memdir.Copy(t, made)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file, err := os.ReadFile(filepath.Join(cmd.Dir, "out", "no_key_tpd_contoso-slc.xml"))
	v := vectors.OneTPD(t, "contoso-mode2")
	public, err2 := x509.MarshalPKIXPublicKey(&v.Key.PublicKey)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	m.Knows(aipservice.TPD{File: file, GUID: strings.ToLower(strings.Trim(v.GUID, "{}")), Password: samplePassword, PublicKey: public, KeyURL: aipservice.AnyKeyURL})
	return m
}

// onPath has `online` find the module's PowerShell.
func onPath(t *testing.T, m *aipservice.Module, settings ...string) {
	t.Helper()
	t.Setenv("SystemRoot", "")
	t.Setenv("PATH", filepath.Dir(m.Path(settings...))+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// TestUploadByPowerShell: the TPD goes into the tenant through the module's
// cmdlets, once; what they say is shown, and the password is nowhere.
func TestUploadByPowerShell(t *testing.T) {
	made := sealed(t)
	u, m := newUploader(t, made), withModule(t, made)
	onPath(t, m)
	for range 2 {
		if err := u.run(t.Context(), ceremony.ByPowerShell, u.end.Transport(), nil); err != nil {
			t.Fatalf("%v\n%s", err, u.said.String())
		}
	}
	if got := u.holds(t) + m.Keys(); !strings.Contains(got, "receipt: contoso-slc Active by powershell\n") || strings.Count(got, " Active Customer") != 1 {
		t.Error(got)
	}
	if calls := m.Calls(); strings.Count(calls, "import ") != 1 || strings.Count(calls, "activate ") != 1 || strings.Count(calls, "disconnect") != 2 {
		t.Errorf("calls:\n%s", calls)
	}
	if said := u.said.String(); !strings.Contains(said, "AIPService: ") || !strings.Contains(said, "plan: sign out of Azure RMS") || strings.Contains(said, samplePassword) {
		t.Errorf("it said\n%s", said)
	}
	ledger, err := os.ReadFile(filepath.Join(u.dir, "T", "ledger.jsonl"))
	if err != nil || strings.Contains(string(ledger), samplePassword) {
		t.Errorf("the ledger: %v", err)
	}
}

// obstacles are what may stand in the module's way, each with its control.
var obstacles = []struct {
	name    string
	make    func(m *aipservice.Module)
	setting string
	want    control.Control
}{
	{"none", func(*aipservice.Module) {}, "", control.Control{}},
	{"PowerShell 7", func(*aipservice.Module) {}, `JUDGE_PRELUDE=$PSVersionTable["PSEdition"] = "Core"`, control.RMSPowerShell},
	{"constrained language", func(*aipservice.Module) {}, "JUDGE_LANGUAGE=ConstrainedLanguage", control.RMSPowerShell},
	{"no module", func(m *aipservice.Module) { m.Root = filepath.Join(m.Root, "empty") }, "", control.RMSModule},
	{"sign-in", func(m *aipservice.Module) {
		m.Order("connect", "", "AADSTS50076: you must use multi-factor authentication")
	}, "", control.RMSSignIn},
	{"an answer that is none", func(m *aipservice.Module) { m.Order("connect", "console", "keyferry {}") }, "", control.RMSSignIn},
}

// TestPowerShellStopsTheUpload: what stands in the module's way is told before
// anything is changed; the doctor tells it the day before.
func TestPowerShellStopsTheUpload(t *testing.T) {
	made := sealed(t)
	for _, o := range obstacles {
		t.Run(o.name, func(t *testing.T) {
			u, m := newUploader(t, made), withModule(t, made)
			o.make(m)
			onPath(t, m, o.setting)
			before := u.holds(t)
			got, err := examine(t, u)
			if !strings.Contains(got, "ok KEK keyferry-kek\n") || !strings.Contains(got, "warn right of Azure RMS on the keys\n") {
				t.Errorf("the doctor: %s", got)
			}
			if o.want.ID == "" {
				if !strings.Contains(got, "ok Windows PowerShell\nok AIPService module\nok sign in to Azure RMS\nok keys of the tenant\n") || err != nil {
					t.Errorf("the doctor ends with %v:\n%s", err, got)
				}
				return
			}
			if !strings.Contains(got, " "+o.want.ID+"\n") || !control.Is(err, control.CloudNotReady) {
				t.Errorf("the doctor ends with %v:\n%s", err, got)
			}
			if err := u.run(t.Context(), ceremony.ByPowerShell, u.end.Transport(), nil); !control.Is(err, o.want) {
				t.Errorf("got %v, want %s", err, o.want.ID)
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
				d.lookAtTenant(ctx, s, ceremony.Cloud{Vault: client, Azure: "public"})
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
