// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The package comment's check by ssh-keygen, of both packages.
func TestSSHKeygen(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Fatal("ssh-keygen is missing: apt-get install openssh-client")
	}
	_, kek := pinned(t)
	for name, file := range map[string][]byte{"world": mustSeal(t, online, world(t)), "KEK": mustSeal(t, online, kek)} {
		t.Run(name, func(t *testing.T) {
			var e struct{ Content, Signature string }
			if err := json.Unmarshal(file, &e); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, dir, "content.sig", e.Signature)
			verify := func(signer crypto.Signer, namespace, content string) error {
				write(t, dir, "allowed_signers", "online "+public(t, signer).String()+"\n")
				cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", "online", "-n", namespace, "-s", "content.sig")
				cmd.Dir = dir
				cmd.Stdin = bytes.NewReader([]byte(content))
				return cmd.Run()
			}
			if err := verify(online, "keyferry-package-v1", e.Content); err != nil {
				t.Error(err)
			}
			if verify(stranger, "keyferry-package-v1", e.Content) == nil {
				t.Error("ssh-keygen takes it from another signer")
			}
			if verify(online, "keyferry-package-v1", e.Content+"\n") == nil {
				t.Error("ssh-keygen takes the signature for another content")
			}
			if verify(online, "keyferry-bundle-v2", e.Content) == nil {
				t.Error("ssh-keygen takes the signature for another purpose")
			}
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
