// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"

	"keyferry/test/vectors"
)

// TestMicrosoftManaged takes both keys of 1024 bits, and one for the vault
// beside them, through the ceremony.
func TestMicrosoftManaged(t *testing.T) {
	t.Parallel()
	var keys []vectors.TPD
	for _, name := range []string{"contoso-mode2", "contoso-mode1", "contoso-legacy-mode1"} {
		keys = append(keys, vectors.OneTPD(t, name))
	}
	r := play(t, keys, "--classic-recipient")
	r.checkStatus(keys)
	inside := r.openTransfer("age")
	r.judgeBlob(keys[0])
	for _, v := range keys[1:] {
		r.judgeManaged(inside, v)
	}
	if data := r.read("stick", "keyferry-offline-1.kfb"); traceOf(keys[1], data) != "" || bytes.Contains(data, []byte("m_strKeyData")) {
		t.Error("the bundle shows the key or its TPD")
	}
}

// judgeManaged wants the export in the bundle as it was, and no other form of
// its key. OpenSSL decrypts the key field and finds the vector's key in it.
func (r *rehearsal) judgeManaged(inside string, v vectors.TPD) {
	r.Helper()
	name := "tpd_with_key_" + v.Name + ".xml"
	carried := r.read(inside, "keys", v.Name, name)
	if !bytes.Equal(carried, v.XML) || !bytes.Equal(r.read("transfer", name), v.XML) {
		r.Errorf("%s: the TPD that travelled is not the export", v.Name)
	}
	entries, err := os.ReadDir(r.path(inside, "keys", v.Name))
	if err != nil || len(entries) != 2 {
		r.Errorf("%s: the bundle has %v of it, expected the TPD and key.json: %v", v.Name, entries, err)
	}
	if record := r.read(inside, "keys", v.Name, "key.json"); traceOf(v, record) != "" || !bytes.Contains(record, []byte(`"KF-TPD-MODE1"`)) {
		r.Errorf("%s: its record holds the key, or not the warning", v.Name)
	}
	field := regexp.MustCompile(`<m_strKeyData>([^<]+)<`).FindStringSubmatch(utf8Text(carried))
	if field == nil {
		r.Fatalf("%s: no m_strKeyData", v.Name)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(field[1]), ""))
	if err != nil {
		r.Fatal(err)
	}
	blob := r.feed(data, "openssl", "enc", "-d", "-aes-128-cbc", "-K", hex.EncodeToString(passwordKey(v)), "-iv", "0102030405060708090a0b0c0d0e0f10")
	got := r.feed(blob, "openssl", "rsa", "-inform", "MSBLOB", "-outform", "DER", "-traditional")
	if want := r.run("openssl", "pkey", "-in", r.vector(v.Name+".key.pem"), "-outform", "DER", "-traditional"); !bytes.Equal(got, want) {
		r.Errorf("%s: another key is in the TPD", v.Name)
	}
}
