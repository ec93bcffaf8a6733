// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/fingerprint"
	"keyferry/test/scripttest"
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

func TestMain(m *testing.M) {
	if os.Getenv(insideMark) != "" { // the programs are on the PATH
		os.Exit(m.Run())
	}
	os.Exit(testbin.Main(m))
}

// unasked has the programs look at the token and rehearse an import in it, and compares
// its objects of each class before and after: nothing is stored that was not asked for.
func (s *suite) unasked(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stored := func() (names []string) {
		token, err := open(s.cfg, testPIN)
		if err != nil {
			t.Fatal(err)
		}
		for class := uint(pkcs11.CKO_DATA); class <= pkcs11.CKO_DOMAIN_PARAMETERS; class++ {
			found, err := token.find(class)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range found {
				names = append(names, name(o))
			}
		}
		if err := token.Close(); err != nil {
			t.Error(err)
		}
		slices.Sort(names)
		return names
	}
	before := stored()
	offline := func(code int, args ...string) {
		t.Helper()
		args = append(args, "--state", filepath.Join(dir, "state"), "--unsafe-network-present", "--hsm-abstract-sockets")
		if store := os.Getenv("TPM2_PKCS11_STORE"); store != "" {
			args = append(args, "--hsm-writes", store)
		}
		cmd := exec.Command("offline", args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("offline %q ends with %d, want %d\n%s", args, got, code, out)
		}
		if after := stored(); !slices.Equal(after, before) {
			t.Errorf("offline %q: the token holds %q, and before %q", args, after, before)
		}
	}
	world, err := scripttest.NewWorld(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v := vectors.OneTPD(t, "contoso-mode2")
	pin := write("pin", testPIN)
	chosen := []string{"--hsm-module", s.cfg.Module, "--hsm-token", s.cfg.TokenLabel, "--hsm-pin-file", pin}
	if s.cfg.Parameters != "" {
		chosen = append(chosen, "--hsm-parameters", s.cfg.Parameters)
	}
	comesIn, goesOut := 0, 3 // exit codes
	if len(s.want.imports) == 0 {
		comesIn = 3
	}
	for _, result := range s.want.wraps {
		if result == Exact {
			goesOut = 0
		}
	}
	offline(comesIn, append([]string{"doctor"}, chosen...)...)
	offline(comesIn, append([]string{"doctor", "--hsm-try-store"}, chosen...)...)
	offline(0, append([]string{"init", "--name", "vault-room", "--signer", "file"}, chosen...)...)
	offline(0, "trust", filepath.Join(dir, "BYOK-SecurityWorld-pkg-EU-1"), "--fingerprint", fingerprint.Of(world.Package).String())
	carry := []string{
		"import", "--dry-run", "--hsm-try-store", "--tpd-file-path", write("tpd.xml", v.XML), "--protection-password-file", write("password", v.Password), "--key-identifier", "contoso",
		"--exchange-key-package", filepath.Join(dir, "BYOK-KEK-pkg-EU-1"), "--kek-fingerprint", fingerprint.OfKey(&world.KEK.PublicKey).String(), "--hsm-pin-file", pin,
	}
	offline(comesIn, append(carry, "--wrap", "software")...)
	offline(goesOut, append(carry, "--wrap", "hsm")...)
}

// name names an object in each session alike.
func name(o Object) string {
	return fmt.Sprintf("%d %s %s", o.Class, o.Label, o.ID)
}
