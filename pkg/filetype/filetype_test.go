// SPDX-License-Identifier: Apache-2.0

package filetype

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"keyferry/pkg/control"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Each kind, by a file that the tests of its own package have, or by its first
// lines.
func files(t testing.TB) map[Kind][]byte {
	bundle := read(t, "../../bundle/testdata/golden.kfb")
	tpd := read(t, "../../testdata/vectors/tpd/contoso-mode2.xml")
	return map[Kind][]byte{
		Bundle:     bundle,
		Receipt:    bytes.Replace(bundle, []byte("key-transfer"), []byte("receipt"), 1),
		Request:    bundle[512 : 512+1410],
		World:      read(t, "../trust/testdata/world"),
		KEK:        read(t, "../trust/testdata/kek"),
		Card:       read(t, "../trust/testdata/card"),
		TPD:        tpd,
		Keyless:    keyElement.ReplaceAll(tpd, []byte("<m_strKeyData><")),
		Blob:       []byte(`{"schema_version":"1.0.0","header":{},"ciphertext":""}`),
		Result:     []byte(`{"format":"keyferry-rms-result-v2"}`),
		Index:      []byte("{\n  \"salt\": \"00\",\n  \"files\": []\n}\n"),
		State:      []byte(`{"format":"keyferry-state-v1"}`),
		Signature:  read(t, "../sshsig/testdata/ecdsa-sk.sig"),
		PublicKey:  read(t, "../sshsig/testdata/ecdsa-sk.pub"),
		PrivateKey: []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"),
		PEM:        []byte("-----BEGIN CERTIFICATE-----\n"),
		AgeFile:    []byte("age-encryption.org/v1\n"),
		WebPage:    []byte("<!DOCTYPE html>\n"),
	}
}

func TestOf(t *testing.T) {
	count := 0
	is := func(data []byte, kind Kind, change string) {
		t.Helper()
		if gotKind, gotChange := Of(data); gotKind != kind || !strings.Contains(gotChange, change) || (change == "") != (gotChange == "") {
			t.Errorf("%.40q is %q, %q; want %q, %q", data, gotKind, gotChange, kind, change)
		}
		count++
	}
	for kind, data := range files(t) {
		is(data, kind, "")
		if text := base64.StdEncoding.EncodeToString(data); len(data) > 100 {
			is([]byte(text), kind, "base64")
			if kind != TPD && kind != Keyless {
				is([]byte(text[:min(len(text), 4090)]), kind, "base64") // its beginning
			}
			is([]byte("-----BEGIN CERTIFICATE-----\r\n"+text+"\r\n-----END CERTIFICATE-----\r\n"), kind, "base64") // by certutil -encode
		}
		if kind == Bundle || kind == Receipt {
			continue
		}
		textual := func(change string) string {
			if kind == TPD || kind == Keyless {
				return ""
			}
			return change
		}
		is(append([]byte("\xef\xbb\xbf"), data...), kind, textual("byte order mark"))
		wide := []byte{0xff, 0xfe}
		for _, unit := range utf16.Encode([]rune(string(data))) {
			wide = append(wide, byte(unit), byte(unit>>8))
		}
		is(wide, kind, textual("UTF-16"))
		if bytes.Contains(data, []byte("\n")) {
			is(bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n")), kind, textual("line ends of Windows"))
		}
	}
	is(bytes.ReplaceAll(files(t)[Bundle], []byte("\n"), []byte("\r\n")), Bundle, "line ends of Windows")
	is(append(bytes.Clone(files(t)[Bundle]), "\r\n"...), Bundle, "") // the encrypted payload may hold anything
	is(nil, "", "empty")
	is(files(t)[TPD][:900], "", "") // cut short before the key
	is(make([]byte, 100), "", "zeros")
	is([]byte{0x1f, 0x8b, 8}, "", "gzip")
	is([]byte("PK\x03\x04x"), "", "zip")
	is([]byte{0x28, 0xb5, 0x2f, 0xfd, 0}, "", "zstd")
	is([]byte("hello"), "", "")
	is([]byte(`{"format":"other-v1"}`), "", "")
	t.Logf("count: %d files recognised", count)
}

func TestExplain(t *testing.T) {
	all := files(t)
	refusal := control.PackageSignature.Refuse("somebody changed it")
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"another kind", all[Card], "this is an offline card; a KEK package is wanted"},
		{"another kind, changed", append([]byte("\xef\xbb\xbf"), all[Card]...), "this is an offline card (it begins with a byte order mark); a KEK package is wanted"},
		{"changed", append([]byte("\xef\xbb\xbf"), all[KEK]...), "the file was changed on the way: it begins with a byte order mark"},
		{"empty", nil, "the file was changed on the way: it is empty"},
		{"of this kind", all[KEK], "somebody changed it"},
		{"unknown", []byte("hello"), "somebody changed it"},
	} {
		err := Explain(refusal, test.data, KEK)
		if r := new(control.Refusal); !errors.As(err, &r) || r.Message != test.want || !control.Is(err, control.PackageSignature) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
	if err := Explain(os.ErrClosed, all[Card], KEK); err != os.ErrClosed {
		t.Errorf("no refusal: %v", err)
	}
	for kind, name := range names {
		if name == "" || all[kind] == nil {
			t.Errorf("%s has the name %q", kind, name)
		}
	}
}
