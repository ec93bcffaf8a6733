// SPDX-License-Identifier: Apache-2.0

// Package cctv holds the way a bundle's payload is opened against the age test
// vectors of C2SP's CCTV, the version that age's own tests use. It is a module
// of its own, so that nobody else needs them.
package cctv

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agetest "c2sp.org/CCTV/age"
	"filippo.io/age"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

// vector is a file to decrypt and what is to come of it.
type vector struct {
	expect   string
	identity age.Identity // nil: a password, or none
	file     []byte
}

func parse(t *testing.T, data []byte) vector {
	t.Helper()
	head, file, ok := bytes.Cut(data, []byte("\n\n"))
	if !ok {
		t.Fatal("the vector has no file")
	}
	v := vector{file: file}
	for line := range strings.Lines(string(head)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "expect":
			v.expect = value
		case "identity":
			if id, err := age.ParseX25519Identity(value); err == nil {
				v.identity = id
			} else if id, err := age.ParseHybridIdentity(value); err == nil {
				v.identity = id
			} else {
				t.Fatalf("an identity of another kind: %v", err)
			}
		case "compressed":
			r, err := zlib.NewReader(bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			if v.file, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return v
}

// recipients counts the recipient stanzas of a file that is not armored.
func (v vector) recipients() int {
	head, _, _ := bytes.Cut(v.file, []byte("\n---"))
	return bytes.Count(head, []byte("\n-> "))
}

// TestVectors: a file opens that is encrypted to the identity alone, by X25519
// or the hybrid, and that is good; what it holds is then no payload, which is
// how far a foreign file gets. All others are refused: what age refuses, and
// passwords, armor, and further recipients, which age takes and a bundle has not.
func TestVectors(t *testing.T) {
	entries, err := fs.ReadDir(agetest.Vectors, ".")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 147 {
		t.Errorf("%d vectors, there were 147", len(entries))
	}
	opened, refused := 0, map[string]int{}
	for _, entry := range entries {
		t.Run(entry.Name(), func(t *testing.T) {
			data, err := fs.ReadFile(agetest.Vectors, entry.Name())
			if err != nil {
				t.Fatal(err)
			}
			v := parse(t, data)
			good := v.expect == "success" && v.identity != nil && v.recipients() == 1
			if v.identity == nil {
				v.identity = another(t)
			}
			r := new(control.Refusal)
			if err := open(t, v); !errors.As(err, &r) || r.Control.Class != control.Refused {
				t.Fatalf("not refused: %v", err)
			}
			decrypted := r.Control.ID == control.BundleFormat.ID
			switch {
			case good:
				if !decrypted {
					t.Errorf("a good file is not opened: %v", r)
				}
				opened++
			case v.expect == "payload failure": // it may begin well
				refused[r.Control.ID]++
			default:
				if decrypted {
					t.Errorf("%s: it is opened: %v", v.expect, r)
				}
				refused[r.Control.ID]++
			}
		})
	}
	t.Logf("count: opened %d, refused %v", opened, refused)
}

func another(t *testing.T) age.Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// open makes the file the payload of a bundle whose sender is pinned, and opens
// that.
func open(t *testing.T, v vector) error {
	t.Helper()
	signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	sender, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := strictjson.MarshalLines(bundle.Manifest{
		Format: bundle.Format, Purpose: bundle.KeyTransfer, ID: strings.Repeat("0", 32), Created: time.Unix(0, 0).UTC(),
		Sender: bundle.Party{Name: "cctv", Fingerprint: sender.Fingerprint()}, Sequence: 1, Keys: []bundle.ManifestKey{},
		Payload: bundle.File{Path: "payload.tar.zst.age", Size: int64(len(v.file)), SHA256: fingerprint.Of(v.file)},
	})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := sshsig.Sign(signer, bundle.Namespace, manifest)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	for _, m := range []struct {
		name string
		data []byte
	}{{"manifest.json", manifest}, {"signatures/" + sender.Fingerprint().Hex() + ".sig", signature}, {"payload.tar.zst.age", v.file}} {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.data)), Mode: 0o644, Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write(m.data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	scratch, err := os.Create(filepath.Join(t.TempDir(), "scratch"))
	if err != nil {
		t.Fatal(err)
	}
	defer scratch.Close()
	_, err = bundle.Open(&file, scratch, bundle.Pins{Purpose: bundle.KeyTransfer, SenderName: "cctv", Sender: sender, Identity: v.identity})
	return err
}
