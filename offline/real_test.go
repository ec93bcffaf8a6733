// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/trust"
	"keyferry/test/scripttest"
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

// realSide is an offline side of a real ceremony, whose HSM is a token in
// software made with its own tool, and a connected side of which there are only the keys.
type realSide struct {
	t     *testing.T
	dir   string
	pin   string // file
	world *scripttest.World
}

func newRealSide(t *testing.T) *realSide {
	t.Helper()
	testbin.NeedAlone(t)
	if err := machine.Refuse(machine.Look()); err != nil { // radios, which no namespace hides
		t.Skip("a real ceremony can't be held here:", err)
	}
	r := &realSide{t: t, dir: t.TempDir()}
	r.pin = r.write("pin", []byte("123456\n"))
	var err error
	r.world, err = scripttest.NewWorld(r.dir, time.Now())
	r.must(err)
	return r
}

// softHSM makes the token.
func (r *realSide) softHSM() {
	r.t.Helper()
	r.must(os.Mkdir(filepath.Join(r.dir, "tokens"), 0o700))
	conf := r.write("softhsm2.conf", []byte("directories.tokendir = "+filepath.Join(r.dir, "tokens")+"\n"))
	r.t.Setenv("SOFTHSM2_CONF", conf)
	r.tool("softhsm2-util", "--init-token", "--free", "--label", "hsm", "--pin", "123456", "--so-pin", "123456")
}

