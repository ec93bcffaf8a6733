// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyferry/online/internal/practice"
	"keyferry/online/internal/tenant"
	"keyferry/online/internal/tenant/tenanttest"
	"keyferry/online/internal/vault"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

func TestMain(m *testing.M) { os.Exit(tenanttest.Main(m.Run)) }

// standInAt makes a stand-in for powershell.exe with a practice cloud that has
// the sample's key in its vault, and returns its path and what to import.
func standInAt(t *testing.T, mode string) (string, tenant.TPDImport, vectors.TPD) {
	t.Helper()
	dir := t.TempDir()
	path := tenanttest.Link(t, dir, mode)
	t.Setenv("TMPDIR", t.TempDir())
	v := vectors.OneTPD(t, "contoso-mode2")
	return path, tenant.TPDImport{
		TPD: keyless(t, v), Password: []byte(v.Password), FriendlyName: "Contoso \"RMS\" \u2019 é", KeyURL: inVault(t, filepath.Join(dir, "practice"), v),
	}, v
}

func keyless(t *testing.T, v vectors.TPD) []byte {
	t.Helper()
	export, err := tpd.Parse(v.XML)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Join(export.Keyless(tpd.OmitElement), nil)
}

// inVault brings the sample's key into the practice vault kept in dir.
func inVault(t *testing.T, dir string, v vectors.TPD) string {
	t.Helper()
	cloud, err := practice.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := cloud.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer endpoint.Close()
	client, err := vault.New(endpoint.URL(), endpoint.Credential(), endpoint.Transport())
	if err != nil {
		t.Fatal(err)
	}
	kek, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek", Bits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, err := byok.Wrap(rand.Reader, v.Key, kek.Public)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := byok.Marshal(kek.KID, ciphertext, "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.ImportKey(t.Context(), vault.Import{Name: "tenant", Blob: blob, Want: &v.Key.PublicKey})
	if err != nil {
		t.Fatal(err)
	}
	return key.KID
}

