// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"filippo.io/age"
	kwp "github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/pkg/tpd/xrml"
)

//go:embed testdata
var testdata embed.FS

// samplePassword opens the sample export.
const samplePassword = "Passw0rd!"

// sampleKey and sampleRoot are fingerprints: of the sample's key, and of the
// root key at the end of its chain.
const (
	sampleKey  = "e6af9d5703e4c4a594e858a73cc81c6b1eb6c6ce2a0231eb74e5582d67ba4d68"
	sampleRoot = "bdfe71e957917f6f5432e2186ea3deef4c2f0ec40740155bc6119ae27241079c"
)

// plaintext is in both age files, and what ssh-keygen signed.
const plaintext = "keyferry self-test\n"

func questions() []question {
	s := &sample{}
	return []question{
		{"SHA-1", unhex("a9993e364706816aba3e25717850c26c9cd0d89d"), func() ([]byte, error) {
			sum := sha1.Sum([]byte("abc"))
			return sum[:], nil
		}},
		{"SHA-256", unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), func() ([]byte, error) {
			sum := sha256.Sum256([]byte("abc"))
			return sum[:], nil
		}},
		{"AES-CBC", unhex("6bc1bee22e409f96e93d7e117393172a"), decryptBlock},
		{"AES-KWP", []byte("keyferry self-test KWP"), unwrap},
		{"TPD decryption", []byte(sampleKey), s.decrypt},
		{"RSA-OAEP", unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"), s.openOAEP},
		{"XrML signatures", []byte(sampleRoot), s.verifyChain},
		{"age (X25519)", []byte(plaintext), func() ([]byte, error) { return openAge("classic") }},
		{"age (hybrid)", []byte(plaintext), func() ([]byte, error) { return openAge("hybrid") }},
		{"SSHSIG", file("sshsig.sig"), sign},
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // not for the constants above
	}
	return b
}

// file reads what was embedded when the program was built.
func file(name string) []byte {
	data, err := testdata.ReadFile("testdata/" + name)
	if err != nil {
		panic(err) // the compiler saw to it
	}
	return data
}

func decryptBlock() ([]byte, error) {
	block, err := aes.NewCipher(unhex("2b7e151628aed2a6abf7158809cf4f3c"))
	if err != nil {
		return nil, err
	}
	plain := unhex("7649abac8119b246cee98e9b12e9197d")
	cipher.NewCBCDecrypter(block, unhex("000102030405060708090a0b0c0d0e0f")).CryptBlocks(plain, plain)
	return plain, nil
}

// unwrap wraps and unwraps.
func unwrap() ([]byte, error) {
	wrapper, err := kwp.NewKWP(unhex("1abf4b7fa2bb62a78f09ddab04625dcacdd9e551d1a69b6b162baa53d2700093"))
	if err != nil {
		return nil, err
	}
	wrapped := unhex("488fc21d292840d1a8c335a6fd0304a2f528bce8e860c871aefa3c1ef7d86430")
	plain, err := wrapper.Unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	again, err := wrapper.Wrap(plain)
	if err == nil && !bytes.Equal(again, wrapped) {
		err = errors.New("it wraps otherwise than it unwraps")
	}
	return plain, err
}

// sample is the sample export, decrypted by the first question about it.
type sample struct{ domain *tpd.Domain }

var errNoSample = errors.New("the sample export was not decrypted")

func (s *sample) decrypt() ([]byte, error) {
	export, err := tpd.Parse(file("tpd.xml"))
	if err != nil {
		return nil, err
	}
	if s.domain, err = export.Decrypt([]byte(samplePassword)); err != nil {
		return nil, err
	}
	if s.domain.Key == nil {
		return nil, errors.New("there is no key in it")
	}
	return []byte(fingerprint.OfKey(&s.domain.Key.PublicKey).Hex()), nil
}

func (s *sample) openOAEP() ([]byte, error) {
	if s.domain == nil {
		return nil, errNoSample
	}
	return rsa.DecryptOAEP(sha1.New(), nil, s.domain.Key, file("oaep.bin"), nil)
}

// verifyChain returns the fingerprint of the root key of a chain that holds,
// after a look that it does not hold with another certificate in it.
func (s *sample) verifyChain() ([]byte, error) {
	if s.domain == nil {
		return nil, errNoSample
	}
	chain, err := parse(s.domain.Chain)
	if err != nil {
		return nil, err
	}
	if broken := xrml.VerifyChain(chain); len(broken) > 0 {
		return nil, broken[0].Err
	}
	text := strings.Replace(s.domain.Chain[0].AsIs, "<ISSUEDTIME>2", "<ISSUEDTIME>3", 1)
	forged := append([]xmltree.Text{{AsIs: text, Normalised: text}}, s.domain.Chain[1:]...)
	other, err := parse(forged)
	if err != nil {
		return nil, err
	}
	if len(xrml.VerifyChain(other)) == 0 {
		return nil, errors.New("a forged certificate is taken for a good one")
	}
	return []byte(fingerprint.OfKey(chain[len(chain)-1].Issuer.Key).Hex()), nil
}

func parse(texts []xmltree.Text) ([]*xrml.Certificate, error) {
	var chain []*xrml.Certificate
	for _, text := range texts {
		c, err := xrml.Parse(text)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	return chain, nil
}

func openAge(name string) ([]byte, error) {
	identities, err := age.ParseIdentities(bytes.NewReader(file(name + ".txt")))
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(file(name+".age")), identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// sign makes the signature that ssh-keygen made: Ed25519 leaves it no choice.
// It is verified, and one of another message refused.
func sign() ([]byte, error) {
	const namespace = "keyferry-bundle-v2"
	signer := ed25519.NewKeyFromSeed(unhex("4b1d493a5eab62327eed314aa4bd90742128b7a00a5f355d3874bbee9e73ad17"))
	armored, err := sshsig.Sign(signer, namespace, []byte(plaintext))
	if err != nil {
		return nil, err
	}
	signature, err := sshsig.Parse(armored)
	if err != nil {
		return nil, err
	}
	if err := signature.Verify(namespace, []byte(plaintext)); err != nil {
		return nil, err
	}
	if signature.Verify(namespace, []byte("another message")) == nil {
		return nil, errors.New("a forged message is taken for a signed one")
	}
	return armored, nil
}
