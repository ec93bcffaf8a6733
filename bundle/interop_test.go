// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// stockTools are what an auditor opens a bundle with, and the Debian packages
// that bring them.
var stockTools = map[string]string{
	"tar": "tar", "ssh-keygen": "openssh-client", "sha256sum": "coreutils", "age": "age", "zstd": "zstd",
}

// A bundle opens with stock tools alone, by the commands of the package
// comment. This test calls nothing of ours but Seal.
func TestStockTools(t *testing.T) {
	for tool, pkg := range stockTools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	id := identity(t)
	openWithStockTools(t, "age", id.String(), id.Recipient())
}

// The hybrid recipient needs age from 1.3 on, which Debian 12 does not have:
// this one is built from the module that Keyferry uses as a library.
func TestStockToolsHybrid(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-modfile=tools/go.mod", "-o", dir, "filippo.io/age/cmd/age")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, out)
	}
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	openWithStockTools(t, filepath.Join(dir, "age"), id.String(), id.Recipient())
}

func openWithStockTools(t *testing.T, ageTool, identity string, recipient age.Recipient) {
	t.Helper()
	l := letter(t)
	l.Recipient = recipient
	l.Keys = append(l.Keys, keyContent(strings.Repeat("k", 127)))
	l.Files = append(l.Files, Content{"empty", nil})
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("B.kfb", string(withApprovals(t, seal(t, l), stranger)))
	write("id.txt", identity+"\n")
	write("allowed_signers", fmt.Sprintf("offline %s\napprover %s\n", public(t, sender), public(t, stranger)))

	shell(t, dir, "tar xf B.kfb")
	for name, key := range map[string]string{"offline": public(t, sender).Fingerprint().Hex(), "approver": public(t, stranger).Fingerprint().Hex()} {
		verify := "ssh-keygen -Y verify -f allowed_signers -n keyferry-bundle-v2 -I " + name + " -s signatures/" + key + ".sig"
		shell(t, dir, verify+" < manifest.json")
		if out, err := exec.Command("sh", "-c", "cd "+dir+"; (cat manifest.json; echo) | "+verify).CombinedOutput(); err == nil {
			t.Errorf("ssh-keygen takes the signature for another manifest: %s", out)
		}
	}
	var manifest struct {
		Payload struct {
			Path   string `json:"path"`
			SHA256 string `json:"sha256"`
		} `json:"payload"`
	}
	if err := json.Unmarshal(readFile(t, dir, "manifest.json"), &manifest); err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(shell(t, dir, "sha256sum "+manifest.Payload.Path), " ")
	if "SHA256:"+sum != manifest.Payload.SHA256 {
		t.Errorf("sha256sum says %s, the manifest %s", sum, manifest.Payload.SHA256)
	}
	shell(t, dir, "mkdir payload; set -o pipefail; "+ageTool+" -d -i id.txt payload.tar.zst.age | zstd -d | tar x -C payload")
	for _, c := range l.contents() {
		if got := readFile(t, dir, "payload/"+c.Path); !bytes.Equal(got, c.Data) {
			t.Errorf("%s came out with %d bytes, not %d", c.Path, len(got), len(c.Data))
		}
	}
	if got := shell(t, dir, "find payload -type f | wc -l"); strings.TrimSpace(got) != fmt.Sprint(len(l.contents())+1) {
		t.Errorf("%s files came out, want %d and the index", got, len(l.contents()))
	}
}

func shell(t *testing.T, dir, command string) string {
	t.Helper()
	cmd := exec.Command("bash", "-c", command)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
