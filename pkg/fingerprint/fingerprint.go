// SPDX-License-Identifier: Apache-2.0

// Package fingerprint shows and reads the digests that people compare.
//
// A fingerprint is the SHA-256 of a file's bytes (as sha256sum prints it), of an
// RSA public key's PKIX DER ([OfKey]), or of a public key's SSH wire encoding (as
// ssh-keygen -l prints it, in base64).
// It is shown in three ways: as SHA256:<64 hex digits> for programs, as hex in
// groups of four for the eye, and as 32 words for the ear. The words are the
// PGP word list (P. Juola, P. Zimmermann, 1995): bytes at even places have
// words of two syllables, those at odd places words of three, so that a word
// left out or swapped is heard.
package fingerprint

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
)

// Fingerprint is a SHA-256 digest, 32 bytes.
type Fingerprint [sha256.Size]byte

const prefix = "SHA256:"

//go:embed words.txt
var wordList string // 256 lines: the even word, a space, the odd word

var words = strings.Fields(wordList)

// Of returns the fingerprint of data.
func Of(data []byte) Fingerprint { return sha256.Sum256(data) }

// OfKey returns the fingerprint of an RSA public key: the SHA-256 of its PKIX DER, as
//
//	openssl pkey -pubin -in key.pem -outform DER | openssl dgst -sha256
func OfKey(key *rsa.PublicKey) Fingerprint {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // never of an *rsa.PublicKey
	}
	return Of(der)
}

// String returns SHA256: and 64 lower-case hex digits.
func (f Fingerprint) String() string { return prefix + f.Hex() }

// Hex returns 64 lower-case hex digits.
func (f Fingerprint) Hex() string { return hex.EncodeToString(f[:]) }

// SSH returns the form of ssh-keygen -l: SHA256: and unpadded base64.
func (f Fingerprint) SSH() string { return prefix + base64.RawStdEncoding.EncodeToString(f[:]) }

// Grouped returns the hex digits in 16 groups of four, eight groups a line.
func (f Fingerprint) Grouped() string {
	h := f.Hex()
	var groups []string
	for i := 0; i < len(h); i += 4 {
		groups = append(groups, h[i:i+4])
	}
	return inLines(groups, 8)
}

// Words returns the 32 words, eight a line.
func (f Fingerprint) Words() string {
	var spoken []string
	for i, b := range f {
		spoken = append(spoken, words[2*int(b)+i%2])
	}
	return inLines(spoken, 8)
}

func inLines(items []string, perLine int) string {
	var b strings.Builder
	for i, item := range items {
		switch {
		case i == 0:
		case i%perLine == 0:
			b.WriteByte('\n')
		default:
			b.WriteByte(' ')
		}
		b.WriteString(item)
	}
	return b.String()
}

// ErrSyntax says that a text is not a fingerprint.
var ErrSyntax = errors.New("not a fingerprint: want SHA256: and 64 hex digits (spaces allowed) or 43 characters of base64")

// Parse reads what [Fingerprint.String], [Fingerprint.Grouped] and
// [Fingerprint.SSH] print; the prefix may be left out.
func Parse(s string) (Fingerprint, error) {
	s = strings.TrimPrefix(strings.TrimSpace(s), prefix)
	raw, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		raw, err = base64.RawStdEncoding.Strict().DecodeString(s)
	}
	if err != nil || len(raw) != sha256.Size {
		return Fingerprint{}, ErrSyntax
	}
	return Fingerprint(raw), nil
}

// MarshalText makes the fingerprint a JSON string in the form of String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads the form of String, and only that: documents have one
// spelling.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil || parsed.String() != string(text) {
		return ErrSyntax
	}
	*f = parsed
	return nil
}