func start(t *testing.T, path string) (*tenant.PowerShell, *[]string) {
	t.Helper()
	said := new([]string)
	// The test's own context ends before its clean-up.
	p, err := tenant.Start(context.Background(), path, func(line string) { *said = append(*said, line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, said
}

func holds(t *testing.T, err error, want control.Control, part string) {
	t.Helper()
	if !control.Is(err, want) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %s with %q", err, want.ID, part)
	}
}

// TestSession: a TPD goes in, becomes active, and its password shows nowhere.
func TestSession(t *testing.T) {
	path, in, v := standInAt(t, "")
	p, said := start(t, path)
	if got := p.Versions(); got.Module != "3.0.0.1" || got.Edition != "Desktop" {
		t.Errorf("versions: %+v", got)
	}
	for _, cloud := range []string{"public", "china", "usgov"} {
		if err := p.Connect(t.Context(), cloud); err != nil {
			t.Error(err)
		}
	}
	holds(t, p.Connect(t.Context(), "mars"), control.RMSSignIn, "mars")
	if keys, err := p.Keys(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("at first: %v, %v", keys, err)
	}
	made, err := p.ImportTPD(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if made.FriendlyName != in.FriendlyName || made.Status != tenant.Archived || made.KeyType != tenant.CustomerManaged || made.KeyURL != in.KeyURL || !made.Holds(&v.Key.PublicKey) {
		t.Errorf("imported %+v", made)
	}
	if made.Holds(&vectors.OneTPD(t, "contoso-anyone").Key.PublicKey) {
		t.Error("the key holds another key's modulus")
	}
	for range 2 { // a key that is active stays so
		if err := p.SetActive(t.Context(), made.KeyIdentifier); err != nil {
			t.Error(err)
		}
	}
	if keys, err := p.Keys(t.Context()); err != nil || len(keys) != 1 || keys[0].Status != tenant.Active || keys[0].KeyIdentifier != made.KeyIdentifier {
		t.Errorf("in the end: %v, %v", keys, err)
	}
	if len(*said) == 0 || !strings.Contains((*said)[0], "connection") {
		t.Errorf("what cmdlets show is lost: %q", *said)
	}
}

// TestSessionMicrosoftManaged: a TPD with its key goes in without a key URL.
func TestSessionMicrosoftManaged(t *testing.T) {
	path, _, _ := standInAt(t, "")
	p, _ := start(t, path)
	v := vectors.OneTPD(t, "contoso-mode1")
	made, err := p.ImportTPD(t.Context(), tenant.TPDImport{TPD: v.XML, Password: v.Password, MicrosoftManaged: true})
	if err != nil {
		t.Fatal(err)
	}
	if made.Status != tenant.Archived || made.KeyType != tenant.MicrosoftManaged || made.KeyURL != "" || !made.Holds(&v.Key.PublicKey) {
		t.Errorf("imported %+v", made)
	}
}

func TestSessionRefusals(t *testing.T) {
	path, in, _ := standInAt(t, "")
	p, said := start(t, path)
	for _, test := range []struct {
		name    string
		bend    func(in *tenant.TPDImport)
		control control.Control
		part    string
	}{
		{"wrong password", func(in *tenant.TPDImport) { in.Password = []byte("another one") }, control.RMSCorrupted, "(400)"},
		{"cut", func(in *tenant.TPDImport) { in.TPD = in.TPD[:100] }, control.RMSCorrupted, "cannot open"},
		{"no right on the key", func(in *tenant.TPDImport) { in.KeyURL += "0" }, control.RMSKeyURL, "cannot use the key"},
		{"no key URL", func(in *tenant.TPDImport) { in.KeyURL = "" }, control.RMSKeyURL, "URL"},
		{"a key URL for a key inside", func(in *tenant.TPDImport) { in.MicrosoftManaged = true }, control.RMSKeyURL, "URL"},
		{"no password", func(in *tenant.TPDImport) { in.Password = nil }, control.SecretEmpty, ""},
		{"two lines", func(in *tenant.TPDImport) { in.Password = []byte("a\nactivate x") }, control.SecretEmpty, ""},
		{"not UTF-8", func(in *tenant.TPDImport) { in.Password = []byte("a\xff") }, control.SecretEmpty, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := in
			test.bend(&in)
			_, err := p.ImportTPD(t.Context(), in)
			holds(t, err, test.control, test.part)
			if len(in.Password) > 3 && strings.Contains(err.Error(), string(in.Password)) {
				t.Error("the password is in the error")
			}
		})
	}
	if !strings.Contains(strings.Join(*said, "\n"), "data is corrupted") {
		t.Errorf("-Verbose said %q", *said)
	}
	holds(t, p.SetActive(t.Context(), "00000000-0000-0000-0000-000000000000"), control.RMSKeyMissing, "0000")
	if _, err := p.ImportTPD(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	_, err := p.ImportTPD(t.Context(), in)
	holds(t, err, control.RMSFailed, "cannot do that") // a text that nobody knows
}

// TestPowerShellIsChecked: what the module does not run in is refused before
// anything else.
func TestPowerShellIsChecked(t *testing.T) {
	for mode, want := range map[string]control.Control{
		"core": control.RMSPowerShell, "old": control.RMSPowerShell, "framework": control.RMSPowerShell,
		"module": control.RMSModule, "old module": control.RMSModule,
		"dies": control.RMSFailed, "garbage": control.RMSFailed, "long": control.RMSFailed,
	} {
		t.Run(mode, func(t *testing.T) {
			path, _, _ := standInAt(t, mode)
			_, err := tenant.Start(t.Context(), path, nil)
			holds(t, err, want, "")
			if mode == "dies" && !strings.Contains(err.Error(), "out of memory") {
				t.Errorf("what it said is lost: %v", err)
			}
		})
	}
	_, err := tenant.Start(t.Context(), filepath.Join(t.TempDir(), "powershell.exe"), nil)
	holds(t, err, control.RMSPowerShell, "does not start")
}

func TestFindPowerShell(t *testing.T) {
	path, _, _ := standInAt(t, "")
	t.Setenv("SystemRoot", "")
	t.Setenv("PATH", filepath.Dir(path))
	if found, err := tenant.FindPowerShell(); err != nil || found != path {
		t.Errorf("got %s, %v", found, err)
	}
	t.Setenv("PATH", t.TempDir())
	_, err := tenant.FindPowerShell()
	holds(t, err, control.RMSPowerShell, "no Windows PowerShell")

	root := t.TempDir()
	t.Setenv("SystemRoot", root)
	own := filepath.Join(root, "System32", "WindowsPowerShell", "v1.0", "powershell.exe")
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if found, err := tenant.FindPowerShell(); err != nil || found != own {
		t.Errorf("got %s, %v", found, err)
	}
}

func TestSignInFails(t *testing.T) {
	path, _, _ := standInAt(t, "sign-in")
	p, _ := start(t, path)
	holds(t, p.Connect(t.Context(), "public"), control.RMSSignIn, "AADSTS50076")
}

// TestInterrupted: an end of the context ends a session that hangs.
func TestInterrupted(t *testing.T) {
	path, _, _ := standInAt(t, "hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := tenant.Start(ctx, path, nil)
	holds(t, err, control.RMSFailed, "")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestTheStandInFindsLeaks: a password where none may be fails an import.
func TestTheStandInFindsLeaks(t *testing.T) {
	for name, leak := range map[string]func(password string){
		"environment": func(password string) { t.Setenv("KEYFERRY_TEST_LEAK", password) },
		"file": func(password string) {
			if err := os.WriteFile(filepath.Join(os.TempDir(), "leak"), []byte("x"+password), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		path, in, _ := standInAt(t, "")
		leak(string(in.Password))
		p, err := tenant.Start(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ImportTPD(t.Context(), in); !control.Is(err, control.RMSFailed) {
			t.Errorf("%s: not found: %v", name, err)
		}
		if err := p.Close(); err == nil || !strings.Contains(err.Error(), "a password is in") {
			t.Errorf("%s: got %v", name, err)
		}
		t.Setenv("KEYFERRY_TEST_LEAK", "")
	}
}
