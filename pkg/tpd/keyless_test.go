// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"keyferry/pkg/control"
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
	secrets := map[string][]byte{"ciphertext": e.key}
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
				checkNothingRemains(t, d, whole(e.Keyless(element)), v.Password, secrets)
				fresh, oneTime, err := e.KeylessFresh(element, v.Password)
				if err != nil {
					t.Fatal(err)
				}
				checkNothingRemains(t, d, whole(fresh), oneTime, secrets)
				checkFresh(t, v, e, whole(fresh), oneTime)
			}
			// The search finds what is there: else it would tell nothing.
			blob, _ := decrypt(bytes.Clone(e.key), keyOf(v.Password, Derivation(v.KDF)))
			if found(secrets, v.XML) != "ciphertext" || found(secrets, blob) == "" || found(secrets, []byte(base64.StdEncoding.EncodeToString(blob))) == "" {
				t.Error("the search overlooks the key where it is")
			}
		})
	}
}

// keyOf is the AES key of a password.
func keyOf(password []byte, d Derivation) []byte {
	if d == Legacy {
		return legacyKey(password)
	}
	return currentKey(password)
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
	document, _ := decrypt(ciphertextOf(t, again), keyOf(password, domain.DocumentDerivation))
	if name := found(secrets, keyless, document); name != "" {
		t.Errorf("%s is in the keyless TPD", name)
	}
	if *domain.Info != *d.Info || !slices.Equal(domain.Chain, d.Chain) || !slices.Equal(domain.Templates, d.Templates) || domain.Key != nil || again.HasKey() {
		t.Error("the keyless TPD holds another domain, or a key")
	}
}

// checkFresh asserts that the one-time password is new each time and long
// enough, and that no other opens the keyless TPD.
func checkFresh(t *testing.T, v vectors.TPD, e *Export, fresh, oneTime []byte) {
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
	_, err = e.Decrypt(oneTime)
	refusedBy(t, err, control.TPDPassword)
	_, other, err := e.KeylessFresh(OmitElement, v.Password)
	if err != nil || bytes.Equal(oneTime, other) {
		t.Errorf("the one-time password is the same again, %v", err)
	}
	if _, _, err = e.KeylessFresh(OmitElement, []byte("wrong")); !control.Is(err, control.TPDPassword) {
		t.Errorf("with a wrong password: %v", err)
	}
}

// A document that carries the key a second time has no fresh keyless form.
func TestKeylessFreshRefusesEmbeddedKey(t *testing.T) {
	d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	replace("<nKeyNumber>", "<strEncryptedPrivateKey>AAAA</strEncryptedPrivateKey><nKeyNumber>")(t, d)
	e, err := Parse(d.export())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = e.KeylessFresh(OmitElement, d.password)
	refusedBy(t, err, control.TPDKeyEmbedded)
}

func TestParseKeylessElement(t *testing.T) {
	for _, s := range []string{"omit", "empty"} {
		if e, err := ParseKeylessElement(s); err != nil || string(e) != s {
			t.Errorf("%s: %q, %v", s, e, err)
		}
	}
	if _, err := ParseKeylessElement("nil"); err == nil {
		t.Error("nil is accepted")
	}
}

// The keyless TPD is the export with one piece cut out, and nothing else.
func TestKeylessIsTheExportLessOneElement(t *testing.T) {
	element := regexp.MustCompile(`\s*<m_strKeyData.*?(/>|</m_strKeyData>)`)
	text := string(vectors.OneTPD(t, "contoso-mode2").XML)
	wide := func(s string, low, high int) string {
		var b []byte
		for _, unit := range utf16.Encode([]rune("\uFEFF" + s)) {
			pair := [2]byte{}
			pair[low], pair[high] = byte(unit), byte(unit>>8)
			b = append(b, pair[:]...)
		}
		return string(b)
	}
	same := func(s string) string { return s }
	for name, c := range map[string]struct {
		text   string
		encode func(string) string
	}{
		"as exported":   {text, same},
		"line feeds":    {strings.ReplaceAll(text, "\r\n", "\n"), same},
		"one line":      {strings.ReplaceAll(text, "\r\n", ""), same},
		"key first":     {regexp.MustCompile(`(?s)(<m_strTrusted.*</m_strTrustedDocDomainInfo>\r\n)(.*</m_strKeyData>\r\n)`).ReplaceAllString(text, "$2$1"), same},
		"empty key":     {keyElement.ReplaceAllString(text, "<m_strKeyData />"), same},
		"null key":      {keyElement.ReplaceAllString(text, `<m_strKeyData xsi:nil="true"></m_strKeyData>`), same},
		"byte mark":     {text, func(s string) string { return "\uFEFF" + s }},
		"UTF-16LE":      {text, func(s string) string { return wide(s, 0, 1) }},
		"UTF-16BE":      {text, func(s string) string { return wide(s, 1, 0) }},
		"outside ASCII": {strings.Replace(text, "<m_strKeyData>", "<x>ü€𝄞</x><m_strKeyData>", 1), func(s string) string { return wide(s, 0, 1) }},
		"no key":        {element.ReplaceAllString(text, ""), same},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Parse([]byte(c.encode(c.text)))
			if err != nil {
				t.Fatal(err)
			}
			if want := c.encode(element.ReplaceAllString(c.text, "")); string(whole(e.Keyless(OmitElement))) != want {
				t.Errorf("got\n%.300q, expected\n%.300q", whole(e.Keyless(OmitElement)), want)
			}
			if want := c.encode(regexp.MustCompile(`<m_strKeyData.*?(/>|</m_strKeyData>)`).ReplaceAllString(c.text, "<m_strKeyData />")); string(whole(e.Keyless(EmptyElement))) != want {
				t.Errorf("with an empty element: got\n%.300q, expected\n%.300q", whole(e.Keyless(EmptyElement)), want)
			}
		})
	}
}

// ciphertextOf is the document's, also after it was decrypted.
func ciphertextOf(t testing.TB, e *Export) []byte {
	t.Helper()
	ciphertext, err := e.take()
	if err != nil {
		t.Fatal(err)
	}
	return ciphertext
}

// whole is a file in one piece.
func whole(p Pieces) []byte { return bytes.Join(p, nil) }
