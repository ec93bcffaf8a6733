// SPDX-License-Identifier: Apache-2.0

package byok

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"keyferry/test/vectors"
)

// OpenSSL alone opens a ciphertext, and makes a ciphertext that Unwrap opens.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: apt-get install openssl")
	}
	kek := keys[3072]()
	key := vectors.OneTPD(t, "contoso-mode2").Key
	der := pkcs8(t, key)
	dir := t.TempDir()
	write(t, dir, "kek.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, kek)}))
	oaep := []string{"-inkey", "kek.pem", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1"}
	kwp := []string{"enc", "-id-aes256-wrap-pad", "-iv", "A65959A6"}

	t.Run("opens ours", func(t *testing.T) {
		ciphertext, err := Wrap(rand.Reader, key, &kek.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "first", ciphertext[:384])
		write(t, dir, "second", ciphertext[384:])
		aesKey := openssl(t, dir, append([]string{"pkeyutl", "-decrypt", "-in", "first"}, oaep...)...)
		if len(aesKey) != 32 {
			t.Fatalf("an AES key of %d bytes", len(aesKey))
		}
		got := openssl(t, dir, append(kwp, "-d", "-K", hex.EncodeToString(aesKey), "-in", "second")...)
		if !bytes.Equal(got, der) {
			t.Errorf("%d bytes came out, not the PKCS#8 of %d", len(got), len(der))
		}
		write(t, dir, "key.der", got)
		openssl(t, dir, "rsa", "-in", "key.der", "-inform", "DER", "-check", "-noout")
	})
	t.Run("ours opens", func(t *testing.T) {
		aesKey := openssl(t, dir, "rand", "32")
		write(t, dir, "aes", aesKey)
		write(t, dir, "key.der", der)
		first := openssl(t, dir, append([]string{"pkeyutl", "-encrypt", "-in", "aes"}, oaep...)...)
		second := openssl(t, dir, append(kwp, "-e", "-K", hex.EncodeToString(aesKey), "-in", "key.der")...)
		got, err := Unwrap(append(first, second...), kek)
		if err != nil || !got.Equal(key) {
			t.Errorf("%v", err)
		}
	})
}

func openssl(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	return out
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}
