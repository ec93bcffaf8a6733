// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// asciiOf takes the zeros out of UTF-16 text, so that a search sees it as UTF-8.
func asciiOf(b []byte) []byte { return bytes.ReplaceAll(b, []byte{0}, nil) }

// spellings are the ways in which bytes may be written down: as they are, in
// hex, in base64 at each of the three places that they may begin at.
func spellings(secret []byte) [][]byte {
	all := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		all = append(all, []byte(text[4:len(text)-4]))
	}
	return all
}

// secretsOf are the parts of a private key, the blob and its ciphertext.
func secretsOf(v vectors.TPD, e *Export) map[string][]byte {
	key := v.Key
	secrets := map[string][]byte{"ciphertext": e.Key()}
	for name, x := range map[string]*big.Int{
		"D": key.D, "P": key.Primes[0], "Q": key.Primes[1],
		"dP": key.Precomputed.Dp, "dQ": key.Precomputed.Dq, "qInv": key.Precomputed.Qinv,
	} {
		big := x.Bytes()
		little := slices.Clone(big)
		slices.Reverse(little)
		secrets[name+" big-endian"], secrets[name+" little-endian"] = big, little
	}
	return secrets
}

// found returns the name of a secret of which 24 bytes in a row, cut anywhere
// into pieces of that length, are in one of the texts, or "".
func found(secrets map[string][]byte, texts ...[]byte) string {
	for _, text := range slices.Clone(texts) {
		texts = append(texts, asciiOf(text))
	}
	for name, secret := range secrets {
		for piece := range slices.Chunk(secret[:len(secret)/24*24], 24) {
			for _, spelling := range spellings(piece) {
				for _, text := range texts {
					if bytes.Contains(text, spelling) {
						return name
					}
				}
			}
		}
	}
	return ""
}

func TestNothingOfTheKeyRemains(t *testing.T) {
	for _, v := range vectors.AllTPD(t) {
		if !strings.HasPrefix(v.Name, "contoso-") {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			e, d := open(t, v)
			secrets := secretsOf(v, e)
			for _, element := range []KeylessElement{OmitElement, EmptyElement} {
				checkNothingRemains(t, d, keylessOf(t, d, element), v.Password, secrets)
				fresh, oneTime, err := d.KeylessFresh(element)
				if err != nil {
					t.Fatal(err)
				}
				checkNothingRemains(t, d, fresh, oneTime, secrets)
				checkFresh(t, v, d, fresh, oneTime)
			}
			// The search finds what is there: else it would tell nothing.
			blob, _ := DecryptField(e.Key(), keyOf(v.Password, Derivation(v.KDF)))
			if found(secrets, v.XML) != "ciphertext" || found(secrets, blob) == "" || found(secrets, []byte(base64.StdEncoding.EncodeToString(blob))) == "" {
				t.Error("the search overlooks the key where it is")
			}
		})
	}
}

// keyOf is the AES key of a password.
func keyOf(password []byte, d Derivation) []byte {
	if d == Legacy {
		return LegacyKey(password)
	}
	return CurrentKey(password)
}

// checkNothingRemains asserts that a keyless TPD and its document hold none of
// the secrets, and the same domain as the export.
func checkNothingRemains(t *testing.T, d *Domain, keyless, password []byte, secrets map[string][]byte) {
	t.Helper()
	again, err := Parse(keyless)
	if err != nil {
		t.Fatal(err)
	}
	domain, err := again.Decrypt(password)
	if err != nil {
		t.Fatal(err)
	}
	document, _ := DecryptField(again.Document(), keyOf(password, domain.DocumentDerivation))
	if name := found(secrets, keyless, document); name != "" {
		t.Errorf("%s is in the keyless TPD", name)
	}
	if *domain.Info != *d.Info || !slices.Equal(domain.Chain, d.Chain) || !slices.Equal(domain.Templates, d.Templates) || domain.Key != nil || again.HasKey() {
		t.Error("the keyless TPD holds another domain, or a key")
	}
}

