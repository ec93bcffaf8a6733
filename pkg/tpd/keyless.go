// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"

	"keyferry/pkg/control"
)

// KeylessElement says what a keyless TPD has in the place of its key.
type KeylessElement string

const (
	OmitElement  KeylessElement = "omit"  // no element, as XmlSerializer writes a null string
	EmptyElement KeylessElement = "empty" // <m_strKeyData />, as it writes an empty one
)

// ParseKeylessElement reads "omit" or "empty".
func ParseKeylessElement(s string) (KeylessElement, error) {
	switch e := KeylessElement(s); e {
	case OmitElement, EmptyElement:
		return e, nil
	}
	return "", fmt.Errorf("%s is neither %s nor %s", control.Quote(s), OmitElement, EmptyElement)
}

// Pieces is a file as the parts that follow one another in it, so that a large
// export need not be copied. They are not to be changed.
type Pieces [][]byte

// WriteInto writes the file.
func (p Pieces) WriteInto(w io.Writer) error {
	for _, piece := range p {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// Len is the file's size in bytes.
func (p Pieces) Len() (n int) {
	for _, piece := range p {
		n += len(piece)
	}
	return n
}

// Keyless returns the export without its key: the bytes of the file, with
// element in the place of m_strKeyData and the white space before it. The
// password stays that of the export. An export that has no such element stays
// as it is.
//
// Take it for a file to hand out only once [Domain.Checked] has passed: that
// check refuses a document that carries the key a second time.
func (e *Export) Keyless(element KeylessElement) Pieces {
	return e.cut(element, e.raw[e.documentAt.from:e.documentAt.to])
}

// cut returns the file with other base64 of the document, in its encoding, and
// without the key.
func (e *Export) cut(element KeylessElement, document []byte) Pieces {
	var key []byte
	if element == EmptyElement && e.keyAt != (span{}) {
		key = e.doc.Encode(e.keyBlank + "<" + keyField + " />")
	}
	if e.keyAt.from < e.documentAt.from { // the fields come in either order
		return Pieces{e.raw[:e.keyAt.from], key, e.raw[e.keyAt.to:e.documentAt.from], document, e.raw[e.documentAt.to:]}
	}
	return Pieces{e.raw[:e.documentAt.from], document, e.raw[e.documentAt.to:e.keyAt.from], key, e.raw[e.keyAt.to:]}
}

// KeylessFresh is [Export.Keyless] with the document encrypted anew, by the
// current derivation, under a one-time password, so that the export's own
// password, which opens the key wherever a copy of the export lies, need not
// go where the keyless TPD goes. All else of the file stays byte for byte.
//
// The one-time password is 26 letters and digits with 130 random bits; the
// caller clears it. Refusals are those of [Export.Decrypt], and
// KF-TPD-KEY-EMBEDDED.
func (e *Export) KeylessFresh(element KeylessElement, password []byte) (keyless Pieces, oneTime []byte, err error) {
	domain, err := e.Decrypt(password)
	if err != nil {
		return nil, nil, err
	}
	domain.Clear()
	if domain.Info != nil && domain.Info.embedded {
		return nil, nil, refuseEmbedded()
	}
	keys := deriveKeys(password)
	defer keys.clear()
	plain, err := e.take()
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		if k.derivation == domain.DocumentDerivation {
			plain, _ = decrypt(plain, k.key)
		}
	}
	oneTime = newPassword()
	key := currentKey(oneTime)
	defer clear(key)
	document := base64.StdEncoding.EncodeToString(encrypt(plain, key))
	return e.cut(element, e.doc.Encode(document)), oneTime, nil
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

// encrypt pads the plaintext and encrypts it where it lies.
func encrypt(plain, key []byte) []byte {
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	padded := append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(newCipher(key), initialVector).CryptBlocks(padded, padded)
	return padded
}
