// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"keyferry/pkg/control"
	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// The values come from a .NET runtime.
func TestDerivationsAreNETs(t *testing.T) {
	for _, c := range []struct{ password, current, legacy, hello, helloLegacy string }{
		{"Passw0rd!", "b387efadb97691fb9b33fc05b4d845ce", "6f0d94241e334ae6ff6874987880cffd", "M2z1nXVFhCkNSk0vdcYLww==", "h+jlRlaGjjf+O+9WN/Ed7w=="},
		{"Pässw0rd!", "4153825d3dca01e9290e59797d1ddda9", "4cd7d9218eba9c3d1668b9cac7951501", "", ""},
		{"pw", "", "26b284a6a5a84b435ff67c6c3805d893", "", ""},
	} {
		for _, d := range []struct {
			key           []byte
			want, message string
		}{{CurrentKey([]byte(c.password)), c.current, c.hello}, {LegacyKey([]byte(c.password)), c.legacy, c.helloLegacy}} {
			if d.want != "" && hex.EncodeToString(d.key) != d.want {
				t.Errorf("%s: key %x, expected %s", c.password, d.key, d.want)
			}
			if d.message != "" {
				ciphertext, err := base64.StdEncoding.DecodeString(d.message)
				if err != nil {
					t.Fatal(err)
				}
				if plain, padded := DecryptField(ciphertext, d.key); string(plain) != "hello" || !padded {
					t.Errorf("%s: %q, padded %v", c.password, plain, padded)
				}
			}
		}
	}
}

func TestPaddingIsChecked(t *testing.T) {
	key := make([]byte, 16)
	raw := func(last ...byte) []byte {
		block := append(bytes.Repeat([]byte{'x'}, 32-len(last)), last...)
		return EncryptField(block, key)[:32] // less the padding that encrypt adds
	}
	for name, c := range map[string]struct {
		ciphertext []byte
		length     int
		padded     bool
	}{
		"one":         {raw(1), 31, true},
		"whole block": {raw(bytes.Repeat([]byte{16}, 16)...), 16, true},
		"zero":        {raw(0), 32, false},
		"too long":    {raw(bytes.Repeat([]byte{17}, 17)...), 32, false},
		"not uniform": {raw(2, 3, 3), 32, false},
	} {
		if plain, padded := DecryptField(c.ciphertext, key); len(plain) != c.length || padded != c.padded {
			t.Errorf("%s: %d bytes, padded %v", name, len(plain), padded)
		}
	}
}

// openssl runs the command on the input.
func openssl(t *testing.T, input []byte, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("NOT TESTED: no openssl command to compare with; apt-get install openssl")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v", args, err)
	}
	return out
}

// OpenSSL derives the same keys, decrypts the fields to the same bytes, and
// reads the same private key out of the blob.
func TestOpenSSLAgrees(t *testing.T) {
	for _, name := range []string{"contoso-mode2", "contoso-mode1", "contoso-legacy-kdf", "contoso-signature-key", "contoso-unicode-password"} {
		t.Run(name, func(t *testing.T) {
			v := vectors.OneTPD(t, name)
			e, d := open(t, v)
			var derived []byte
			if d.DocumentDerivation == Legacy {
				derived = v.Password
				for range 100 {
					derived = openssl(t, derived, "dgst", "-sha1", "-binary")
				}
			} else {
				var wide []byte
				for _, unit := range utf16.Encode([]rune(string(v.Password))) {
					wide = append(wide, byte(unit), byte(unit>>8))
				}
				derived = openssl(t, wide, "dgst", "-sha256", "-binary")
			}
			decipher := []string{"enc", "-d", "-aes-128-cbc", "-K", hex.EncodeToString(derived[:16]), "-iv", "0102030405060708090a0b0c0d0e0f10"}
			again, err := ReadDocument(openssl(t, e.Document(), decipher...))
			if err != nil || !slices.Equal(again.Chain, d.Chain) || !slices.Equal(again.Templates, d.Templates) {
				t.Errorf("the document that openssl decrypts is another: %v", err)
			}
			blob := openssl(t, e.Key(), decipher...)
			der := openssl(t, blob, "rsa", "-inform", "MSBLOB", "-outform", "DER", "-traditional")
			key, err := x509.ParsePKCS1PrivateKey(der)
			if err != nil {
				t.Fatal(err)
			}
			if !key.Equal(d.Key) {
				t.Error("openssl reads another private key out of the blob")
			}
		})
	}
}

// The right password is not blamed for a document in another alphabet, sound or
// damaged; a wrong one is.
func TestOtherAlphabets(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	for _, encoding := range []string{"utf-8", "bom", "utf-16le", "utf-16be"} {
		for _, declaration := range []string{`<?xml version="1.0"?>`, ""} {
			for _, damaged := range []bool{false, true} {
				d := takeApart(t, v)
				text := strings.Replace(d.document, "<m_ttdki>", "<備考>"+strings.Repeat("社外秘の鍵", 20000)+"</備考><m_ttdki>", 1)
				text = strings.Replace(text, `<?xml version="1.0"?>`, declaration, 1)
				if damaged {
					text = strings.Replace(text, "</m_ttdki>", "</m_ttdk>", 1)
				}
				text = strings.Replace(strings.Replace(text, "{CHAIN}", stringElements(d.chain), 1), "{TEMPLATES}", stringElements(d.templates), 1)
				d.document = string(style{encoding: encoding}.encode(strings.TrimSpace(text)))
				domain, err := decryptDraft(t, d)
				switch {
				case damaged:
					refusedBy(t, err, control.TPDDocument)
				case err != nil:
					t.Errorf("%s, %q: %v", encoding, declaration, err)
				default:
					if _, err := domain.Checked(terms); err != nil {
						t.Errorf("%s, %q: %v", encoding, declaration, err)
					}
				}
				e, err := Parse(d.export())
				if err != nil {
					t.Fatal(err)
				}
				_, err = e.Decrypt([]byte("another"))
				refusedBy(t, err, control.TPDPassword)
			}
		}
	}
}

// A damaged key is a key all the same: it stands in the way, and a keyless copy
// is without it.
func TestDamagedKey(t *testing.T) {
	for _, damage := range []string{"*", "A", "AAAA"} {
		draft := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
		damageKey(damage)(t, draft)
		e, err := Parse(draft.export())
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Decrypt(draft.password)
		if err != nil {
			t.Fatal(err)
		}
		if !e.HasKey() || e.KeyBits() != 0 || d.Key != nil || !d.Check(terms).HasKey {
			t.Errorf("%s: has key %v, %d bits", damage, e.HasKey(), e.KeyBits())
		}
		checked, err := d.Checked(terms)
		if refusedBy(t, err, control.TPDKeyDecrypt); checked != nil {
			t.Errorf("%s: the domain is checked", damage)
		}
		_, err = d.CheckedKeyless(terms)
		refusedBy(t, err, control.TPDKeyPresent)
		for _, element := range []KeylessElement{OmitElement, EmptyElement} {
			if keyless, err := Parse(keylessOf(t, d, element)); err != nil || keyless.HasKey() {
				t.Errorf("%s: the keyless copy has a key, or %v", damage, err)
			}
		}
	}
}
