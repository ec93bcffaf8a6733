// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"encoding/hex"
	"path"
	"path/filepath"
	"regexp"

	"keyferry/test/scripttest"
	"keyferry/test/vectors"
)

// judgeBlob opens the transfer package with OpenSSL and the practice vault's
// KEK. What comes out must be the vector's key.
func (r *rehearsal) judgeBlob(v vectors.TPD) {
	r.Helper()
	b := r.blob(v)
	name, version := path.Base(path.Dir(b.kid)), path.Base(b.kid)
	kek := filepath.Join("T", "practice", "vault", name+"-"+version+".pem")
	const wrappedAES = 3072 / 8
	r.write("aes.bin", b.ciphertext[:wrappedAES])
	r.write("key.bin", b.ciphertext[wrappedAES:])
	aes := r.run("openssl", "pkeyutl", "-decrypt", "-inkey", kek, "-in", "aes.bin",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1")
	if len(aes) != 32 {
		r.Fatalf("%s: an AES key of %d bytes", v.Name, len(aes))
	}
	r.run("openssl", "enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(aes), "-iv", "A65959A6", "-in", "key.bin", "-out", "key.p8")
	got := r.run("openssl", "pkey", "-inform", "DER", "-in", "key.p8", "-outform", "DER", "-traditional")
	if want := r.run("openssl", "pkey", "-in", r.vector(v.Name+".key.pem"), "-outform", "DER", "-traditional"); !bytes.Equal(got, want) {
		r.Errorf("%s: another key is in the transfer package", v.Name)
	}
}

// vector is the path of a file of the vectors.
func (r *rehearsal) vector(name string) string {
	r.Helper()
	abs, err := filepath.Abs(filepath.Join("..", "..", "testdata", "vectors", "tpd", name))
	if err != nil {
		r.Fatal(err)
	}
	return abs
}

// judgeToken signs and decrypts with the token's key by pkcs11-tool. OpenSSL
// makes and checks the other half with the vector's public key.
func (r *rehearsal) judgeToken(v vectors.TPD) {
	r.Helper()
	tool := func(args ...string) []byte {
		r.Helper()
		return r.run("pkcs11-tool", append([]string{"--module", scripttest.Module, "--login", "--pin", string(r.read("S", "token", "pin"))}, args...)...)
	}
	found := regexp.MustCompile(`(?m)^Private Key Object; RSA.*\n\s+label:\s+`+v.Name+`\n\s+ID:\s+([0-9a-f]+)$`).FindAllSubmatch(tool("--list-objects"), -1)
	if len(found) != 1 {
		r.Fatalf("%s: %d private keys in the token", v.Name, len(found))
	}
	id := string(found[0][1]) // the tool signs with whatever key comes first, when it is told a label only
	message := []byte("what the token is asked to do for " + v.Name)
	r.write("message", message)
	r.write("public.pem", r.run("openssl", "pkey", "-in", r.vector(v.Name+".key.pem"), "-pubout"))
	tool("--id", id, "--sign", "--mechanism", "SHA256-RSA-PKCS", "--input-file", "message", "--output-file", "signature")
	r.run("openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message")
	r.run("openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", "-in", "message", "-out", "encrypted")
	tool("--id", id, "--decrypt", "--mechanism", "RSA-PKCS", "--input-file", "encrypted", "--output-file", "decrypted")
	if got := r.read("decrypted"); !bytes.Equal(got, message) {
		r.Errorf("%s: the token decrypts to %q", v.Name, got)
	}
}
