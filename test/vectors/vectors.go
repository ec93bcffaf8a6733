// SPDX-License-Identifier: Apache-2.0

// Package vectors is test support: it loads the TPD exports and the XrML
// certificates of testdata/vectors, and fails the test when it finds fewer
// than there should be, so that no test passes over an empty folder.
//
// A TPD vector is three files: NAME.xml, the export; NAME.key.pem, the RSA key
// of its SLC; NAME.meta, `key=value` lines that say how it was made. The XrML
// files are the example certificates that Microsoft publishes with MS-RMPR.
package vectors

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// How many vectors there are of each kind.
const (
	TPDCount  = 23
	XrMLCount = 5
	OddCount  = 21
)

// TPD is one TPD export and what is known about it.
type TPD struct {
	Name        string
	XML         []byte          // the export as it lies on disk
	Key         *rsa.PrivateKey // the key of the SLC; in the export too, unless Fault says otherwise
	Password    []byte          // UTF-8
	Bits        int             // of the SLC's key: 1024 or 2048
	KDF         string          // "current" or "legacy"
	CSP         int             // nCSPType: 1 or 24
	KeyNumber   int             // 1 exchange, 2 signature
	Templates   int             // how many
	Anyone      bool            // a template grants rights to ANYONE
	Encoding    string          // "utf8", "utf8bom" or "utf16"
	Fault       string          // what was broken on purpose, "" in a good one
	GUID        string          // of the key, with braces
	RootModulus *big.Int        // of the key that the last certificate names as its issuer
}

// XrML is one published certificate.
type XrML struct {
	Name string
	Text string
}

// AllTPD loads every TPD vector, by name.
func AllTPD(t testing.TB) []TPD {
	t.Helper()
	paths := list(t, "tpd", TPDCount)
	all := make([]TPD, len(paths))
	for i, path := range paths {
		all[i] = loadTPD(t, path)
	}
	return all
}

// OneTPD loads the TPD vector of that name.
func OneTPD(t testing.TB, name string) TPD {
	t.Helper()
	return loadTPD(t, filepath.Join(dir(t), "tpd", name+".xml"))
}

// AllXrML loads every published certificate, by name.
func AllXrML(t testing.TB) []XrML {
	t.Helper()
	paths := list(t, "xrml", XrMLCount)
	all := make([]XrML, len(paths))
	for i, path := range paths {
		all[i] = XrML{baseName(path), string(read(t, path))}
	}
	return all
}

func loadTPD(t testing.TB, path string) TPD {
	t.Helper()
	stem := strings.TrimSuffix(path, ".xml")
	v := TPD{
		Name: baseName(path), XML: read(t, path), Key: loadKey(t, stem+".key.pem"),
		Bits: 2048, KDF: "current", KeyNumber: 1, Encoding: "utf8",
	}
	v.loadMeta(t, stem+".meta")
	if v.CSP == 0 { // the usual one of the key's size
		v.CSP = map[int]int{1024: 1, 2048: 24}[v.Bits]
	}
	if v.Key.N.BitLen() != v.Bits {
		t.Fatalf("%s: the key has %d bits, its meta file says %d", v.Name, v.Key.N.BitLen(), v.Bits)
	}
	return v
}

// loadMeta reads the `key=value` lines. A key that it does not know fails the
// test: a vector would otherwise be read as something that it is not.
func (v *TPD) loadMeta(t testing.TB, path string) {
	t.Helper()
	for line := range strings.Lines(string(read(t, path))) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if !ok {
			t.Fatalf("%s: no key=value line: %q", path, line)
		}
		switch key {
		case "password":
			v.Password = []byte(value)
		case "bits":
			v.Bits = number(t, path, value)
		case "kdf":
			v.KDF = value
		case "csp":
			v.CSP = number(t, path, value)
		case "keynumber":
			v.KeyNumber = number(t, path, value)
		case "templates":
			v.Templates = number(t, path, value)
		case "anyone":
			v.Anyone = value == "1"
		case "encoding":
			v.Encoding = value
		case "fault":
			v.Fault = value
		case "guid":
			v.GUID = value
		case "rootmodulus_le_base64":
			v.RootModulus = modulus(t, path, value)
		case "templatename": // what the template is called: the export itself says so
		default:
			t.Fatalf("%s: unknown key %q", path, key)
		}
	}
}

func loadKey(t testing.TB, path string) *rsa.PrivateKey {
	t.Helper()
	block, rest := pem.Decode(read(t, path))
	if block == nil || len(rest) > 0 || block.Type != "RSA PRIVATE KEY" {
		t.Fatalf("%s: not one RSA PRIVATE KEY block", path)
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return key
}

func modulus(t testing.TB, path, value string) *big.Int {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

func number(t testing.TB, path, value string) int {
	t.Helper()
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return n
}

func list(t testing.TB, kind string, want int) []string {
	t.Helper()
	pattern := filepath.Join(dir(t), kind, "*.xml")
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != want {
		t.Fatalf("%s: %d files, expected %d", pattern, len(paths), want)
	}
	return paths
}

// dir finds testdata/vectors beside the go.mod above the running test: `go
// test` starts each test in its package's folder.
func dir(t testing.TB) string {
	t.Helper()
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(at, "testdata", "vectors")
		}
		parent := filepath.Dir(at)
		if parent == at {
			t.Fatal("no go.mod above the test's folder")
		}
		at = parent
	}
}

func baseName(path string) string {
	return strings.TrimSuffix(filepath.Base(path), ".xml")
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// OddPassword opens the odd exports but legacy-collision.
const OddPassword = "Passw0rd!"

// Odd loads one of testdata/vectors/odd, where README.md says what is right.
func Odd(t testing.TB, name string) []byte {
	t.Helper()
	return read(t, filepath.Join(dir(t), "odd", name+".xml"))
}

// OddFile loads another file of that folder.
func OddFile(t testing.TB, name string) []byte {
	t.Helper()
	return read(t, filepath.Join(dir(t), "odd", name))
}

// AllOdd loads all of them, by name.
func AllOdd(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, path := range list(t, "odd", OddCount) {
		all[baseName(path)] = read(t, path)
	}
	return all
}
