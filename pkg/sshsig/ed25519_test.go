// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"
)

// weakPoints are the eight points of small order, each in every spelling that
// decoders are known to take, spellings of other points that are not canonical,
// and bytes that are no point.
var weakPoints = map[string][]string{
	"the neutral point": {
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	},
	"of order 2": {
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	},
	"of order 4": {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	},
	"of order 8": {
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	},
	"not canonical": { // y = p + 3, which is the point of y = 3
		"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	},
	"no point": { // y = 2
		"0200000000000000000000000000000000000000000000000000000000000000",
	},
}

func TestWeakPointsAreRefused(t *testing.T) {
	count := 0
	for name, list := range weakPoints {
		for _, text := range list {
			point, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := NewPublicKey(ed25519.PublicKey(point)); !errors.Is(err, ErrWeakKey) || !errors.Is(err, ErrKey) {
				t.Errorf("%s: %s: %v", name, text, err)
			}
			for _, kind := range []string{typeEd25519, typeHardwareEd25519} {
				var w wire
				w.str(kind)
				w.bytes(point)
				if kind == typeHardwareEd25519 {
					w.str("ssh:")
				}
				line := kind + " " + base64.StdEncoding.EncodeToString(w.Bytes())
				if _, err := ParsePublicKey(line); !errors.Is(err, ErrWeakKey) {
					t.Errorf("%s: %s: %v", name, line, err)
				}
				var key PublicKey
				if err := json.Unmarshal([]byte(`"`+line+`"`), &key); !errors.Is(err, ErrWeakKey) {
					t.Errorf("%s: %s in JSON: %v", name, line, err)
				}
				count++
			}
		}
	}
	t.Logf("count: %d weak keys, all refused", count)
}

// A signature without a private key: R and S are those of a key of order 1.
func TestForgeryByWeakKeyIsRefused(t *testing.T) {
	point := append([]byte{1}, make([]byte, 31)...)
	value := append(bytes.Clone(point), make([]byte, 32)...)
	if !ed25519.Verify(point, []byte("anything"), value) {
		t.Fatal("crypto/ed25519 does not take this signature: the test shows nothing")
	}
	var key, signature, w wire
	key.str(typeEd25519)
	key.bytes(point)
	signature.str(typeEd25519)
	signature.bytes(value)
	w.WriteString(magic)
	w.Write([]byte{0, 0, 0, version})
	w.bytes(key.Bytes())
	w.str(namespace)
	w.str("")
	w.str(hash)
	w.bytes(signature.Bytes())
	if err := verify(armor(w.Bytes()), namespace, []byte("anything")); !errors.Is(err, ErrWeakKey) {
		t.Errorf("%v", err)
	}
}

func TestGoodPoints(t *testing.T) {
	for range 200 {
		public, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewPublicKey(public); err != nil {
			t.Fatalf("%x: %v", public, err)
		}
	}
}
