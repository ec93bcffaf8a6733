// SPDX-License-Identifier: Apache-2.0

// Package fingerprint shows and reads the digests that people compare.
//
// A fingerprint is the SHA-256 of a file's bytes (as sha256sum prints it), of an
// RSA public key's PKIX DER ([OfKey]), or of a public key's SSH wire encoding (as
// ssh-keygen -l prints it, in base64).
// It is shown in three ways: as SHA256:<64 hex digits> for programs, as hex in
// groups of four for the eye, and as 32 words for the ear, in numbered rows of
// four ([Fingerprint.Rows]). Each of them can be typed, see [Parse]. The words are the
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
	"fmt"
	"strconv"
	"strings"
	"unicode"
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

// Words returns the 32 words, one for each byte.
func (f Fingerprint) Words() []string {
	var spoken []string
	for i, b := range f {
		spoken = append(spoken, words[2*int(b)+i%2])
	}
	return spoken
}

// Rows returns the words as they are read aloud: eight rows of four, each headed
// by the number of its first word.
//
//	1  tissue      passenger   bison       snapline
//	5  reward      quantity    …
func (f Fingerprint) Rows() string {
	var b strings.Builder
	for i, word := range f.Words() {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "%2d", i+1)
		case i%4 == 0:
			fmt.Fprintf(&b, "\n%2d", i+1)
		}
		if i%4 == 3 {
			b.WriteString("  " + word)
		} else {
			fmt.Fprintf(&b, "  %-11s", word) // the longest word has 11 letters
		}
	}
	return b.String()
}

// Spoken returns what two people compare: the grouped hex, then the rows of words.
func (f Fingerprint) Spoken() string { return f.Grouped() + "\n" + f.Rows() }

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
var ErrSyntax = errors.New("not a fingerprint: want SHA256: and 64 hex digits (blanks and colons allowed) or 43 characters of base64, or the 32 words")

// Parse reads what [Fingerprint.String], [Fingerprint.Grouped], [Fingerprint.SSH]
// and [Fingerprint.Rows] print, and hex with colons, as openssl prints it. The prefix
// may be left out, or be in lower case; words may be in any case, with or without the
// numbers of the rows.
func Parse(s string) (Fingerprint, error) {
	s = strings.TrimSpace(s)
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		s = s[len(prefix):]
	}
	raw, err := hex.DecodeString(strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == ':' }), ""))
	if err != nil {
		raw, err = base64.RawStdEncoding.Strict().DecodeString(s)
	}
	if err != nil {
		raw, err = parseWords(s)
	}
	if err != nil || len(raw) != sha256.Size {
		return Fingerprint{}, ErrSyntax
	}
	return Fingerprint(raw), nil
}

func parseWords(s string) ([]byte, error) {
	var raw []byte
	for _, word := range Split(s) {
		if _, err := strconv.ParseUint(strings.TrimRight(word, ".:)"), 10, 8); err == nil {
			continue // the number of a row
		}
		b, err := ByteAt(len(raw), word)
		if err != nil {
			return nil, err
		}
		raw = append(raw, b)
	}
	return raw, nil
}

// Split splits what a person typed at blanks and commas.
func Split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == ',' || r == ';' })
}

// ByteAt reads one byte of a fingerprint, as its word or as two hex digits. place
// is from 0 on. A word of the list's other half, which does not fit the place, is
// refused.
func ByteAt(place int, word string) (byte, error) {
	if raw, err := hex.DecodeString(word); err == nil && len(raw) == 1 {
		return raw[0], nil
	}
	for i := place % 2; i < len(words); i += 2 {
		if strings.EqualFold(words[i], word) {
			return byte(i / 2), nil
		}
	}
	return 0, ErrSyntax
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