// checkFresh asserts that the one-time password is new each time and long
// enough, and that no other opens the keyless TPD.
func checkFresh(t *testing.T, v vectors.TPD, d *Domain, fresh, oneTime []byte) {
	t.Helper()
	if !regexp.MustCompile(`^[a-kmnp-z2-9]{26}$`).Match(oneTime) {
		t.Errorf("the one-time password is %q", oneTime)
	}
	again, err := Parse(fresh)
	if err != nil {
		t.Fatal(err)
	}
	_, err = again.Decrypt(v.Password)
	refusedBy(t, err, control.TPDPassword)
	_, err = d.Export().Decrypt(oneTime)
	refusedBy(t, err, control.TPDPassword)
	_, other, err := d.KeylessFresh(OmitElement)
	if err != nil || bytes.Equal(oneTime, other) {
		t.Errorf("the one-time password is the same again, %v", err)
	}
}

// A document that carries the key a second time has no keyless form.
func TestKeylessRefusesEmbeddedKey(t *testing.T) {
	d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	replace("<nKeyNumber>", "<strEncryptedPrivateKey>AAAA</strEncryptedPrivateKey><nKeyNumber>")(t, d)
	domain, err := decryptDraft(t, d)
	if err != nil {
		t.Fatal(err)
	}
	_, err = domain.Keyless(OmitElement)
	refusedBy(t, err, control.TPDKeyEmbedded)
	_, _, err = domain.KeylessFresh(OmitElement)
	refusedBy(t, err, control.TPDKeyEmbedded)
}

// keylessOf is the keyless TPD.
func keylessOf(t testing.TB, d *Domain, element KeylessElement) []byte {
	t.Helper()
	keyless, err := d.Keyless(element)
	if err != nil {
		t.Fatal(err)
	}
	return keyless
}

// However an export is spelled, its keyless TPD is what .NET Framework's
// serializer writes, around the same document.
func TestKeylessIsWrittenAnew(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	text := string(v.XML)
	document := documentElement.FindString(text)
	want := "<?xml version=\"1.0\"?>\r\n<ArrayOfAnyType xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\">\r\n" +
		"  <anyType xsi:type=\"EncryptedTrustedDocDomain\">\r\n    " + document + "\r\n  </anyType>\r\n</ArrayOfAnyType>"
	for name, spelled := range map[string]string{
		"as exported":    text,
		"one line":       strings.ReplaceAll(text, "\r\n", ""),
		"empty key":      keyElement.ReplaceAllString(text, "<m_strKeyData />"),
		"null key":       keyElement.ReplaceAllString(text, `<m_strKeyData xsi:nil="true"></m_strKeyData>`),
		"byte mark":      "\uFEFF" + text,
		"UTF-16LE":       string(style{encoding: "utf-16le"}.encode(text)),
		"UTF-16BE":       string(style{encoding: "utf-16be"}.encode(text)),
		"blanks":         strings.Replace(text, "<m_strTrustedDocDomainInfo>", "<m_strTrustedDocDomainInfo> \t\r\n", 1),
		"unknown things": strings.Replace(text, "<anyType ", "<!-- x --><?x y?><x>ü€𝄞</x><anyType a='1' ", 1) + "<!-- " + keyElement.FindString(text) + " -->",
	} {
		v.XML = []byte(spelled)
		_, d := open(t, v)
		if got := string(keylessOf(t, d, OmitElement)); got != want {
			t.Errorf("%s: got\n%.400q, expected\n%.400q", name, got, want)
		}
		if got := string(keylessOf(t, d, EmptyElement)); got != strings.Replace(want, document, document+"\r\n    <m_strKeyData />", 1) {
			t.Errorf("%s: with an empty element: got\n%.400q", name, got)
		}
	}
}

