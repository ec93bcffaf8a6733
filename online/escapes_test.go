// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/bundle"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/strictjson"
)

// member is one file of a tar.
type member struct {
	name string
	data []byte
}

func readTar(t *testing.T, r io.Reader) (members []member) {
	t.Helper()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{h.Name, data})
	}
}

// writeTar writes the tar as a bundle has it.
func writeTar(t *testing.T, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.data)), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
		if _, wrote := w.Write(m.data); err != nil || wrote != nil {
			t.Fatal(err, wrote)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// keysOf takes what only the owners of two state directories have: the sender's signing
// key, and the identity that opens what the receiver gets.
func keysOf(t *testing.T, sender string, from state.Side, receiver string, to state.Side) (crypto.Signer, age.Identity) {
	t.Helper()
	open := func(dir string, side state.Side) *state.State {
		s, err := state.Open(dir, side, func(s *state.State) (state.Self, error) { return state.Self{Key: s.HeadBy}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, r := open(sender, from), open(receiver, to)
	signer, err := s.Signer()
	if err != nil {
		t.Fatal(err)
	}
	identity, err := r.AgeIdentity()
	if err := errors.Join(err, s.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	return signer, identity
}

// forge makes of a bundle another one, encrypted and signed as that was, with texts in it
// that Keyferry itself would not write: edit changes each file, the index and the manifest
// after those that they describe.
func forge(t *testing.T, file []byte, signer crypto.Signer, identity age.Identity, edit func(name, text string) string) []byte {
	t.Helper()
	outer := readTar(t, bytes.NewReader(file))
	opened, err := age.Decrypt(bytes.NewReader(outer[2].data), identity)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := zstd.NewReader(opened)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	inner := readTar(t, plain)
	var x bundle.Index
	if err := json.Unmarshal(inner[0].data, &x); err != nil {
		t.Fatal(err)
	}
	describe := func(files []bundle.File) {
		for i := range files {
			for j, m := range inner {
				if m.name == files[i].Path {
					inner[j].data = []byte(edit(m.name, string(m.data)))
					files[i].Size, files[i].SHA256 = int64(len(inner[j].data)), fingerprint.Of(inner[j].data)
				}
			}
		}
	}
	for _, k := range x.Keys {
		describe(k.Files)
	}
	describe(x.Files)
	lines := func(name string, v any) []byte {
		text, err := strictjson.MarshalLines(v)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(edit(name, string(text)))
	}
	inner[0].data = lines("index.json", x)

	var recipient age.Recipient
	switch id := identity.(type) {
	case *age.HybridIdentity:
		recipient = id.Recipient()
	case *age.X25519Identity:
		recipient = id.Recipient()
	}
	var sealed bytes.Buffer
	encrypted, err := age.Encrypt(&sealed, recipient)
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := zstd.NewWriter(encrypted, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = compressed.Write(writeTar(t, inner))
	if err := errors.Join(err, compressed.Close(), encrypted.Close()); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.ParseManifest(outer[0].data)
	if err != nil {
		t.Fatal(err)
	}
	m.Index, m.Payload.Size, m.Payload.SHA256 = fingerprint.Of(inner[0].data), int64(sealed.Len()), fingerprint.Of(sealed.Bytes())
	manifest := lines("manifest.json", m)
	signature, err := sshsig.Sign(signer, bundle.Namespace, manifest)
	if err != nil {
		t.Fatal(err)
	}
	outer[0].data, outer[1].data, outer[2].data = manifest, signature, sealed.Bytes()
	return writeTar(t, outer)
}

// Who has a side's signing key can sign what it likes. Whatever texts a bundle or a
// receipt has, and however its file is called, they are shown as text: no byte that a
// terminal obeys gets to the screen, and with --json the output stays a document.
func TestSignedBundleOfEscapes(t *testing.T) {
	dir := t.TempDir()
	tpd, err := os.ReadFile("../testdata/vectors/tpd/contoso-mode2.xml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "one.xml"), tpd, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte("Passw0rd!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (stdout, stderr string, err error) {
		var out, errs bytes.Buffer
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
		err = cmd.Run()
		return out.String(), errs.String(), err
	}
	must := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			if out, errs, err := run(strings.Fields(line)...); err != nil {
				t.Fatalf("%s: %v\n%s%s", line, err, out, errs)
			}
		}
	}
	must("offline init --rehearsal --state S --out .", "online init --rehearsal --state T", "online kek create --state T --size 2048 --out .",
		"online trust --state T --yes offline-card-offline.json", "offline trust --state S --yes BYOK-SecurityWorld-pkg-NA-1",
		"offline import --state S --out . --protection-password-file pw --exchange-key-package BYOK-KEK-pkg-NA-1 --tpd-file-path one.xml --key-identifier one")

	const escapes = `\u001b[2J\u001b]0;Approved by alice\u0007\u009b31m\u202e` // as JSON has it
	const shown = `\x1b[2J`
	// within puts the escapes at the head of a field's text.
	within := func(file, field string) func(name, text string) string {
		return func(name, text string) string {
			if name != file {
				return text
			}
			at := `"` + field + `": "`
			if !strings.Contains(text, at) {
				t.Fatalf("%s has no field %s: %s", file, field, text)
			}
			return strings.Replace(text, at, at+escapes, 1)
		}
	}
	// show runs a command on a forged file, in words and in JSON.
	show := func(what, forged string, good bool, args ...string) {
		t.Helper()
		for _, args := range [][]string{slices.Concat(args, []string{forged}), slices.Concat(args, []string{forged, "--json"})} {
			out, errs, err := run(args...)
			for stream, text := range map[string]string{"stdout": out, "stderr": errs} {
				if strings.ContainsAny(text, "\x1b\u0007\u009b\u202e") {
					t.Errorf("%s: %v: a terminal obeys its %s: %q", what, args, stream, text)
				}
			}
			if (err == nil) != good {
				t.Errorf("%s: %v: %v\n%s%s", what, args, err, out, errs)
			}
			if args[len(args)-1] == "--json" && out != "" && !json.Valid([]byte(out)) {
				t.Errorf("%s: %v: no document: %q", what, args, out)
			}
			if text := out + errs; strings.Contains(forged, "\x1b") && !strings.Contains(text, shown) || !good && !strings.Contains(text, "[KF-BUNDLE-") && !strings.Contains(text, `"KF-BUNDLE-`) {
				t.Errorf("%s: %v: not shown: %s", what, args, text)
			}
		}
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(name string, data []byte) string {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}

	signer, identity := keysOf(t, filepath.Join(dir, "S"), state.Offline, filepath.Join(dir, "T"), state.Online)
	good := read("keyferry-offline-1.kfb")
	show("forged as it was", write("same.kfb", forge(t, good, signer, identity, func(_, text string) string { return text })), true, "online", "verify", "--state", "T")
	for field, file := range map[string]string{
		"format": "manifest.json", "purpose": "manifest.json", "id": "manifest.json", "name": "manifest.json", "disposition": "manifest.json", "slc": "manifest.json",
		"salt": "index.json", "kid": "index.json", "wrapped_by": "index.json", "mechanism": "index.json", "path": "index.json",
	} {
		forged := write("forged-"+field+".kfb", forge(t, good, signer, identity, within(file, field)))
		for _, command := range [][]string{{"verify"}, {"package", "--out", "transfer"}, {"upload", "--protection-password-file", "pw"}, {"receipt", "--out", "."}} {
			show(file+", "+field, forged, false, append([]string{"online", command[0], "--state", "T"}, command[1:]...)...)
		}
	}
	// The record of a key is for people to read later: it may be any text.
	record := forge(t, good, signer, identity, func(name, text string) string {
		if strings.HasSuffix(name, "/key.json") {
			return "\x1b[2J" + text
		}
		return text
	})
	show("a record of escapes", write("a\x1b[2J\u009b\u202e.kfb", record), true, "online", "verify", "--state", "T")

	// The other way.
	must("online upload --state T keyferry-offline-1.kfb --protection-password-file pw", "online receipt --state T keyferry-offline-1.kfb --out .")
	signer, identity = keysOf(t, filepath.Join(dir, "T"), state.Online, filepath.Join(dir, "S"), state.Offline)
	receipt := read("keyferry-online-1.kfb")
	for field, file := range map[string]string{
		"name": "manifest.json", "salt": "index.json",
		"key_url": "receipt.json", "wrapped_by": "receipt.json", "tenant": "receipt.json", "tenant_by": "receipt.json", "refused": "receipt.json",
	} {
		show(file+", "+field, write("forged-"+field+".kfb", forge(t, receipt, signer, identity, within(file, field))), false, "offline", "receipt", "--state", "S")
	}
	for _, line := range []string{"offline status --state S", "offline transcript --state S", "online status --state T", "online transcript --state T"} {
		out, errs, err := run(strings.Fields(line)...)
		if err != nil || strings.ContainsAny(out+errs, "\x1b\u0007\u009b\u202e") {
			t.Errorf("%s: %v, %q", line, err, out+errs)
		}
	}
}
