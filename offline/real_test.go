// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/bundle"
	"keyferry/internal/scripttest"
	"keyferry/internal/vectors"
	"keyferry/pkg/byok"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/hsm"
	"keyferry/pkg/trust"
)

// realSide is an offline side of a real ceremony, whose HSM is a SoftHSM token
// made with its own tool, and a connected side of which there are only the keys.
type realSide struct {
	t     *testing.T
	dir   string
	pin   string // file
	world *scripttest.World
}

func newRealSide(t *testing.T) *realSide {
	t.Helper()
	r := &realSide{t: t, dir: t.TempDir()}
	r.pin = r.write("pin", []byte("123456\n"))
	if err := os.Mkdir(filepath.Join(r.dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := r.write("softhsm2.conf", []byte("directories.tokendir = "+filepath.Join(r.dir, "tokens")+"\n"))
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "hsm", "--pin", "123456", "--so-pin", "123456").CombinedOutput()
	if err != nil {
		t.Fatalf("softhsm2-util (Debian package softhsm2): %v %s", err, out)
	}
	r.world, err = scripttest.NewWorld(r.dir)
	r.must(err)
	return r
}

func (r *realSide) write(name string, data []byte) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := durable.Create(path, data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

func (r *realSide) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// run runs a command of the offline side, which must end with code, and
// returns its JSON document.
func (r *realSide) run(code int, args ...string) map[string]any {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	args = append(args, "--state", filepath.Join(r.dir, "state"), "--json")
	if got := app.Run(context.Background(), args, nil, &stdout, &stderr); got != code {
		r.t.Fatalf("offline %q: exit %d, want %d\n%s", args, got, code, stderr.String())
	}
	var doc map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &doc); err != nil {
		r.t.Fatalf("offline %q: %v\n%s", args, err, stdout.String())
	}
	return doc
}

func refusedBy(doc map[string]any) any { return doc["error"].(map[string]any)["control"] }

// TestRealCeremony goes the offline half of a real ceremony: a token of its
// own, the signing key in it, nothing taken for granted that a rehearsal takes.
func TestRealCeremony(t *testing.T) {
	r := newRealSide(t)
	v := vectors.OneTPD(t, "contoso-mode2")
	module, err := hsm.FindModule("")
	r.must(err)

	doc := r.run(2, "init", "--name", "vault-room")
	if got := refusedBy(doc); got != "KF-RUN-USAGE" {
		t.Errorf("init without an HSM: %v", got)
	}
	r.run(0, "init", "--name", "vault-room", "--hsm-module", module, "--hsm-token", "hsm", "--hsm-pin-file", r.pin)
	world := filepath.Join(r.dir, "BYOK-SecurityWorld-pkg-EU-1")
	if got := refusedBy(r.run(4, "trust", world, "--yes")); got != "KF-RUN-CONFIRM" {
		t.Errorf("trust with --yes: %v", got)
	}
	r.run(0, "trust", world, "--fingerprint", fingerprint.Of(r.world.Package).String())

	if got := refusedBy(r.run(3, r.importOf(v)...)); got != "KF-HSM-WRAP-UNPROVEN" {
		t.Errorf("import without --wrap software: %v", got)
	}
	r.run(0, append(r.importOf(v), "--wrap", "software")...)
	first := r.run(0, "seal", "--out", r.dir, "--hsm-pin-file", r.pin)
	taken := r.checkBundle(first["bundle"].(string), v)

	w := vectors.OneTPD(t, "contoso-legacy-kdf")
	second := r.run(0, append(r.importOf(w), "--wrap", "software", "--out", r.dir)...)
	r.checkBundle(second["bundle"].(string), w, taken)
}

// importOf is the import of a vector under its own name.
func (r *realSide) importOf(v vectors.TPD) []string {
	r.t.Helper()
	tpd, password := filepath.Join(r.dir, v.Name), filepath.Join(r.dir, v.Name+".password")
	r.must(durable.Replace(tpd, v.XML, 0o600))
	r.must(durable.Replace(password, v.Password, 0o600))
	return []string{
		"import", "--tpd-file-path", tpd, "--protection-password-file", password, "--key-identifier", v.Name,
		"--exchange-key-package", filepath.Join(r.dir, "BYOK-KEK-pkg-EU-1"), "--hsm-pin-file", r.pin,
	}
}

// checkBundle opens the bundle as the connected side would, and the ciphertext
// in it as the vault would.
func (r *realSide) checkBundle(path string, v vectors.TPD, taken ...bundle.Taken) bundle.Taken {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "state", trust.CardName("vault-room")))
	r.must(err)
	card, err := trust.OpenCard(data)
	r.must(err)
	stick, err := os.Open(path)
	r.must(err)
	defer stick.Close()
	scratch, err := durable.Scratch(r.dir)
	r.must(err)
	defer scratch.Close()
	opened, err := bundle.Open(stick, scratch, bundle.Pins{
		Purpose: bundle.KeyTransfer, Receiver: r.world.Self.Fingerprint(), SenderName: "vault-room", Sender: card.Signer, Identity: r.world.Identity, Taken: taken,
	})
	r.must(err)
	ciphertext, err := opened.ReadFile(bundle.KeyPath(v.Name, bundle.WrappedName))
	r.must(err)
	key, err := byok.Unwrap(ciphertext, r.world.KEK)
	r.must(err)
	if !key.Equal(v.Key) {
		r.t.Error("the key in the bundle is not the key of the TPD")
	}
	if opened.Manifest.Rehearsal || opened.Index.Keys[0].WrappedBy != "software" {
		r.t.Errorf("manifest and index: %+v %+v", opened.Manifest, opened.Index)
	}
	if signer := card.Signer.String(); !strings.HasPrefix(signer, "ecdsa-sha2-nistp256 ") {
		r.t.Errorf("the bundle is signed by %s, want the ECDSA key of the token", signer)
	}
	return bundle.Taken{Sequence: opened.Manifest.Sequence, Manifest: opened.Digest}
}
