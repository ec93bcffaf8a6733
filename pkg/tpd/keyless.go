// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
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
	const size = 24
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
	var pieces [][]byte
	var begins [1 << 16]bool // two bytes with which one begins
	for _, secret := range secrets {
		for piece := range slices.Chunk(secret[:len(secret)/size*size], size) {
			pieces = append(pieces, piece)
			begins[binary.BigEndian.Uint16(piece)] = true
		}
	}
	holdsOne := func(data []byte) bool {
		for ; len(data) >= size; data = data[1:] {
			if begins[binary.BigEndian.Uint16(data)] && slices.ContainsFunc(pieces, func(piece []byte) bool { return bytes.HasPrefix(data, piece) }) {
				return true
			}
		}
		return false
	}

	text = strings.ReplaceAll(text, "\x00", "") // UTF-16
	for before := ""; before != text; {         // references within references
		before, text = text, html.UnescapeString(text)
	}
	letters := []byte(strings.Map(keep(base64Letters), strings.NewReplacer("-", "+", "_", "/").Replace(text)))
	digits := []byte(strings.Map(keep("0123456789abcdef"), strings.ReplaceAll(strings.ToLower(text), "0x", "")))
	data := make([]byte, max(len(letters), len(digits)))
	for skip := range min(4, len(letters)) { // whichever letter a group of four begins with
		group := letters[skip:]
		n, _ := base64.StdEncoding.Decode(data, group[:len(group)/4*4])
		if holdsOne(data[:n]) {
			return true
		}
	}
	for skip := range min(2, len(digits)) {
		pair := digits[skip:]
		n, _ := hex.Decode(data, pair[:len(pair)/2*2])
		if holdsOne(data[:n]) {
			return true
		}
	}
	return false
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
