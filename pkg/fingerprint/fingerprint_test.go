// SPDX-License-Identifier: Apache-2.0

package fingerprint

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"unicode"
)

// abc is SHA-256("abc"), FIPS 180-4.
const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestForms(t *testing.T) {
	f := Of([]byte("abc"))
	for _, c := range []struct{ form, got, want string }{
		{"String", f.String(), "SHA256:" + abc},
		{"Hex", f.Hex(), abc},
		{"SSH", f.SSH(), "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"},
		{"Grouped", f.Grouped(), "ba78 16bf 8f01 cfea 4141 40de 5dae 2223\nb003 61a3 9617 7a9c b410 ff61 f200 15ad"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.form, c.got, c.want)
		}
	}
}

func TestParseReadsEachForm(t *testing.T) {
	want := Of([]byte("abc"))
	for name, s := range map[string]string{
		"String":            want.String(),
		"Hex":               want.Hex(),
		"upper-case hex":    strings.ToUpper(want.Hex()),
		"Grouped":           want.Grouped(),
		"Grouped, prefixed": "SHA256:" + want.Grouped(),
		"SSH":               want.SSH(),
		"base64 alone":      strings.TrimPrefix(want.SSH(), "SHA256:"),
		"spaces around":     "  " + want.String() + "\r\n",
		"lower-case prefix": "sha256:" + want.Hex(),
		"OpenSSL's colons":  "BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD",
		"words":             strings.Join(want.Words(), " "),
		"shouted words":     strings.ToUpper(strings.Join(want.Words(), ", ")),
		"rows":              want.Rows(),
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	f := Of([]byte("abc"))
	for name, s := range map[string]string{
		"nothing":               "",
		"prefix alone":          "SHA256:",
		"other digest":          "MD5:" + f.Hex(),
		"a digit short":         f.Hex()[1:],
		"a byte short":          f.Hex()[2:],
		"a byte long":           f.Hex() + "00",
		"no hex digit":          "g" + f.Hex()[1:],
		"padded base64":         f.SSH() + "=",
		"base64 with bits left": f.SSH()[:len(f.SSH())-1] + "1",
		"base64 with a gap":     f.SSH()[:20] + " " + f.SSH()[20:],
		"URL base64":            strings.ReplaceAll(f.SSH(), "+", "-"),
		"31 words":              strings.Join(f.Words()[1:], " "),
		"33 words":              strings.Join(f.Words(), " ") + " tissue",
		"swapped words":         f.Words()[1] + " " + f.Words()[0] + " " + strings.Join(f.Words()[2:], " "),
		"a word that is none":   strings.Join(f.Words()[1:], " ") + " carrot",
		"prefix twice":          "SHA256:" + f.String(),
	} {
		if got, err := Parse(s); err == nil {
			t.Errorf("%s: %q was read as %v", name, s, got)
		}
	}
}

func TestDocumentsHaveOneSpelling(t *testing.T) {
	want := Of([]byte("abc"))
	data, err := json.Marshal(want)
	if err != nil || string(data) != `"SHA256:`+abc+`"` {
		t.Fatalf("got %s, %v", data, err)
	}
	var got Fingerprint
	if err := json.Unmarshal(data, &got); err != nil || got != want {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{want.Hex(), want.SSH(), want.Grouped(), "SHA256:" + strings.ToUpper(abc), " " + want.String(), ""} {
		if err := got.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestWordList(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(wordList, "\n"), "\n")
	if len(lines) != 256 || len(words) != 512 {
		t.Fatalf("the list has %d lines and %d words, want 256 and 512", len(lines), len(words))
	}
	seen := map[string]bool{}
	for i, line := range lines {
		if len(strings.Fields(line)) != 2 {
			t.Errorf("line %d has not two words: %q", i+1, line)
		}
	}
	for _, w := range words {
		if folded := strings.ToLower(w); seen[folded] {
			t.Errorf("%s occurs twice", w)
		} else {
			seen[folded] = true
		}
		if strings.IndexFunc(w, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) }) >= 0 {
			t.Errorf("%q can't be read aloud", w)
		}
	}
}

// A wrong entry would be as wrong on both sides, so the list is held against
// what others have: the published example of a PGP fingerprint in words, and
// the digest of the list when it was compared with Magic Wormhole's copy.
func TestWordsAreThePGPWords(t *testing.T) {
	const published = "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa " +
		"afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless"
	raw, err := hex.DecodeString("E58294F2E9A227486E8B061B31CC528FD7FA3F19")
	if err != nil {
		t.Fatal(err)
	}
	var f Fingerprint
	copy(f[:], raw)
	got := f.Words()
	if len(got) != sha256.Size {
		t.Fatalf("%d words for %d bytes", len(got), sha256.Size)
	}
	if spoken := strings.Join(got[:len(raw)], " "); spoken != published {
		t.Errorf("got  %s\nwant %s", spoken, published)
	}
	if is := Of([]byte(wordList)).Hex(); is != "f816e91d6148165fc67361aa1886eb71ad6b19c9d65673ca40fa96e160f02f5a" {
		t.Errorf("the list was changed: its SHA-256 is %s", is)
	}
}

// Swapping two neighbours, or leaving a word out, gives words from the wrong
// half of the list: that is heard.
func TestPlaceIsHeard(t *testing.T) {
	even, odd := map[string]bool{}, map[string]bool{}
	for i, w := range words {
		if i%2 == 0 {
			even[w] = true
		} else {
			odd[w] = true
		}
	}
	for i, w := range Of([]byte("abc")).Words() {
		if i%2 == 0 && !even[w] || i%2 == 1 && !odd[w] {
			t.Errorf("word %d, %s, is of the other half", i, w)
		}
	}
}

// OfKey is what OpenSSL says of the key.
func TestOfKeyIsOpenSSLs(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := x509.MarshalPKCS1PublicKey(&key.PublicKey)
	cmd := exec.Command("openssl", "rsa", "-RSAPublicKey_in", "-inform", "DER", "-pubout", "-outform", "DER")
	cmd.Stdin = bytes.NewReader(der)
	pkix, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("openssl", "dgst", "-sha256", "-hex")
	cmd.Stdin = bytes.NewReader(pkix)
	digest, err := cmd.Output()
	if err != nil || !strings.Contains(string(digest), OfKey(&key.PublicKey).Hex()) {
		t.Errorf("openssl says %s, we %s, %v", digest, OfKey(&key.PublicKey), err)
	}
}

// Rows are what is read aloud: eight of four words, headed by the number of the
// first, narrow enough for any terminal.
func TestRows(t *testing.T) {
	longest := 0
	for _, w := range words {
		longest = max(longest, len(w))
	}
	if longest != 11 {
		t.Errorf("the longest word has %d letters: the columns are for 11", longest)
	}
	f := Of([]byte("abc"))
	rows := strings.Split(f.Rows(), "\n")
	if len(rows) != 8 {
		t.Fatalf("%d rows:\n%s", len(rows), f.Rows())
	}
	for i, row := range rows {
		fields := strings.Fields(row)
		if len(row) > 60 || row != strings.TrimRight(row, " ") || len(fields) != 5 || fields[0] != fmt.Sprint(4*i+1) || strings.Join(fields[1:], " ") != strings.Join(f.Words()[4*i:4*i+4], " ") {
			t.Errorf("row %d is %q", i+1, row)
		}
	}
}