// Wherever the private key is hidden in the document, and however it is spelled
// there, nothing leaves.
func TestTPDKeyless(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	e, d := open(t, v)
	blob, _ := DecryptField(e.Key(), CurrentKey(v.Password))
	p := v.Key.Primes[0].Bytes()
	inLines := func(s string) string { return regexp.MustCompile(`.{1,64}`).ReplaceAllString(s, "$0\n") }
	places := map[string]func(*draft, string){
		"container": func(d *draft, s string) {
			d.document = strings.Replace(d.document, "<strKeyContainerName>", "<strKeyContainerName>"+s, 1)
		},
		"unknown element": func(d *draft, s string) {
			d.document = strings.Replace(d.document, "<m_ttdki>", "<x>"+s+"</x><m_ttdki>", 1)
		},
		"comment": func(d *draft, s string) { d.document += "<!-- " + strings.ReplaceAll(s, "--", "") + " -->" },
		"attribute of XrML": func(d *draft, s string) {
			d.templates[0] = strings.Replace(d.templates[0], "<XrML ", "<XrML a='"+strings.ReplaceAll(s, "\n", " ")+"' ", 1)
		},
		"element beside the BODY": func(d *draft, s string) {
			d.chain[1] = strings.Replace(d.chain[1], "<SIGNATURE>", "<X>"+s+"</X><SIGNATURE>", 1)
		},
		"name of an unknown field": func(d *draft, s string) {
			d.document = strings.Replace(d.document, "<m_ttdki>", "<x><a>"+s+"</a></x><m_ttdki>", 1)
		},
	}
	spellings := map[string]string{
		"ciphertext":              base64.StdEncoding.EncodeToString(e.Key()),
		"ciphertext in lines":     inLines(base64.StdEncoding.EncodeToString(e.Key())),
		"ciphertext in hex":       hex.EncodeToString(e.Key()),
		"blob":                    base64.StdEncoding.EncodeToString(blob),
		"blob in base64url":       base64.RawURLEncoding.EncodeToString(blob),
		"blob behind a byte":      base64.StdEncoding.EncodeToString(append([]byte{1}, blob...)),
		"blob in upper-case hex":  strings.ToUpper(hex.EncodeToString(blob)),
		"blob as BitConverter":    strings.ToUpper(regexp.MustCompile(`..`).ReplaceAllString(hex.EncodeToString(blob), "$0-")),
		"one prime":               base64.StdEncoding.EncodeToString(p),
		"one prime as references": regexp.MustCompile(`.`).ReplaceAllStringFunc(base64.StdEncoding.EncodeToString(p), func(c string) string { return fmt.Sprintf("&#%d;", c[0]) }),
	}
	for place, hide := range places {
		for spelling, secret := range spellings {
			draft := takeApart(t, v)
			hide(draft, secret)
			domain, err := decryptDraft(t, draft)
			if err != nil {
				t.Fatalf("%s, %s: %v", place, spelling, err)
			}
			_, err = domain.Checked(terms)
			refusedBy(t, err, control.TPDKeyless)
			_, err = domain.Keyless(OmitElement)
			refusedBy(t, err, control.TPDKeyless)
			_, _, err = domain.KeylessFresh(OmitElement)
			if refusedBy(t, err, control.TPDKeyless); t.Failed() {
				t.Fatalf("%s, %s", place, spelling)
			}
		}
	}
	for _, name := range []string{"hide-comment", "hide-element"} { // in the file, which is written anew
		e, d := open(t, vectors.TPD{Name: name, XML: vectors.Odd(t, name), Password: []byte(vectors.OddPassword)})
		if _, err := d.Checked(terms); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(string(keylessOf(t, d, OmitElement)), base64.StdEncoding.EncodeToString(e.Key())[:40]) {
			t.Errorf("%s: the keyless TPD carries the key", name)
		}
	}
	keylessOf(t, d, OmitElement)
}
