// SPDX-License-Identifier: Apache-2.0

// Package ceremony plays whole rehearsals with the real binaries, then judges
// what they left with stock tools alone: OpenSSL, tar, ssh-keygen, sha256sum,
// age, zstd, pkcs11-tool. Nothing of Keyferry's own code opens anything here.
package ceremony

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }

// goodCount is how many contoso-* vectors have 2048 bits.
const goodCount = 10

// good returns the vectors that can become HSM keys.
func good(t *testing.T) []vectors.TPD {
	t.Helper()
	var all []vectors.TPD
	for _, v := range vectors.AllTPD(t) {
		if strings.HasPrefix(v.Name, "contoso-") && v.Bits == 2048 {
			all = append(all, v)
		}
	}
	if len(all) != goodCount {
		t.Fatalf("%d vectors, want %d", len(all), goodCount)
	}
	return all
}

// rehearsal is a ceremony in a directory of its own: states S and T, the stick,
// and what `online package` wrote in transfer.
type rehearsal struct {
	*testing.T
	dir string
}

// play takes all keys through the whole ceremony, in one bundle. An identifier
// is the vector's name.
func play(t *testing.T, keys []vectors.TPD, flags ...string) *rehearsal {
	t.Helper()
	r := &rehearsal{t, t.TempDir()}
	if err := os.Mkdir(r.path("stick"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.run("offline", append([]string{"init", "--rehearsal", "--state", "S", "--out", "stick"}, flags...)...)
	r.run("online", append([]string{"init", "--rehearsal", "--state", "T"}, flags...)...)
	r.run("online", "kek", "create", "--state", "T", "--size", "3072", "--out", "stick")
	r.run("online", "trust", "--state", "T", "stick/offline-card-offline.json", "--fingerprint", r.sum("stick/offline-card-offline.json"))
	r.run("offline", "trust", "--state", "S", "stick/BYOK-SecurityWorld-pkg-NA-1", "--fingerprint", r.sum("stick/BYOK-SecurityWorld-pkg-NA-1"))
	carry := []string{"import", "--state", "S", "--exchange-key-package", "stick/BYOK-KEK-pkg-NA-1", "--out", "stick"}
	upload := []string{"upload", "--state", "T", "stick/keyferry-offline-1.kfb", "--active", keys[0].Name}
	for _, v := range keys {
		r.write(v.Name+".xml", v.XML)
		r.write(v.Name+".pw", append(bytes.Clone(v.Password), '\n'))
		carry = append(carry, "--tpd-file-path", v.Name+".xml", "--key-identifier", v.Name, "--protection-password-file", v.Name+".pw")
		upload = append(upload, "--protection-password-file", v.Name+".pw")
		if v.Bits == 1024 {
			carry = append(carry, "--microsoft-managed")
		}
	}
	r.run("offline", carry...)
	r.run("online", "verify", "--state", "T", "stick/keyferry-offline-1.kfb")
	r.run("online", "package", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "transfer")
	r.run("online", upload...)
	r.run("online", "receipt", "--state", "T", "stick/keyferry-offline-1.kfb", "--out", "stick")
	r.run("offline", "receipt", "--state", "S", "stick/keyferry-online-1.kfb")
	return r
}

func (r *rehearsal) path(elem ...string) string {
	return filepath.Join(append([]string{r.dir}, elem...)...)
}

func (r *rehearsal) read(elem ...string) []byte {
	r.Helper()
	data, err := os.ReadFile(r.path(elem...))
	if err != nil {
		r.Fatal(err)
	}
	return data
}

func (r *rehearsal) write(name string, data []byte) {
	r.Helper()
	if err := os.WriteFile(r.path(name), data, 0o600); err != nil {
		r.Fatal(err)
	}
}

// run runs a program in the rehearsal's directory and returns its output.
func (r *rehearsal) run(name string, args ...string) []byte {
	r.Helper()
	return r.feed(nil, name, args...)
}

// feed is run with standard input.
func (r *rehearsal) feed(stdin []byte, name string, args ...string) []byte {
	r.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = r.dir, bytes.NewReader(stdin), &stdout, &stderr
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+r.path("S", "token", "softhsm2.conf"))
	if err := cmd.Run(); err != nil {
		r.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.Bytes()
}

// sum is what sha256sum says of a file, as a fingerprint is written.
func (r *rehearsal) sum(name string) string {
	r.Helper()
	hex, _, _ := strings.Cut(string(r.run("sha256sum", name)), " ")
	return "SHA256:" + hex
}

// parse reads a JSON document.
func (r *rehearsal) parse(data []byte, v any) {
	r.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		r.Fatalf("%v\n%s", err, data)
	}
}

// status is what `status --json` says of each key, on either side.
type status struct {
	Keys []struct {
		ID     string `json:"id"`
		Stage  string `json:"stage"`
		KeyURL string `json:"key_url"`
		Tenant string `json:"tenant"`
	} `json:"keys"`
}

// checkStatus wants every key arrived, the first one active, and both sides to
// agree on each key's URL.
func (r *rehearsal) checkStatus(keys []vectors.TPD) {
	r.Helper()
	var offline, online status
	r.parse(r.run("offline", "status", "--state", "S", "--json"), &offline)
	r.parse(r.run("online", "status", "--state", "T", "--json"), &online)
	if len(offline.Keys) != len(keys) || len(online.Keys) != len(keys) {
		r.Fatalf("offline knows %d keys, online %d, want %d", len(offline.Keys), len(online.Keys), len(keys))
	}
	for i, v := range keys {
		want := "Archived"
		if i == 0 {
			want = "Active"
		}
		here, there := offline.Keys[i], online.Keys[i]
		inVault := strings.HasPrefix(here.KeyURL, "https://practice.vault.keyferry.test/keys/"+v.Name+"/")
		switch {
		case here.ID != v.Name || there.ID != v.Name:
			r.Errorf("key %d is %s and %s, want %s", i, here.ID, there.ID, v.Name)
		case here.Stage != "arrived" || here.Tenant != want || there.Tenant != want:
			r.Errorf("%s: %s, %s and %s, want arrived and %s", v.Name, here.Stage, here.Tenant, there.Tenant, want)
		case here.KeyURL != there.KeyURL || inVault != (v.Bits == 2048) || !inVault && here.KeyURL != "":
			r.Errorf("%s: key URL %s here, %s there", v.Name, here.KeyURL, there.KeyURL)
		}
	}
}

func TestClassic(t *testing.T) {
	t.Parallel()
	keys := good(t)
	r := play(t, keys, "--classic-recipient")
	r.checkStatus(keys)
	r.judgeBundle("age", keys)
	judged := 0
	for _, v := range keys {
		r.judgeBlob(v)
		r.judgeToken(v)
		r.judgeKeyless(v)
		judged++
	}
	if judged != goodCount {
		t.Fatalf("%d vectors judged, want %d", judged, goodCount)
	}
	t.Logf("count: %d vectors judged with stock tools", judged)
}

func TestHybrid(t *testing.T) {
	t.Parallel()
	keys := good(t)
	r := play(t, keys)
	r.checkStatus(keys)
	r.judgeBundle(buildAge(t), keys)
}

// buildAge builds the age command from its module: Debian's is older than its
// post-quantum recipients.
func buildAge(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "age")
	cmd := exec.Command("go", "build", "-o", path, "filippo.io/age/cmd/age")
	cmd.Dir = filepath.Join("..", "..", "tools")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build age: %w\n%s", err, out))
	}
	return path
}
