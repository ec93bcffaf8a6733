// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
	"keyferry/pkg/tpd"
	"keyferry/test/aipservice"
	"keyferry/test/vectors"
)

// heard is what a session told, kind by kind.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) hearer() tenant.Hearer {
	as := func(kind string) func(string) {
		return func(line string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.lines = append(h.lines, kind+": "+line)
		}
	}
	return tenant.Hearer{Detail: as("detail"), Note: as("note"), Warn: as("warning")}
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.lines, "\n")
}

// session is one in a real PowerShell, with the stand-in of the module.
type session struct {
	*tenant.PowerShell
	heard
	scratch string
}

func start(t *testing.T, m *aipservice.Module, settings ...string) *session {
	t.Helper()
	s, err := tryStart(t, m, settings...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryStart(t *testing.T, m *aipservice.Module, settings ...string) (*session, error) {
	t.Helper()
	s := &session{scratch: filepath.Join(t.TempDir(), "scratch")}
	// Not the test's context: that ends before its clean-up.
	p, err := tenant.Start(context.Background(), m.Path(settings...), s.scratch, s.hearer())
	if err == nil {
		s.PowerShell = p
		t.Cleanup(p.Close)
	}
	return s, err
}

func (s *session) connect(t *testing.T) *session {
	t.Helper()
	if err := s.Connect(t.Context(), "public"); err != nil {
		t.Fatal(err)
	}
	return s
}

func holds(t *testing.T, err error, want control.Control, parts ...string) {
	t.Helper()
	if !control.Is(err, want) {
		t.Errorf("got %v, want %s", err, want.ID)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
}

// keyed is an import, and the identifier that its key gets.
type keyed struct {
	KeyIdentifier string
	tenant.TPDImport
}

// keylessOf makes the sample's keyless TPD, which the module's tenant can open.
func keylessOf(t *testing.T, m *aipservice.Module) (keyed, vectors.TPD) {
	t.Helper()
	v := vectors.OneTPD(t, "contoso-mode2")
	export, err := tpd.Parse(v.XML)
	if err != nil {
		t.Fatal(err)
	}
	domain, err := export.Decrypt(v.Password)
	if err != nil {
		t.Fatal(err)
	}
	keyless, err := domain.Keyless(tpd.OmitElement)
	if err != nil {
		t.Fatal(err)
	}
	in := keyed{strings.ToLower(strings.Trim(v.GUID, "{}")), tenant.TPDImport{
		File: "no_key_tpd_contoso.xml", TPD: keyless, Password: []byte(v.Password),
		FriendlyName: "Contoso \"RMS\" \u2019 é $(x) `", KeyURL: "https://contoso.vault.azure.net/keys/slc/0a",
	}}
	knows(t, m, in, v)
	return in, v
}

func managedOf(t *testing.T, m *aipservice.Module) (keyed, vectors.TPD) {
	t.Helper()
	v := vectors.OneTPD(t, "contoso-mode1")
	in := keyed{strings.ToLower(strings.Trim(v.GUID, "{}")), tenant.TPDImport{
		File: "tpd_with_key_old.xml", TPD: v.XML, Password: []byte(v.Password), MicrosoftManaged: true, FriendlyName: "Old",
	}}
	knows(t, m, in, v)
	return in, v
}

func knows(t *testing.T, m *aipservice.Module, in keyed, v vectors.TPD) {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(&v.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	m.Knows(aipservice.TPD{File: in.TPD, GUID: in.KeyIdentifier, Password: string(v.Password), PublicKey: public, KeyURL: in.KeyURL})
}

// TestSession: in each culture both kinds of TPD go in, one becomes active, and
// what the module says beside errors is heard. No import asks for the list.
func TestSession(t *testing.T) {
	for _, culture := range []string{"en-US", "de-DE", "ja-JP", "tr-TR", "th-TH", "fi-FI", "ar-SA"} {
		t.Run(culture, func(t *testing.T) {
			t.Parallel()
			m := aipservice.New(t, aipservice.Version)
			m.Has("00000000-AAAA-BBBB-CCCC-000000000000", "Suspended", "Microsoft-managed", "the tenant's own")
			m.Order("import", "warning", "Templates need a moment.")
			m.Order("import", "console", "no line end")
			m.Order("import", "output", "Imported.")
			m.Order("connect", "long", "5000000")
			in, v := keylessOf(t, m)
			old, _ := managedOf(t, m)
			s := start(t, m, "JUDGE_CULTURE="+culture).connect(t)
			if got := s.Versions(); got.Module != aipservice.Version || got.Edition != "Desktop" {
				t.Errorf("versions: %+v", got)
			}
			for _, in := range []keyed{in, old} {
				if err := s.ImportTPD(t.Context(), in.TPDImport); err != nil {
					t.Fatal(err)
				}
			}
			keys, err := s.Keys(t.Context())
			if err != nil || len(keys) != 3 {
				t.Fatalf("%+v, %v", keys, err)
			}
			if made := keys[1]; made.FriendlyName != in.FriendlyName || made.Status != tenant.Archived || made.KeyType != tenant.CustomerManaged || !made.Holds(&v.Key.PublicKey) || made.CreationTime.Year() != 2026 {
				t.Errorf("imported %+v", made)
			}
			if made := keys[2]; made.KeyType != tenant.MicrosoftManaged || len(made.PublicKey) > 0 || made.KeyURL != "" {
				t.Errorf("imported %+v", made)
			}
			for range 2 { // a key that is active stays so
				if err := s.SetActive(t.Context(), in.KeyIdentifier); err != nil {
					t.Error(err)
				}
			}
			keys, err = s.Keys(t.Context())
			if err != nil || len(keys) != 3 || keys[0].Status != "Suspended" || keys[1].Status != tenant.Active {
				t.Errorf("in the end: %+v, %v", keys, err)
			}
			s.Close()
			for _, part := range []string{"warning: Templates need a moment.", "note: Imported.", "detail: no line end", "note: A connection"} {
				if !strings.Contains(s.String(), part) {
					t.Errorf("%q is not in what was heard:\n%.2000s", part, s.String())
				}
			}
			calls := m.Calls()
			if strings.Count(calls, "activate") != 1 || strings.Count(calls, "disconnect") != 1 || strings.Count(calls, "keys\n") != 4 || !strings.Contains(calls, "module "+aipservice.Version+" ui en-US tls12 True") {
				t.Errorf("calls:\n%s", calls)
			}
			if left, err := os.ReadDir(s.scratch); err == nil {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestSessionRefusals: whatever goes wrong is told by its cause.
func TestSessionRefusals(t *testing.T) {
	const attempt = "The attempt to connect to the Azure Information Protection service failed. Verify that the user name and password you provided are correct, that the service is there, and try again. " +
		"If the problem persists, contact Microsoft Support. The correlation ID is 5fd5b4a6-0b1d-4f6d-9a2c-1c1f2b0d5a11."
	for _, test := range []struct {
		name             string
		call, what, text string
		bend             func(in *tenant.TPDImport)
		want             control.Control
		parts            []string
	}{
		{"sign-in", "connect", "", attempt, nil, control.RMSSignIn, []string{"correlation ID is 5fd5b4a6-0b1d-4f6d-9a2c-1c1f2b0d5a11"}},
		{"proxy", "connect", "web", "The remote server returned an error: (407) Proxy Authentication Required.", nil, control.RMSSignIn, []string{"407"}},
		{"German sign-in", "connect", "denied", "Zugriff verweigert", nil, control.RMSSignIn, []string{"Zugriff verweigert"}},
		{"no such cmdlet, in German", "connect", "missing", "wurde nicht als Name eines Cmdlet erkannt", nil, control.RMSModule, nil},
		{"rights, in German", "keys", "denied", "Zugriff verweigert", nil, control.RMSRights, []string{"Zugriff verweigert"}},
		{"not terminating", "import", "nonterminating", "The service is busy.", nil, control.RMSFailed, []string{"service is busy"}},
		{"wrong password", "", "", "", func(in *tenant.TPDImport) { in.Password = []byte("another one") }, control.RMSCorrupted, []string{"the password does not open", "no_key_tpd_contoso.xml"}},
		{"wrong password, in Japanese", "import", "crypto", "埋め込みは無効なので、削除できません。", nil, control.RMSCorrupted, []string{"the password does not open", "no_key_tpd_contoso.xml"}},
		{"cut", "", "", "", func(in *tenant.TPDImport) { in.TPD = in.TPD[:100] }, control.RMSCorrupted, []string{"cannot open"}},
		{"no right on the key", "", "", "", func(in *tenant.TPDImport) { in.KeyURL += "0" }, control.RMSKeyURL, []string{"cannot use the key"}},
		{"no key URL", "", "", "", func(in *tenant.TPDImport) { in.KeyURL = "" }, control.RMSKeyURL, []string{"URL"}},
		{"a key URL for a key inside", "", "", "", func(in *tenant.TPDImport) { in.MicrosoftManaged = true }, control.RMSKeyURL, []string{"URL"}},
		{"no password", "", "", "", func(in *tenant.TPDImport) { in.Password = nil }, control.SecretEmpty, nil},
		{"two lines", "", "", "", func(in *tenant.TPDImport) { in.Password = []byte("a\nactivate x") }, control.SecretEmpty, nil},
		{"not UTF-8", "", "", "", func(in *tenant.TPDImport) { in.Password = []byte("a\xff") }, control.SecretEmpty, nil},
		{"a text that nobody knows", "import", "", "Nichts geht.", nil, control.RMSFailed, []string{"Nichts geht."}},
		{"crash", "import", "crash", "out of memory", nil, control.RMSFailed, []string{"does not go on", "out of memory"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := aipservice.New(t, aipservice.Version)
			in, _ := keylessOf(t, m)
			if test.call != "" {
				m.Order(test.call, "verbose", "said before")
				m.Order(test.call, test.what, test.text)
			}
			if test.bend != nil {
				test.bend(&in.TPDImport)
			}
			s := start(t, m)
			err := s.Connect(t.Context(), "public")
			if err == nil {
				err = s.ImportTPD(t.Context(), in.TPDImport)
			}
			if err == nil {
				_, err = s.Keys(t.Context())
			}
			holds(t, err, test.want, test.parts...)
			if err != nil && len(in.Password) > 3 && strings.Contains(err.Error(), string(in.Password)) {
				t.Error("the password is in the error")
			}
			if test.call == "connect" && test.what != "missing" && !strings.Contains(err.Error(), "said before") {
				t.Errorf("what -Verbose said is lost: %v", err)
			}
		})
	}
}

// TestPowerShellIsChecked: what no session can run in is refused before anything
// is asked of the tenant.
func TestPowerShellIsChecked(t *testing.T) {
	for _, test := range []struct {
		name, version string
		what, text    string
		setting       string
		want          control.Control
		parts         []string
	}{
		{"constrained language", aipservice.Version, "", "", "JUDGE_LANGUAGE=ConstrainedLanguage", control.RMSPowerShell, []string{"ConstrainedLanguage"}},
		{"PowerShell 7", aipservice.Version, "", "", `JUDGE_PRELUDE=$PSVersionTable["PSEdition"] = "Core"`, control.RMSPowerShell, []string{"not Windows PowerShell"}},
		{"PowerShell 5.0", aipservice.Version, "", "", `JUDGE_PRELUDE=$PSVersionTable["PSVersion"] = [version]"5.0.1"`, control.RMSPowerShell, []string{"5.0.1"}},
		{"old module", "1.0.0.4", "", "", "", control.RMSModule, []string{"1.0.0.4"}},
		{"policy that forbids", aipservice.Version, "security", "AIPService.psm1 cannot be loaded because running scripts is disabled on this system.", "", control.RMSPowerShell, []string{"forbids scripts"}},
		{"mark of the web, in German", aipservice.Version, "security", "Die Datei ist nicht digital signiert.", "JUDGE_PRELUDE=function global:Get-ExecutionPolicy { 'RemoteSigned' }", control.RMSPowerShell, []string{"mark of the web"}},
		{"AllSigned", aipservice.Version, "security", "is not digitally signed", "JUDGE_PRELUDE=function global:Get-ExecutionPolicy { 'AllSigned' }", control.RMSPowerShell, []string{"AllSigned"}},
		{"untrusted publisher", aipservice.Version, "prompt", "PowerShell is in NonInteractive mode.", "", control.RMSPowerShell, []string{"publisher"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := aipservice.New(t, test.version)
			if test.what != "" {
				m.Order("load", test.what, test.text)
			}
			_, err := tryStart(t, m, test.setting)
			holds(t, err, test.want, test.parts...)
			if calls := m.Calls(); calls != "" {
				t.Errorf("the tenant was asked:\n%s", calls)
			}
		})
	}
	t.Run("no module", func(t *testing.T) {
		t.Parallel()
		m := aipservice.New(t, aipservice.Version)
		m.Root = t.TempDir()
		_, err := tryStart(t, m)
		holds(t, err, control.RMSModule, "not installed")
	})
	t.Run("no PowerShell", func(t *testing.T) {
		scratch := filepath.Join(t.TempDir(), "scratch") // with a TPD, as a kill leaves it
		if err := errors.Join(os.Mkdir(scratch, 0o700), os.WriteFile(filepath.Join(scratch, "tpd.xml"), []byte("<x/>"), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := tenant.Start(t.Context(), filepath.Join(t.TempDir(), "powershell.exe"), scratch, tenant.Hearer{})
		holds(t, err, control.RMSPowerShell, "does not start")
		if _, err := os.Stat(scratch); !os.IsNotExist(err) {
			t.Errorf("the scratch directory is still there: %v", err)
		}
	})
}

// TestTheModuleThatWasChecked is loaded, and not an older one in a folder that
// comes first. A search path of another PowerShell does not get through.
func TestTheModuleThatWasChecked(t *testing.T) {
	t.Setenv("PSModulePath", "/nowhere")
	m := aipservice.New(t, aipservice.Version)
	first := t.TempDir()
	m.Install(first, "1.0.0.4")
	s := start(t, m, "JUDGE_MODULES="+first+string(os.PathListSeparator)+m.Root).connect(t)
	if got := s.Versions().Module; got != aipservice.Version || !strings.Contains(m.Calls(), "module "+aipservice.Version) {
		t.Errorf("checked %s; calls:\n%s", got, m.Calls())
	}
}

// TestThePasswordIsNowhere: not in an argument, an environment or a file, while
// it is in use.
func TestThePasswordIsNowhere(t *testing.T) {
	t.Parallel()
	m := aipservice.New(t, aipservice.Version)
	in, _ := keylessOf(t, m)
	m.Order("import", "slow", "700")
	s := start(t, m).connect(t)
	looked := make(chan error)
	go func() { looked <- lookFor(m, s.scratch, string(in.Password)) }()
	if err := s.ImportTPD(t.Context(), in.TPDImport); err != nil {
		t.Error(err)
	}
	if err := <-looked; err != nil {
		t.Error(err)
	}
	if strings.Contains(s.String(), string(in.Password)) {
		t.Error("the password is in what was heard")
	}
}

func lookFor(m *aipservice.Module, scratch, secret string) error {
	var pid int
	for range 600 {
		if _, rest, found := strings.Cut(m.Calls(), "slow "); found {
			if _, err := fmt.Sscan(rest, &pid); err == nil {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	files, err := filepath.Glob(filepath.Join(scratch, "*"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("the scratch directory has %q, %v", files, err)
	}
	for _, path := range append(files, fmt.Sprintf("/proc/%d/cmdline", pid), fmt.Sprintf("/proc/%d/environ", pid), "/proc/self/cmdline", "/proc/self/environ") {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(data, []byte(secret)) {
			return fmt.Errorf("the password is in %s", path)
		}
	}
	return nil
}

// TestTidyingUpFailsNothing: neither a sign-out that fails, nor a temporary TPD
// that can't be deleted, makes a success a failure; the next session sweeps.
func TestTidyingUpFailsNothing(t *testing.T) {
	t.Parallel()
	m := aipservice.New(t, aipservice.Version)
	in, _ := keylessOf(t, m)
	m.Order("import", "hold", "")
	m.Order("disconnect", "", "The session has expired.")
	s := start(t, m).connect(t)
	if err := s.ImportTPD(t.Context(), in.TPDImport); err != nil {
		t.Error(err)
	}
	s.Close()
	for _, part := range []string{"note: a temporary TPD can't be deleted yet", "session has expired"} {
		if !strings.Contains(s.String(), part) {
			t.Errorf("%q is not in:\n%s", part, s.String())
		}
	}
	if err := os.RemoveAll(filepath.Join(s.scratch, "held")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.scratch, in.File), in.TPD, 0o600); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	next, err := tenant.Start(t.Context(), m.Path(), s.scratch, tenant.Hearer{})
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	if _, err := os.Stat(s.scratch); !os.IsNotExist(err) {
		t.Errorf("the scratch directory is still there: %v", err)
	}
}

// TestTheEndIsNotHeld by a helper that the module left running.
func TestTheEndIsNotHeld(t *testing.T) {
	t.Parallel()
	m := aipservice.New(t, aipservice.Version)
	m.Order("connect", "child", "20")
	s := start(t, m).connect(t)
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestInterrupted: the end of the context ends a session that is at work.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	m := aipservice.New(t, aipservice.Version)
	m.Order("connect", "slow", "60000")
	s := start(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := s.Connect(ctx, "public"); err == nil || ctx.Err() == nil {
		t.Errorf("got %v", err)
	}
}

func TestFindPowerShell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "powershell.exe")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
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
