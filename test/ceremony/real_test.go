// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyferry/test/aipservice"
	"keyferry/test/entra"
	"keyferry/test/memdir"
	"keyferry/test/scripttest"
	"keyferry/test/vectors"
)

// real is a ceremony that is no rehearsal: a token that is named by its module, a
// vault and Microsoft Entra behind a proxy that inspects TLS, and a tenant behind a
// real PowerShell with a stand-in of the AIPService module, or behind a kit. Its
// bundle has a key for the vault and one of 1024 bits, under their vectors' names.
type real struct {
	*rehearsal
	azure  *entra.Azure
	module *aipservice.Module
	keys   []vectors.TPD
	env    []string
}

var signIn = []string{"--credential", "client-secret", "--azure-tenant", entra.Tenant, "--azure-client", entra.Client, "--azure-secret-file", "secret"}

// beginReal plays it up to the bundle, for that way into the tenant, with more flags at
// the disconnected side's init.
func beginReal(t *testing.T, way string, init ...string) *real {
	t.Helper()
	if _, err := os.Stat(scripttest.Module); err != nil {
		t.Skipf("SoftHSM is not installed (Debian: softhsm2): %v", err)
	}
	r := &real{rehearsal: &rehearsal{t, memdir.New(t)}, module: aipservice.New(t, aipservice.Version), keys: []vectors.TPD{vectors.OneTPD(t, "contoso-mode2"), vectors.OneTPD(t, "contoso-mode1")}}
	var err error
	if r.azure, err = entra.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.azure.Close() })
	for _, dir := range []string{"stick", "tokens"} {
		if err := os.Mkdir(r.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.write("proxy-ca.pem", r.azure.CA)
	r.write("secret", []byte(entra.Secret+"\n"))
	r.write("pin", []byte("123456\n"))
	r.write("softhsm2.conf", []byte("directories.tokendir = "+r.path("tokens")+"\n"))
	r.env = append(os.Environ(), r.azure.Environment(r.path("proxy-ca.pem"))...)
	r.env = append(r.env, "SOFTHSM2_CONF="+r.path("softhsm2.conf"), "SystemRoot=", "PATH="+filepath.Dir(r.module.Path())+":"+os.Getenv("PATH"))

	r.do("softhsm2-util", "--init-token", "--free", "--label", "hsm", "--pin", "123456", "--so-pin", "123456")
	r.do("offline", append([]string{"init", "--state", "S", "--hsm-module", scripttest.Module, "--hsm-token", "hsm", "--hsm-pin-file", "pin", "--out", "stick"}, init...)...)
	r.do("online", "init", "--state", "T", "--vault-url", "https://contoso.vault.azure.net", "--region", "EU", "--tenant", way)
	r.do("online", append([]string{"kek", "create", "--state", "T", "--size", "2048", "--out", "stick"}, signIn...)...)
	r.do("online", "trust", "--state", "T", "stick/offline-card-offline.json", "--fingerprint", r.sum("stick/offline-card-offline.json"))
	r.do("offline", "trust", "--state", "S", "stick/BYOK-SecurityWorld-pkg-EU-1", "--fingerprint", r.sum("stick/BYOK-SecurityWorld-pkg-EU-1"))
	kek, err := x509.MarshalPKIXPublicKey(&r.azure.Key("keyferry-kek").PublicKey) // as a second person reads it from the vault
	if err != nil {
		t.Fatal(err)
	}
	carry := []string{"import", "--state", "S", "--kek-fingerprint", fmt.Sprintf("SHA256:%x", sha256.Sum256(kek)), "--hsm-pin-file", "pin", "--wrap", "software", "--unsafe-network-present", "--exchange-key-package", "stick/BYOK-KEK-pkg-EU-1", "--out", "stick"}
	for _, v := range r.keys {
		r.write(v.Name+".xml", v.XML)
		r.write("pw", append(bytes.Clone(v.Password), '\n'))
		carry = append(carry, "--tpd-file-path", v.Name+".xml", "--key-identifier", v.Name)
		if v.Bits == 1024 {
			carry = append(carry, "--microsoft-managed")
		}
	}
	r.do("offline", append(carry, "--protection-password-file", "pw")...)
	r.do("online", "package", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "transfer")
	if byok := r.read("transfer", "KeyTransferPackage-"+r.keys[0].Name+".byok"); !regexp.MustCompile(`"generator": "keyferry offline, \S.*; source HSM: SoftHSM project SoftHSM v2, firmware [0-9.]+"`).Match(byok) {
		t.Errorf("the generator in %s", byok)
	}
	for i, v := range r.keys {
		public, err := x509.MarshalPKIXPublicKey(&v.Key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		file, url := "no_key_tpd_"+v.Name+".xml", aipservice.AnyKeyURL
		if i == 1 {
			file, url = "tpd_with_key_"+v.Name+".xml", ""
		}
		r.module.Knows(aipservice.TPD{File: r.read("transfer", file), GUID: strings.ToLower(strings.Trim(v.GUID, "{}")), Password: string(v.Password), PublicKey: public, KeyURL: url})
	}
	return r
}

// do runs a program that has to succeed, and returns all that it said.
func (r *real) do(name string, args ...string) string {
	r.Helper()
	said, code := r.try(name, args...)
	if code != 0 {
		r.Fatalf("%s %s: exit code %d\n%s", name, strings.Join(args, " "), code, said)
	}
	return said
}

func (r *real) try(name string, args ...string) (said string, code int) {
	r.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	if strings.Contains(string(out), entra.Secret) || regexp.MustCompile(`eyJ\w+\.`).Match(out) {
		r.Errorf("%s %s shows a secret or a token:\n%s", name, args[0], out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (r *real) upload() []string {
	return append([]string{"upload", "--state", "T", "--yes", "stick/keyferry-offline-1.kfb", "--active", r.keys[0].Name, "--protection-password-file", "pw"}, signIn...)
}

// end carries the receipt back, and wants the key that travelled in the vault once,
// both TPDs in the tenant, and both ledgers to know it.
func (r *real) end() {
	r.Helper()
	r.do("online", "receipt", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "stick")
	r.do("offline", "receipt", "--state", "S", "stick/keyferry-online-1.kfb")
	ids := r.azure.Versions(r.keys[0].Name)
	if len(ids) != 1 || !r.azure.Key(r.keys[0].Name).Equal(r.keys[0].Key) {
		r.Errorf("the vault has %q", ids)
	}
	if got := r.module.Keys(); strings.Count(got, "\n") != 2 || strings.Count(got, " Active Customer-managed (BYOK) ") != 1 || strings.Count(got, " Archived Microsoft-managed ") != 1 {
		r.Errorf("the tenant has\n%s", got)
	}
	for program, state := range map[string]string{"offline": "S", "online": "T"} {
		var s status
		cmd := exec.Command(program, "status", "--state", state, "--json")
		cmd.Dir, cmd.Env = r.dir, r.env
		out, err := cmd.Output()
		if err != nil {
			r.Fatalf("%s status: %v", program, err)
		}
		r.parse(out, &s)
		if len(s.Keys) != 2 || s.Keys[0].Tenant != "Active" || s.Keys[1].Tenant != "Archived" || s.Keys[0].KeyURL != ids[0] || s.Keys[1].KeyURL != "" {
			r.Errorf("%s knows %+v", program, s.Keys)
		}
	}
}

// TestRealByPowerShell: both sizes of keys in one bundle, to the closed ledger; the
// same upload again changes nothing.
func TestRealByPowerShell(t *testing.T) {
	t.Parallel()
	r := beginReal(t, "powershell")
	r.do("online", append([]string{"doctor", "--state", "T"}, signIn...)...)
	r.do("online", r.upload()...)
	if said := r.do("online", r.upload()...); !strings.Contains(said, "nothing was changed") {
		t.Errorf("again:\n%s", said)
	}
	r.end()
	if calls := r.module.Calls(); strings.Count(calls, "import ") != 2 || strings.Count(calls, "activate ") != 1 {
		t.Errorf("calls:\n%s", calls)
	}
}

// TestRealByKit: a person runs the kit, and its result closes the ledger too. The
// owner of the vault wants an expiry and a tag of each key.
func TestRealByKit(t *testing.T) {
	t.Parallel()
	r := beginReal(t, "kit")
	r.azure.Answer("policy")
	if said, code := r.try("online", r.upload()...); code != 1 || !strings.Contains(said, "a policy of Azure (not a missing role)") {
		t.Errorf("exit code %d:\n%s", code, said)
	}
	said, code := r.try("online", append(r.upload(), "--out", "the kit [1] é", "--key-expires", "400", "--key-tag", "owner=rms")...)
	if !strings.Contains(said, "az keyvault update --name contoso --bypass AzureServices") {
		t.Errorf("the plan does not name the way past the firewall:\n%s", said)
	}
	if code != 4 || !strings.Contains(said, "KF-RMS-BY-HAND") {
		t.Fatalf("exit code %d:\n%s", code, said)
	}
	if got := r.azure.Of(r.keys[0].Name); !strings.Contains(got, "exp:") || !strings.Contains(got, "owner:rms") {
		t.Errorf("the key in the vault: %s", got)
	}
	shown, code := r.module.RunKit(r.path("the kit [1] é"), func(string) string { return string(r.keys[0].Password) })
	if code != 0 {
		t.Fatalf("the kit ends with %d:\n%s", code, shown)
	}
	take := []string{"upload", "--state", "T", "stick/keyferry-offline-1.kfb", "--active", r.keys[0].Name, "--result", "the kit [1] é/keyferry-result.json", "--yes"}
	if said, code := r.try("online", take...); code != 4 || !strings.Contains(said, "KF-RUN-CONFIRM") {
		t.Errorf("a result whose digest nobody gave: exit code %d:\n%s", code, said)
	}
	digest := ""
	for _, row := range regexp.MustCompile(`(?m)^ +\d+   ((?:[0-9a-f]{2} ){8})`).FindAllStringSubmatch(shown, -1) {
		digest += row[1]
	}
	if said, code := r.try("online", append(take, "--result-digest", strings.Repeat("0", 64))...); code != 1 || !strings.Contains(said, "KF-TRUST-FINGERPRINT") {
		t.Errorf("another digest: exit code %d\n%s", code, said)
	}
	r.do("online", append(take, "--result-digest", digest)...)
	r.end()
}

// TestRealClocks: a bundle that was sealed before the KEK's package was made, or later than
// now, and a receipt that was sealed before its bundle, or later than now, are refused
// with the clock first; the override is recorded.
func TestRealClocks(t *testing.T) {
	t.Parallel()
	r := beginReal(t, "kit", "--signer", "file")
	const year = 365 * 24 * time.Hour
	redated := func(file, state string, by time.Duration) {
		t.Helper()
		data, err := scripttest.Redate(r.read("stick", file), r.path(state), time.Now().Add(by))
		if err != nil {
			t.Fatal(err)
		}
		r.write("redated.kfb", data)
	}
	refuses := func(says, program string, args ...string) {
		t.Helper()
		said, code := r.try(program, args...)
		if code != 3 || !strings.Contains(said, says) || !strings.Contains(said, "[KF-RUN-CLOCK]") || !strings.Contains(said, "hint: set this machine's clock first") {
			t.Errorf("%s %s: exit code %d, want 3 and %q\n%s", program, args[0], code, says, said)
		}
	}
	recorded := func(program, state string, want int) {
		t.Helper()
		if said := r.do(program, "transcript", "--state", state); strings.Count(said, "  clock\n") != want {
			t.Errorf("%s: not %d records of a clock in\n%s", program, want, said)
		}
	}
	upload := func(bundle string, more ...string) []string {
		return append(append([]string{"upload", "--state", "T", "--yes", "--dry-run", bundle, "--protection-password-file", "pw"}, signIn...), more...)
	}
	redated("keyferry-offline-1.kfb", "S", -year)
	refuses("which is before the KEK package was made, ", "online", upload("redated.kfb")...)
	refuses("which is before the KEK package was made, ", "online", "verify", "--state", "T", "redated.kfb")
	redated("keyferry-offline-1.kfb", "S", year)
	refuses("this machine's clock says ", "online", upload("redated.kfb")...)
	recorded("online", "T", 0)
	r.do("online", upload("redated.kfb", "--clock-is-right")...)
	recorded("online", "T", 1)

	if said, code := r.try("online", r.upload()...); code != 4 {
		t.Fatalf("exit code %d\n%s", code, said)
	}
	r.do("online", "receipt", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "stick")
	redated("keyferry-online-1.kfb", "T", year)
	refuses("which is before the receipt was sealed, ", "offline", "receipt", "--state", "S", "redated.kfb")
	redated("keyferry-online-1.kfb", "T", -year)
	refuses("which is before its bundle was sealed, ", "offline", "receipt", "--state", "S", "redated.kfb")
	recorded("offline", "S", 0)
	if said := r.do("offline", "receipt", "--state", "S", "redated.kfb", "--clock-is-right"); !strings.Contains(said, "accepted by --clock-is-right [KF-RUN-CLOCK]") {
		t.Errorf("not warned of\n%s", said)
	}
	recorded("offline", "S", 1)
}

// TestRealKilled: killed at each exchange with Entra and the vault, before it takes
// effect and after, the same upload ends as if nothing had been.
func TestRealKilled(t *testing.T) {
	t.Parallel()
	r := beginReal(t, "kit")
	for at, kills := 1, true; kills; at++ {
		for _, after := range []bool{false, true} {
			if r.killedAt(at, after) {
				continue
			}
			kills = false
			t.Logf("count: an upload makes %d exchanges, and was killed before and after each", at-1)
		}
	}
}

// killedAt plays the upload in a copy with another vault, and reports whether there was
// such an exchange.
func (r *real) killedAt(at int, after bool) bool {
	r.Helper()
	c := *r
	c.rehearsal = &rehearsal{r.T, memdir.Copy(r.T, r.dir)}
	var err error
	if c.azure, err = r.azure.Fork(); err != nil {
		r.Fatal(err)
	}
	var killed atomic.Bool
	cmd := exec.Command("online", c.upload()...)
	c.azure.Exchange = func(n int, _ string, isAfter bool) bool {
		if n == at && isAfter == after && killed.CompareAndSwap(false, true) {
			cmd.Process.Kill()
			return false
		}
		return true
	}
	defer c.azure.Close()
	c.env = append(append([]string(nil), r.env...), c.azure.Environment(r.path("proxy-ca.pem"))...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, _ := cmd.CombinedOutput() // how it ended, the exit code says
	code := cmd.ProcessState.ExitCode()
	if !killed.Load() {
		if code != 4 {
			r.Fatalf("exchange %d: exit code %d\n%s", at, code, out)
		}
		return false
	}
	said, code := c.try("online", c.upload()...)
	if code != 4 || !strings.Contains(said, "KF-RMS-BY-HAND") {
		r.Errorf("killed at exchange %d, after %v, then again: exit code %d\n%s", at, after, code, said)
	}
	if ids := c.azure.Versions(r.keys[0].Name); len(ids) != 1 || !c.azure.Key(r.keys[0].Name).Equal(r.keys[0].Key) {
		r.Errorf("killed at exchange %d, after %v: the vault has %q", at, after, ids)
	}
	return true
}

// TestRealKilledInTheTenant: killed at each call of the module, before it takes effect
// and after, the same upload ends as if nothing had been; and no PowerShell imports on.
func TestRealKilledInTheTenant(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"connect", "keys", "import", "imported", "activate"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			r := beginReal(t, "powershell")
			r.module.Order(call, "kill", "")
			said, code := r.try("online", r.upload()...)
			if code != -1 {
				t.Fatalf("it was not killed, but ended with %d:\n%s", code, said)
			}
			r.module.Obey()
			r.do("online", r.upload()...)
			r.end()
			if calls := r.module.Calls(); call == "imported" && strings.Count(calls, "import ") != 2 || strings.Contains(calls, "behind the back") {
				t.Errorf("calls:\n%s", calls)
			}
		})
	}
}
