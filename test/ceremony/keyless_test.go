// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"keyferry/test/vectors"
)

// judgeKeyless decrypts the keyless TPD with OpenSSL and the export's password.
// It must hold the very document of the export, and nothing of the key.
func (r *rehearsal) judgeKeyless(v vectors.TPD) {
	r.Helper()
	keyless := r.read("transfer", "no_key_tpd_"+v.Name+".xml")
	if strings.Contains(utf8Text(keyless), "m_strKeyData") {
		r.Errorf("%s: the keyless TPD has a key field", v.Name)
	}
	got, want := r.document(v, keyless), r.document(v, v.XML)
	if !bytes.Equal(got, want) || !bytes.Contains(got, []byte("TrustedDocDomain")) {
		r.Errorf("%s: the keyless TPD holds another document", v.Name)
	}
	for _, data := range [][]byte{keyless, []byte(utf8Text(keyless)), got} {
		if trace := traceOf(v, data); trace != "" {
			r.Errorf("%s: the keyless TPD holds %s", v.Name, trace)
		}
	}
}

// document decrypts the first field of a TPD with OpenSSL.
func (r *rehearsal) document(v vectors.TPD, tpd []byte) []byte {
	r.Helper()
	field := regexp.MustCompile(`<m_strTrustedDocDomainInfo>([^<]+)<`).FindStringSubmatch(utf8Text(tpd))
	if field == nil {
		r.Fatalf("%s: no m_strTrustedDocDomainInfo", v.Name)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(field[1]), ""))
	if err != nil {
		r.Fatal(err)
	}
	return r.feed(data, "openssl", "enc", "-d", "-aes-128-cbc", "-K", hex.EncodeToString(passwordKey(v)), "-iv", "0102030405060708090a0b0c0d0e0f10")
}

// passwordKey derives the AES key: SHA-256 of the password in UTF-16LE or, by
// old exports, SHA-1 of it in UTF-8, a hundred times over.
func passwordKey(v vectors.TPD) []byte {
	if v.KDF == "legacy" {
		key := v.Password
		for range 100 {
			sum := sha1.Sum(key)
			key = sum[:]
		}
		return key[:16]
	}
	var wide []byte
	for _, unit := range utf16.Encode([]rune(string(v.Password))) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	sum := sha256.Sum256(wide)
	return sum[:16]
}

// utf8Text is the text of a file that may be UTF-16 with a byte order mark.
func utf8Text(data []byte) string {
	if !bytes.HasPrefix(data, []byte{0xff, 0xfe}) {
		return string(data)
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	return string(utf16.Decode(units))
}

// noKeyIn searches all files below dir for traces of the keys.
func (r *rehearsal) noKeyIn(dir string, keys []vectors.TPD) {
	r.Helper()
	files := 0
	err := filepath.WalkDir(r.path(dir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, v := range keys {
			if trace := traceOf(v, data); trace != "" {
				r.Errorf("%s holds %s of %s", path, trace, v.Name)
			}
		}
		return nil
	})
	if err != nil || files < 3*len(keys) {
		r.Errorf("%d files searched: %v", files, err)
	}
}

// traceOf names what of the private key is in data: any 16 bytes of one of its
// numbers, in either byte order, raw, in hex, or in base64 wherever in its
// groups of three they begin. It is empty when there is nothing.
func traceOf(v vectors.TPD, data []byte) string {
	lower := bytes.ToLower(data)
	for name, number := range map[string]*big.Int{
		"D": v.Key.D, "P": v.Key.Primes[0], "Q": v.Key.Primes[1],
		"DP": v.Key.Precomputed.Dp, "DQ": v.Key.Precomputed.Dq, "QInv": v.Key.Precomputed.Qinv,
	} {
		big := number.Bytes()
		little := slices.Clone(big)
		slices.Reverse(little)
		for _, whole := range [][]byte{big, little} {
			for at := 0; at+16 <= len(whole); at += 16 {
				if how := contains(data, lower, whole[at:at+16]); how != "" {
					return name + " in " + how
				}
			}
		}
	}
	return ""
}

func contains(data, lower, part []byte) string {
	if bytes.Contains(data, part) {
		return "bytes"
	}
	if bytes.Contains(lower, []byte(hex.EncodeToString(part))) {
		return "hex"
	}
	for skip := range 3 { // the groups of three that lie within part
		groups := part[skip : skip+(len(part)-skip)/3*3]
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if bytes.Contains(data, []byte(encoding.EncodeToString(groups))) {
				return "base64"
			}
		}
	}
	return ""
}

// TestTraceOf plants a key in every way that traceOf must see, and none.
func TestTraceOf(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	d := v.Key.D.Bytes()
	little := slices.Clone(v.Key.Primes[1].Bytes())
	slices.Reverse(little)
	for name, planted := range map[string][]byte{
		"raw":                 d[32:64],
		"little-endian":       little,
		"hex":                 []byte(hex.EncodeToString(d)),
		"upper-case hex":      []byte(strings.ToUpper(hex.EncodeToString(d))),
		"base64":              []byte(base64.StdEncoding.EncodeToString(d)),
		"base64, one before":  []byte(base64.StdEncoding.EncodeToString(append([]byte{1}, d...))),
		"base64, two before":  []byte(base64.StdEncoding.EncodeToString(append([]byte{1, 2}, d...))),
		"base64 for URLs":     []byte(base64.URLEncoding.EncodeToString(d)),
		"PKCS #8 in some PEM": []byte(base64.StdEncoding.EncodeToString(append(make([]byte, 26), v.Key.Precomputed.Qinv.Bytes()...))),
	} {
		data := slices.Concat(bytes.Repeat([]byte("x"), 1000), planted, bytes.Repeat([]byte("y"), 1000))
		if traceOf(v, data) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
	if trace := traceOf(v, bytes.Repeat(v.Key.N.Bytes(), 3)); trace != "" {
		t.Errorf("the modulus is taken for %s", trace)
	}
}
