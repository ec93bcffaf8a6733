// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"

	"keyferry/test/vectors"
)

// judgeBundle opens the bundle and the receipt by the commands that the design
// gives to auditors. What is inside must be what `online package` wrote.
func (r *rehearsal) judgeBundle(age string, keys []vectors.TPD) {
	r.Helper()
	inside := r.openTransfer(age)
	for _, v := range keys {
		wrapped := r.read(inside, "keys", v.Name, "wrapped.bin")
		if !bytes.Equal(wrapped, r.blob(v).ciphertext) {
			r.Errorf("%s: the bundle's ciphertext is not the transfer package's", v.Name)
		}
		keyless := "no_key_tpd_" + v.Name + ".xml"
		if !bytes.Equal(r.read(inside, "keys", v.Name, keyless), r.read("transfer", keyless)) {
			r.Errorf("%s: the bundle's keyless TPD is not the one that was written", v.Name)
		}
	}
	r.noKeyIn(inside, keys)

	var world struct {
		Content string `json:"content"`
	}
	var content struct {
		Signer string `json:"signer"`
	}
	r.parse(r.read("stick", "BYOK-SecurityWorld-pkg-NA-1"), &world)
	r.parse([]byte(world.Content), &content)
	receipt := r.open("keyferry-online-1.kfb", "online", content.Signer, age, filepath.Join("S", "identity", "age.txt"))
	if entries, err := os.ReadDir(r.path(receipt)); err != nil || len(entries) == 0 {
		r.Errorf("the receipt is empty: %v", err)
	}
}

// openTransfer opens the key transfer from the stick.
func (r *rehearsal) openTransfer(age string) string {
	r.Helper()
	var card struct {
		Signer string `json:"signer"`
	}
	r.parse(r.read("stick", "offline-card-offline.json"), &card)
	return r.open("keyferry-offline-1.kfb", "offline", card.Signer, age, filepath.Join("T", "identity", "age.txt"))
}

// open opens a bundle from the stick: the signature first, then the digest,
// then the payload. It returns the directory of what was inside.
func (r *rehearsal) open(name, sender, signer, age, identity string) string {
	r.Helper()
	outer, inner := "outer-"+sender, "inner-"+sender
	for _, dir := range []string{outer, inner} {
		if err := os.Mkdir(r.path(dir), 0o700); err != nil {
			r.Fatal(err)
		}
	}
	r.run("tar", "-xf", filepath.Join("stick", name), "-C", outer)
	r.write("allowed_signers", []byte(sender+" "+signer+"\n"))
	signatures, err := filepath.Glob(r.path(outer, "signatures", "*.sig"))
	if err != nil || len(signatures) != 1 {
		r.Fatalf("%d signatures, want one: %v", len(signatures), err)
	}
	manifest := r.read(outer, "manifest.json")
	said := r.feed(manifest, "ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", sender, "-n", "keyferry-bundle-v2", "-s", signatures[0])
	if !strings.Contains(string(said), "Good \"keyferry-bundle-v2\" signature") {
		r.Errorf("ssh-keygen says %s", said)
	}
	var m struct {
		Payload struct {
			Path   string `json:"path"`
			SHA256 string `json:"sha256"`
		} `json:"payload"`
	}
	r.parse(manifest, &m)
	payload := filepath.Join(outer, m.Payload.Path)
	if got := r.sum(payload); strings.TrimPrefix(got, "SHA256:") != strings.TrimPrefix(m.Payload.SHA256, "SHA256:") {
		r.Errorf("%s: sha256sum says %s, the manifest %s", payload, got, m.Payload.SHA256)
	}
	compressed := r.run(age, "-d", "-i", identity, payload)
	r.feed(r.feed(compressed, "zstd", "-d"), "tar", "-x", "-C", inner)
	return inner
}

// blob is a transfer package as the BYOK specification has it.
type blob struct {
	kid        string
	ciphertext []byte
}

func (r *rehearsal) blob(v vectors.TPD) blob {
	r.Helper()
	var file struct {
		SchemaVersion string `json:"schema_version"`
		Header        struct {
			KID string `json:"kid"`
			Alg string `json:"alg"`
			Enc string `json:"enc"`
		} `json:"header"`
		Ciphertext string `json:"ciphertext"`
	}
	r.parse(r.read("transfer", "KeyTransferPackage-"+v.Name+".byok"), &file)
	if file.SchemaVersion != "1.0.0" || file.Header.Alg != "dir" || file.Header.Enc != "CKM_RSA_AES_KEY_WRAP" {
		r.Errorf("%s: the transfer package begins %+v", v.Name, file.Header)
	}
	ciphertext, err := base64.RawURLEncoding.DecodeString(file.Ciphertext)
	if err != nil {
		r.Fatal(err)
	}
	return blob{file.Header.KID, ciphertext}
}
