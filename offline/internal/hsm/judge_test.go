// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/offline/internal/module"
)

// pkcs11Tool runs OpenSC's pkcs11-tool, another client, on the test token.
func pkcs11Tool(t *testing.T, path string, args ...string) string {
	t.Helper()
	args = append([]string{"--module", path, "--token-label", testLabel, "--login", "--pin", string(testPIN)}, args...)
	out, err := exec.Command("pkcs11-tool", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("this test needs pkcs11-tool (Debian: apt install opensc): %v\n%s", err, out)
	}
	return string(out)
}

// The kept key, listed and used by another client: what that makes fits the
// vector's public key.
func TestJudgePKCS11Tool(t *testing.T) {
	dir := t.TempDir()
	path, _ := softHSM(t, dir)
	if err := module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN); err != nil {
		t.Fatal(err)
	}
	key := vectorKey(t, "contoso-mode2")
	token := openToken(t, path)
	kept, err := imported(t, token, key).Keep(KeepOptions{Label: "contoso"})
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}

	named := []string{"label:      contoso\n", fmt.Sprintf("ID:         %x\n", kept.ID)}
	for class, want := range map[string][]string{
		"privkey": append(named, "Usage:      decrypt, sign\n", "Access:     sensitive\n"),
		"pubkey":  named,
	} {
		listing := pkcs11Tool(t, path, "--list-objects", "--type", class)
		for _, line := range want {
			if !strings.Contains(listing, line) {
				t.Errorf("%q is not in\n%s", line, listing)
			}
		}
	}

	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	use := func(input []byte, args ...string) []byte {
		t.Helper()
		if err := os.WriteFile(in, input, 0o600); err != nil {
			t.Fatal(err)
		}
		pkcs11Tool(t, path, append(args, "--label", "contoso", "-i", in, "-o", out)...)
		output, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return output
	}
	message, secret := []byte("a message to sign"), []byte("a secret to decrypt")
	digest := sha256.Sum256(message)
	signature := use(message, "--sign", "--mechanism", "SHA256-RSA-PKCS")
	if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
	//lint:ignore SA1019 it is the key that is tested, not the padding
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, &key.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	if opened := use(sealed, "--decrypt", "--mechanism", "RSA-PKCS"); !bytes.Equal(opened, secret) {
		t.Errorf("decrypted to %q", opened)
	}
}