// tool runs a program that makes a token.
func (r *realSide) tool(name string, args ...string) {
	r.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		r.t.Fatalf("%s: %v %s", name, err, out)
	}
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
	cmd := exec.Command("offline", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != code {
		r.t.Fatalf("offline %q: %v, want exit %d\n%s", args, err, code, stderr.String())
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
	r.softHSM()
	v := vectors.OneTPD(t, "contoso-mode2")

	doc := r.run(2, "init", "--name", "vault-room")
	if got := refusedBy(doc); got != "KF-RUN-USAGE" {
		t.Errorf("init without an HSM: %v", got)
	}
	r.begin()

	if got := refusedBy(r.run(3, r.importOf(v)...)); got != "KF-HSM-WRAP-UNPROVEN" {
		t.Errorf("import without --wrap software: %v", got)
	}
	r.run(0, append(r.importOf(v), "--wrap", "software")...)
	first := r.run(0, "seal", "--out", r.dir, "--hsm-pin-file", r.pin)
	taken := r.checkBundle(first["bundle"].(string), v, bySoftware)

	w := vectors.OneTPD(t, "contoso-legacy-kdf")
	second := r.run(0, append(r.importOf(w), "--wrap", "software", "--out", r.dir)...)
	withLegacy := bySoftware
	withLegacy.warnings = append(slices.Clone(bySoftware.warnings), "KF-TPD-LEGACY-KDF")
	r.checkBundle(second["bundle"].(string), w, withLegacy, taken)
}

// TestRealWrap goes it with a token that wraps: by import, and again by wrap
// once the key is there. The vault can open both.
func TestRealWrap(t *testing.T) {
	module := scripttest.NSS()
	if module == "" {
		t.Skip("NSS IS NOT TESTED: its token comes with Debian's packages libnss3 and libnss3-tools")
	}
	r := newRealSide(t)
	v := vectors.OneTPD(t, "contoso-mode2")
	db := "sql:" + r.dir
	r.tool("certutil", "-N", "-d", db, "-f", r.pin)
	r.run(0, "init", "--name", "vault-room", "--hsm-module", module, "--hsm-parameters", "configdir="+db,
		"--hsm-token", "NSS Certificate DB", "--hsm-pin-file", r.pin, "--signer", "file")
	r.run(0, "trust", filepath.Join(r.dir, "BYOK-SecurityWorld-pkg-EU-1"), "--fingerprint", fingerprint.Of(r.world.Package).String())

	first := r.run(0, append(r.importOf(v), "--retain-extractable", "--out", r.dir)...)
	byImport := expectedKey{"token", "CKM_AES_KEY_WRAP_KWP", []string{"KF-HSM-RETAINED"}, "ssh-ed25519 "}
	taken := r.checkBundle(first["bundle"].(string), v, byImport)

	wrap := append([]string{"wrap"}, r.importOf(v)[1:]...)
	second := r.run(0, append(wrap, "--out", r.dir)...)
	byWrap := byImport
	byWrap.warnings = []string{}
	r.checkBundle(second["bundle"].(string), v, byWrap, taken)
	if again := r.run(0, wrap...); len(again["keys"].([]any)) > 0 {
		t.Errorf("a third time: %v", again["keys"])
	}
}

// expectedKey is what a bundle says of its one key, and of who signed it.
type expectedKey struct {
	wrappedBy, mechanism string
	warnings             []string
	signer               string // kind of SSH key
}

var bySoftware = expectedKey{"software", ceremony.SoftwareWrap, []string{"KF-HSM-WRAP-UNPROVEN"}, "ecdsa-sha2-nistp256 "}

// begin makes the state directory, and pins the connected side.
func (r *realSide) begin() {
	r.t.Helper()
	module, err := module.Find("")
	r.must(err)
	r.run(0, "init", "--name", "vault-room", "--hsm-module", module, "--hsm-token", "hsm", "--hsm-pin-file", r.pin)
	world := filepath.Join(r.dir, "BYOK-SecurityWorld-pkg-EU-1")
	if got := refusedBy(r.run(4, "trust", world, "--yes")); got != "KF-RUN-CONFIRM" {
		r.t.Errorf("trust with --yes: %v", got)
	}
	r.run(0, "trust", world, "--fingerprint", fingerprint.Of(r.world.Package).String())
}

// TestConnectedMachine holds a real import on a machine with a connection to an
// address that is not the loopback's, and without.
func TestConnectedMachine(t *testing.T) {
	r := newRealSide(t)
	r.softHSM()
	r.begin()
	v := vectors.OneTPD(t, "contoso-mode2")
	command := append(r.importOf(v), "--wrap", "software")

	disconnect := r.connect()
	if got := refusedBy(r.run(3, command...)); got != "KF-AIRGAP-CONNECTED" {
		t.Errorf("import on a connected machine: %v", got)
	}
	r.run(0, append(command, "--unsafe-network-present", "--dry-run")...)
	doctor := []string{"doctor", "--hsm-pin-file", r.pin}
	if got := problems(r.run(3, doctor...)); !slices.Equal(got, []any{"KF-AIRGAP-CONNECTED"}) {
		t.Errorf("doctor on a connected machine: %v", got)
	}
	r.run(0, append(doctor, "--unsafe-network-present")...)
	warned := func(want bool) {
		t.Helper()
		for _, command := range [][]string{
			{"inspect", command[2], "--protection-password-file", command[6]},
			{"init", "--state", filepath.Join(t.TempDir(), "other"), "--signer", "file", "--hsm-module", scripttest.Module, "--hsm-token", "hsm", "--hsm-pin-file", r.pin},
		} {
			said, err := exec.Command("offline", command...).CombinedOutput()
			if err != nil || strings.Contains(string(said), "[KF-AIRGAP-CONNECTED]; an import would stop here") != want {
				t.Errorf("%s: %v, want a warning: %t\n%s", command[0], err, want, said)
			}
		}
	}
	warned(true)
	disconnect()
	warned(false)
	if got := problems(r.run(0, doctor...)); len(got) > 0 {
		t.Errorf("doctor on a machine alone: %v", got)
	}
	r.run(0, append(command, "--dry-run")...)

	r.connect()
	sealed := r.run(0, append(command, "--unsafe-network-present", "--unsafe-hsm-network", "--out", r.dir)...)
	opened := r.open(sealed["bundle"].(string))
	for _, id := range []string{"KF-AIRGAP-CONNECTED", "KF-AIRGAP-SANDBOX"} {
		if !slices.Contains(opened.Manifest.Warnings(), id) || !slices.Contains(opened.Index.Keys[0].Warnings, id) {
			t.Errorf("the bundle does not say %s: %q", id, opened.Manifest.Warnings())
		}
	}
	transcript, err := opened.File("transcript.jsonl")
	r.must(err)
	for _, said := range []string{`"event":"surroundings"`, `"only_unix_sockets":false`, "there is a connection (tcp) to another machine"} {
		if !bytes.Contains(transcript, []byte(said)) {
			t.Errorf("the transcript does not say %s:\n%s", said, transcript)
		}
	}
}

// problems are the controls that doctor names.
func problems(doc map[string]any) (controls []any) {
	for _, p := range doc["problems"].([]any) {
		controls = append(controls, p.(map[string]any)["control"])
	}
	return controls
}

// connect opens a connection until disconnect is called.
func (r *realSide) connect() (disconnect func()) {
	r.t.Helper()
	l, err := net.Listen("tcp", testbin.Address+":0")
	r.must(err)
	conn, err := net.Dial("tcp", l.Addr().String())
	r.must(err)
	other, err := l.Accept()
	r.must(err)
	disconnect = func() {
		for _, c := range []io.Closer{conn, other, l} {
			c.Close()
		}
	}
	r.t.Cleanup(disconnect)
	return disconnect
}

// importOf is the import of a vector under its own name.
func (r *realSide) importOf(v vectors.TPD) []string {
	r.t.Helper()
	tpd, password := filepath.Join(r.dir, v.Name), filepath.Join(r.dir, v.Name+".password")
	r.must(durable.Replace(tpd, v.XML, 0o600))
	r.must(durable.Replace(password, v.Password, 0o600))
	return []string{
		"import", "--tpd-file-path", tpd, "--key-identifier", v.Name, "--protection-password-file", password,
		"--exchange-key-package", filepath.Join(r.dir, "BYOK-KEK-pkg-EU-1"), "--kek-fingerprint", fingerprint.OfKey(&r.world.KEK.PublicKey).String(), "--hsm-pin-file", r.pin,
	}
}

// checkBundle opens the bundle as the connected side would, and the ciphertext
// in it as the vault would.
func (r *realSide) checkBundle(path string, v vectors.TPD, want expectedKey, taken ...bundle.Taken) bundle.Taken {
	r.t.Helper()
	opened := r.open(path, taken...)
	ciphertext, err := opened.File(bundle.KeyPath(v.Name, bundle.WrappedName))
	r.must(err)
	key, err := byok.Unwrap(ciphertext, r.world.KEK)
	r.must(err)
	if !key.Equal(v.Key) {
		r.t.Error("the key in the bundle is not the key of the TPD")
	}
	k := opened.Index.Keys[0]
	if opened.Manifest.Rehearsal || k.WrappedBy != want.wrappedBy || k.Mechanism != want.mechanism || !slices.Equal(k.Warnings, want.warnings) || !slices.Equal(opened.Manifest.Warnings(), want.warnings) {
		r.t.Errorf("manifest and index: %+v %+v", opened.Manifest, opened.Index)
	}
	if signer := r.card().Signer.String(); !strings.HasPrefix(signer, want.signer) {
		r.t.Errorf("the bundle is signed by %s, want %s", signer, want.signer)
	}
	return bundle.Taken{Sequence: opened.Manifest.Sequence, Manifest: opened.Digest}
}

func (r *realSide) card() *trust.Card {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, "state", trust.CardName("vault-room")))
	r.must(err)
	card, err := trust.OpenCard(data)
	r.must(err)
	return card
}

// open opens a bundle of the offline side.
func (r *realSide) open(path string, taken ...bundle.Taken) *bundle.Verified {
	r.t.Helper()
	stick, err := os.Open(path)
	r.must(err)
	defer stick.Close()
	scratch, err := durable.Scratch(r.dir)
	r.must(err)
	r.t.Cleanup(func() { scratch.Close() })
	opened, err := bundle.Open(stick, scratch, bundle.Pins{
		Purpose: bundle.KeyTransfer, Receiver: r.world.Self.Fingerprint(), SenderName: "vault-room", Sender: r.card().Signer, Identity: r.world.Identity, Taken: taken,
	})
	r.must(err)
	return opened
}
