// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"html"
	"math/big"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// KeylessElement says what a keyless TPD has in the place of its key.
type KeylessElement string

const (
	OmitElement  KeylessElement = "omit"  // no element, as XmlSerializer writes a null string
	EmptyElement KeylessElement = "empty" // <m_strKeyData />, as it writes an empty one
)

// Keyless writes the TPD without its key, under the password of the export. The
// document stays byte for byte; all around it is written anew, as .NET
// Framework's XmlSerializer writes it, so that nothing unknown is kept.
//
// It refuses with KF-TPD-KEYLESS, or KF-TPD-KEY-EMBEDDED, where the document
// itself carries the private key. Take it for a file to hand out only once
// [Domain.Checked] has passed.
func (d *Domain) Keyless(element KeylessElement) ([]byte, error) {
	return d.keyless(element, d.export.document)
}

// KeylessFresh is [Domain.Keyless] with the document encrypted anew, by the
// current derivation, under a one-time password, so that the export's own
// password, which opens the key wherever a copy of the export lies, need not
// go where the keyless TPD goes.
//
// The one-time password is 26 letters and digits with 130 random bits; the
// caller clears it.
func (d *Domain) KeylessFresh(element KeylessElement) (keyless, oneTime []byte, err error) {
	oneTime = newPassword()
	key := currentKey(oneTime)
	defer clear(key)
	if keyless, err = d.keyless(element, encrypt(d.document, key)); err != nil {
		clear(oneTime)
		return nil, nil, err
	}
	return keyless, oneTime, nil
}

func (d *Domain) keyless(element KeylessElement, document []byte) ([]byte, error) {
	if d.Info != nil && d.Info.embedded {
		return nil, refuseEmbedded()
	}
	var key string
	if element == EmptyElement {
		key = "\r\n    <" + keyField + " />"
	}
	file := `<?xml version="1.0"?>` + "\r\n" +
		`<ArrayOfAnyType xmlns:xsi="` + schemaInstance + `" xmlns:xsd="http://www.w3.org/2001/XMLSchema">` + "\r\n" +
		`  <anyType xsi:type="` + outerLayer.typeName + `">` + "\r\n" +
		"    <" + documentField + ">" + base64.StdEncoding.EncodeToString(document) + "</" + documentField + ">" + key + "\r\n" +
		"  </anyType>\r\n</ArrayOfAnyType>"
	if d.carriesKey(file) || d.carriesKey(string(d.document)) {
		return nil, refuseCarried()
	}
	return []byte(file), nil
}

func refuseCarried() *control.Refusal {
	return control.TPDKeyless.Refuse("the document in the TPD export repeats its private key, or the encrypted form of it: a keyless copy would still carry the key")
}

// carriesKey reports whether a text holds a piece of the private key: 24 bytes of
// its ciphertext, or of one of its numbers in either byte order, in base64 or hex,
// with anything between the characters and behind any references of XML.
func (d *Domain) carriesKey(text string) bool {
	pieces := d.spelledPieces()
	defer clear(pieces)
	slices.SortFunc(pieces, compareSpellings)
	var begins [1 << 16]bool // two characters with which one begins
	for _, p := range pieces {
		begins[uint16(p[0])<<8|uint16(p[1])] = true
	}
	text = strings.ReplaceAll(text, "\x00", "") // UTF-16
	for before := ""; before != text; {         // references within references
		before, text = text, html.UnescapeString(text)
	}
	inBase64 := strings.Map(keep(base64Letters), strings.NewReplacer("-", "+", "_", "/").Replace(text))
	inHex := strings.Map(keep("0123456789abcdef"), strings.ReplaceAll(strings.ToLower(text), "0x", ""))
	for _, text := range []string{inBase64, inHex} {
		var at spelling
		for ; len(text) >= len(at); text = text[1:] {
			if !begins[uint16(text[0])<<8|uint16(text[1])] {
				continue
			}
			copy(at[:], text)
			if _, found := slices.BinarySearchFunc(pieces, at, compareSpellings); found {
				return true
			}
		}
	}
	return false
}

// spelling is how 24 bytes begin in hex or base64.
type spelling [28]byte

func compareSpellings(a, b spelling) int { return bytes.Compare(a[:], b[:]) }

// spelledPieces returns the pieces of the private key that a text is searched for,
// which the caller clears. No other copy of them is left.
func (d *Domain) spelledPieces() []spelling {
	const piece = 24
	secrets := [][]byte{d.export.key}
	if d.Key != nil {
		for _, x := range append([]*big.Int{d.Key.D, d.Key.Precomputed.Dp, d.Key.Precomputed.Dq, d.Key.Precomputed.Qinv}, d.Key.Primes...) {
			number := x.Bytes()
			reversed := slices.Clone(number)
			slices.Reverse(reversed)
			defer clear(number)
			defer clear(reversed)
			secrets = append(secrets, number, reversed)
		}
	}
	count := 0
	for _, secret := range secrets {
		count += 4 * (len(secret) / piece)
	}
	spelled := make([]spelling, 0, count)
	var padded [piece + 2]byte
	var letters [2 * piece]byte
	defer func() { clear(padded[:]); clear(letters[:]) }()
	for _, secret := range secrets {
		for ; len(secret) >= piece; secret = secret[piece:] {
			hex.Encode(letters[:], secret[:piece])
			spelled = append(spelled, spelling(letters[:]))
			for shift := range 3 { // the places in a group of three bytes that it may begin at
				copy(padded[shift:], secret[:piece])
				base64.StdEncoding.Encode(letters[:], padded[:shift+piece])
				skip := 0
				if shift > 0 {
					skip = 4 // the first group has bits of what stands before
				}
				spelled = append(spelled, spelling(letters[skip:]))
			}
		}
	}
	return spelled
}

const base64Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// keep drops all characters but those.
func keep(letters string) func(rune) rune {
	var kept [128]bool
	for _, r := range letters {
		kept[r] = true
	}
	return func(r rune) rune {
		if r < 128 && kept[r] {
			return r
		}
		return -1
	}
}

// newPassword returns 26 characters of five random bits each.
func newPassword() []byte {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789" // without l, o, 0 and 1, which look alike
	password := make([]byte, 26)
	rand.Read(password) // never fails
	for i, b := range password {
		password[i] = letters[b%32]
	}
	return password
}

func encrypt(plain, key []byte) []byte {
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	padded := slices.Concat(plain, bytes.Repeat([]byte{byte(pad)}, pad))
	cipher.NewCBCEncrypter(newCipher(key), initialVector).CryptBlocks(padded, padded)
	return padded
}
