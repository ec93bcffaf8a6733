// SPDX-License-Identifier: Apache-2.0

// Package stock shows that the bundle's specification is enough: a shell script
// seals one with stock tools alone, and Keyferry opens it.
package stock

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/trust"
	"keyferry/test/testbin"
)

func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }

func TestSealedByStockTools(t *testing.T) {
	for _, tool := range []string{"tar", "zstd", "age", "ssh-keygen", "sha256sum", "xxd", "base64", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: scripts/test installs it", tool)
		}
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			c := newCase(t, kind)
			file := c.seal()
			v, err := c.open(file, c.pins())
			if err != nil {
				t.Fatal(err)
			}
			if len(v.Index.Keys) != 2 || v.Index.Keys[0].ID != "one" || v.Manifest.Warnings()[0] != "KF-HSM-WRAP-UNPROVEN" {
				t.Errorf("it opens as %+v", v)
			}
			for path, want := range c.files {
				if strings.HasPrefix(path, "public/") {
					continue
				}
				if got, err := v.File(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, want %d: %v", path, len(got), len(want), err)
				}
			}
			other := c.pins()
			other.Receiver = fingerprint.Of([]byte("somebody else"))
			if _, err := c.open(file, other); !control.Is(err, control.BundleReceiver) {
				t.Errorf("for another receiver: %v", err)
			}
		})
	}
}

// The connected side takes such a bundle as it takes ours.
func TestOnlineTakesIt(t *testing.T) {
	c := newCase(t, "ed25519")
	online := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("online", append(args, "--state", c.path("T"))...).CombinedOutput()
		if err != nil {
			t.Fatalf("online %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	online("init", "--vault-url", "https://contoso.vault.azure.net", "--classic-recipient", "--tenant", "kit")
	file, err := os.ReadFile(c.path("T/security-world"))
	if err != nil {
		t.Fatal(err)
	}
	world, err := trust.OpenWorld(file)
	if err != nil {
		t.Fatal(err)
	}
	card, err := trust.Card{Name: "stock", Created: time.Now(), Signer: c.sender(), Recipient: c.recipient}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path("card"), card, 0o600); err != nil {
		t.Fatal(err)
	}
	online("trust", c.path("card"), "--fingerprint", fingerprint.Of(card).String())
	c.receiver, c.recipient = world.Signer.Fingerprint(), world.Recipient
	if out := online("verify", c.seal()); !strings.Contains(out, "Every check holds") {
		t.Errorf("online verify says\n%s", out)
	}
}

// A stock tar without the options that make its headers canonical is refused.
func TestOtherStockTars(t *testing.T) {
	c := newCase(t, "ed25519")
	file := c.seal()
	for _, options := range []string{"--format=gnu", "--format=pax", "--format=v7", "--format=ustar --mtime=@1", "--format=ustar --mode=0600", "--format=ustar --owner=1000", "--format=ustar --blocking-factor=20"} {
		all := "--blocking-factor=1 --owner=0 --group=0 --numeric-owner --mode=0644 --mtime=@0 " + options
		command := exec.Command("bash", "-c", fmt.Sprintf("rm -rf x && mkdir x && cd x && tar xf ../%s && tar %s -cf ../other.kfb manifest.json signatures/*.sig payload.tar.zst.age", filepath.Base(file), all))
		command.Dir = filepath.Dir(file)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", options, err, out)
		}
		if _, err := c.open(filepath.Join(filepath.Dir(file), "other.kfb"), c.pins()); !control.Is(err, control.BundleFormat) {
			t.Errorf("%s: %v", options, err)
		}
	}
}

// sealing is what a bundle is sealed of and for.
type sealing struct {
	t        *testing.T
	dir      string
	files    map[string][]byte
	identity *age.X25519Identity
	receiver fingerprint.Fingerprint

	recipient string // age
}

func newCase(t *testing.T, kind string) *sealing {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	c := &sealing{t, t.TempDir(), map[string][]byte{"transcript.jsonl": nil}, identity, fingerprint.Of([]byte("the receiver")), identity.Recipient().String()}
	for _, id := range []string{"one", "two"} {
		c.files["keys/"+id+"/wrapped.bin"] = bytes.Repeat([]byte(id), 500)
		c.files["keys/"+id+"/no_key_tpd_"+id+".xml"] = []byte("<ArrayOfTrustedDocDomain/>")
		c.files["keys/"+id+"/key.json"] = []byte("{}\n")
		c.files["public/"+id+".slc"] = fmt.Appendf(nil, "%08x-0000-4000-8000-000000000000", id)
	}
	for path, content := range c.files {
		full := filepath.Join(c.dir, "in", path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"one", "two", "kek"} {
		c.run("bash", "-c", "openssl genpkey -algorithm RSA -quiet | openssl pkey -pubout -outform DER -out "+c.path("in/public/"+name+".der"))
	}
	c.run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", c.path("key"))
	return c
}

func (c *sealing) path(name string) string { return filepath.Join(c.dir, name) }

func (c *sealing) run(name string, args ...string) {
	c.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (c *sealing) seal() (path string) {
	c.t.Helper()
	c.run("./seal", c.path("in"), c.path("key"), c.recipient, c.receiver.String(), "stock", c.path("stock.kfb"))
	return c.path("stock.kfb")
}

func (c *sealing) pins() bundle.Pins {
	return bundle.Pins{Purpose: bundle.KeyTransfer, Receiver: c.receiver, SenderName: "stock", Sender: c.sender(), Identity: c.identity}
}

func (c *sealing) sender() sshsig.PublicKey {
	c.t.Helper()
	line, err := os.ReadFile(c.path("key.pub"))
	if err != nil {
		c.t.Fatal(err)
	}
	sender, err := sshsig.ParsePublicKey(string(line))
	if err != nil {
		c.t.Fatal(err)
	}
	return sender
}

func (c *sealing) open(path string, pins bundle.Pins) (*bundle.Verified, error) {
	c.t.Helper()
	stick, err := os.Open(path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer stick.Close()
	scratch, err := os.CreateTemp(c.dir, "")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { scratch.Close() })
	return bundle.Open(stick, scratch, pins)
}
