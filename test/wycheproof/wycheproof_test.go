// SPDX-License-Identifier: Apache-2.0

// Package wycheproof runs Project Wycheproof's test vectors against the
// cryptography of the transfer blob: AES-KWP, and RSA-OAEP as pkg/byok opens
// it. It is a module of its own, since the vectors take 26 MB:
//
//	go -C test/wycheproof test ./...
package wycheproof

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/pkg/byok"
)

// vectors is a file of Wycheproof's; fields that a type does not have are empty.
type vectors struct {
	NumberOfTests int
	TestGroups    []group
}

type group struct {
	KeySize         int // bits
	SHA             string
	MGFSHA          string
	PrivateKeyPKCS8 hexBytes
	Tests           []vector
}

type vector struct {
	TcID                int
	Comment             string
	Key, Msg, Ct, Label hexBytes
	Result              string // valid, invalid or acceptable
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// load reads a file and checks that it has as many vectors as it says.
func load(t *testing.T, name string, want int) []group {
	t.Helper()
	data, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, g := range v.TestGroups {
		count += len(g.Tests)
	}
	if count != v.NumberOfTests || count != want {
		t.Fatalf("%s: %d vectors, it says %d, expected %d", name, count, v.NumberOfTests, want)
	}
	return v.TestGroups
}

// tally counts what was done with the vectors.
type tally map[string]int

func (got tally) check(t *testing.T, want tally) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		t.Logf("%4d %s", got[name], name)
	}
	if !maps.Equal(got, want) {
		t.Errorf("expected %v", want)
	}
}

// The library that pkg/byok wraps with takes AES-128 and AES-256, of which byok
// uses the latter, and wraps from 16 bytes on. What is out of that range must
// not be wrapped or opened wrongly.
func TestKWP(t *testing.T) {
	got := tally{}
	for _, g := range load(t, "aes_kwp_test.json", 254) {
		for _, v := range g.Tests {
			got[runKWP(t, g, v)]++
		}
	}
	got.check(t, tally{
		"valid, wraps and unwraps":       20,
		"invalid, refused":               119,
		"out of range: AES-192, refused": 85,
		"out of range: valid, under 16 bytes, not wrapped, not opened":     16,
		"out of range: valid, under 16 bytes, not wrapped, opened rightly": 14,
	})
}

func runKWP(t *testing.T, g group, v vector) string {
	kwp, err := subtle.NewKWP(v.Key)
	if g.KeySize == 192 {
		if err == nil {
			t.Errorf("vector %d: AES-192 is taken", v.TcID)
		}
		return "out of range: AES-192, refused"
	}
	if err != nil {
		t.Fatalf("vector %d: %v", v.TcID, err)
	}
	opened, err := kwp.Unwrap(v.Ct)
	switch {
	case v.Result == "invalid":
		if err == nil {
			t.Errorf("vector %d (%s) is opened", v.TcID, v.Comment)
		}
		return "invalid, refused"
	case v.Result == "valid" && len(v.Msg) < subtle.MinWrapSize:
		if _, err := kwp.Wrap(v.Msg); err == nil {
			t.Errorf("vector %d: %d bytes are wrapped", v.TcID, len(v.Msg))
		}
		if err != nil {
			return "out of range: valid, under 16 bytes, not wrapped, not opened"
		}
		if !bytes.Equal(opened, v.Msg) {
			t.Errorf("vector %d: opens wrongly", v.TcID)
		}
		return "out of range: valid, under 16 bytes, not wrapped, opened rightly"
	case v.Result == "valid":
		if err != nil || !bytes.Equal(opened, v.Msg) {
			t.Errorf("vector %d (%s): %v", v.TcID, v.Comment, err)
		}
		if wrapped, err := kwp.Wrap(v.Msg); err != nil || !bytes.Equal(wrapped, v.Ct) {
			t.Errorf("vector %d (%s) is wrapped in another way: %v", v.TcID, v.Comment, err)
		}
		return "valid, wraps and unwraps"
	}
	return v.Result
}

// kekSizes are those of a KEK, in bits.
var kekSizes = []int{2048, 3072, 4096}

// RSA-OAEP as in a transfer blob has SHA-1 twice and no label; whatever was
// made in another way must not open.
func TestOAEP(t *testing.T) {
	got := tally{}
	groups := slices.Concat(load(t, "rsa_oaep_2048_sha1_mgf1sha1_test.json", 36), load(t, "rsa_oaep_misc_test.json", 395))
	for _, g := range groups {
		if !slices.Contains(kekSizes, g.KeySize) {
			got["out of range: no KEK size, not run"] += len(g.Tests)
			continue
		}
		kek, err := byok.ParsePKCS8(g.PrivateKeyPKCS8)
		if err != nil {
			t.Fatalf("a key of %d bits: %v", g.KeySize, err)
		}
		for _, v := range g.Tests {
			got[runOAEP(t, g, v, kek)]++
		}
	}
	got.check(t, tally{
		"valid, opens":                        19,
		"invalid, refused":                    19,
		"out of range: with a label, refused": 7,
		"out of range: another hash, refused": 201,
		"out of range: no KEK size, not run":  185,
	})
}

func runOAEP(t *testing.T, g group, v vector, kek *rsa.PrivateKey) string {
	opened, err := rsa.DecryptOAEP(sha1.New(), nil, kek, v.Ct, nil)
	opens, outcome := false, "out of range: another hash, refused"
	switch {
	case v.Result == "invalid":
		outcome = "invalid, refused"
	case g.SHA != "SHA-1" || g.MGFSHA != "SHA-1":
	case len(v.Label) > 0:
		outcome = "out of range: with a label, refused"
	case v.Result == "valid":
		opens, outcome = true, "valid, opens"
	}
	if opens != (err == nil) || opens && !bytes.Equal(opened, v.Msg) {
		t.Errorf("%d bits, vector %d (%s, %s): %v", g.KeySize, v.TcID, v.Comment, v.Result, err)
	}
	if len(v.Ct) != kek.Size() {
		return outcome
	}
	// The same by byok itself: no vector's message is a key, so those that open
	// are refused for what comes next.
	if _, err := byok.Unwrap(append(bytes.Clone(v.Ct), make([]byte, 24)...), kek); err == nil || opens == errors.Is(err, byok.ErrOAEP) {
		t.Errorf("%d bits, vector %d (%s, %s) by byok: %v", g.KeySize, v.TcID, v.Comment, v.Result, err)
	}
	return outcome
}

// A vault takes keys of two primes only.
func TestThreePrimes(t *testing.T) {
	for _, g := range load(t, "rsa_three_primes_oaep_2048_sha1_mgf1sha1_test.json", 36) {
		if _, err := x509.ParsePKCS8PrivateKey(g.PrivateKeyPKCS8); err != nil {
			t.Errorf("the vector's key is no longer sound to Go: %v", err)
		}
		if _, err := byok.ParsePKCS8(g.PrivateKeyPKCS8); !errors.Is(err, byok.ErrPKCS8) {
			t.Errorf("a key of three primes: %v", err)
		}
	}
}
