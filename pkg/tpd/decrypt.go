// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"unicode/utf8"

	"keyferry/pkg/control"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/utf16le"
	"keyferry/pkg/tpd/xmltree"
)

// Contents is what a decrypted export says. Nothing in it is secret.
type Contents struct {
	Info      *KeyInfo       // nil if the document has none
	Chain     []xmltree.Text // XrML certificates, leaf first, not parsed
	Templates []xmltree.Text // XrML templates, not parsed

	HasKey             bool           // there is a field for the private key, be it damaged, or a key was given
	KeyAlgorithm       capi.Algorithm // 0 of a key that was not read from the export
	DocumentDerivation Derivation
	KeyDerivation      Derivation // "" without a key, or where it is not from the export

	FileExtra, DocumentExtra extras // what AD RMS does not write; a keyless copy keeps the latter
	Nulls                    int    // certificates and templates that are null
}

// Domain is a decrypted export. [Domain.Clear] wipes its key.
type Domain struct {
	Contents
	Key *rsa.PrivateKey // consistent in itself; nil in a keyless TPD and where its field is damaged

	export   *Export
	document []byte // decrypted
	keyErr   error  // why Key is nil though there is a field for it
	// Fields by the legacy derivation whose padding holds under the current one too.
	documentCollides, keyCollides bool
}

// Clear wipes the private key as far as can be, also where a [Checked] holds it.
func (d *Domain) Clear() {
	capi.Clear(d.Key)
	d.Key = nil
}

// Derivation is how the AES key is made from the password.
type Derivation string

const (
	Current Derivation = "current"
	Legacy  Derivation = "legacy"
)

// keySize selects AES-128.
const keySize = 16

// keys are the AES keys that a password may stand for, in the order to try.
type keys []struct {
	derivation Derivation
	key        []byte
}

func deriveKeys(password []byte) keys {
	return keys{{Current, currentKey(password)}, {Legacy, legacyKey(password)}}
}

func (k keys) clear() {
	for _, one := range k {
		clear(one.key[:cap(one.key)]) // the rest of the hash too
	}
}

func currentKey(password []byte) []byte {
	wide := utf16le.Encode(password)
	defer clear(wide)
	sum := sha256.Sum256(wide)
	return sum[:keySize]
}

// legacyRounds is the iteration count of .NET's PasswordDeriveBytes.
const legacyRounds = 100

func legacyKey(password []byte) []byte {
	sum := sha1.Sum(password)
	for range legacyRounds - 1 {
		sum = sha1.Sum(sum[:])
	}
	return sum[:keySize]
}

// Decrypt opens the export with its password, in UTF-8, which the caller
// clears. It refuses with KF-TPD-PASSWORD if neither derivation gives anything
// to read, and with KF-TPD-DOCUMENT or KF-TPD-ONE-DOMAIN what is readable but
// not a whole document. A key that does not come out right is left to
// [Domain.Check] to report.
func (e *Export) Decrypt(password []byte) (*Domain, error) {
	if !utf8.Valid(password) {
		return nil, control.TPDPassword.Refuse("the password is not valid UTF-8").WithHint("save the password file as UTF-8")
	}
	var d *Domain
	var err error
	secret.Do(func() { // for what math/big and the ciphers leave, too
		keys := deriveKeys(password)
		defer keys.clear()
		if d, err = e.openDocument(keys); err == nil {
			e.openKey(d, keys)
		}
	})
	return d, err
}

func (e *Export) openDocument(keys keys) (*Domain, error) {
	var damage error
	collides := false // the current key opens the padding, but no document
	for _, k := range keys {
		plain, padded := decrypt(e.document, k.key)
		d := &Domain{export: e, document: plain, documentCollides: collides}
		d.DocumentDerivation, d.FileExtra = k.derivation, e.extra
		var err error
		if padded {
			err = d.readDocument(plain)
		} else {
			err = control.TPDDocument.Refuse("the document in the TPD export does not end as it should")
		}
		if err == nil {
			return d, nil
		}
		if isText(plain) {
			damage = err
		}
		collides = padded
	}
	if damage != nil {
		return nil, damage
	}
	return nil, control.TPDPassword.Refuse("the password does not open this TPD export, neither by the current nor by the legacy key derivation")
}

// openKey reads the key field into the domain. The derivation whose plaintext
// begins as a key blob is the right one.
func (e *Export) openKey(d *Domain, keys keys) {
	d.HasKey, d.keyErr = e.HasKey(), e.keyErr
	if len(e.key) == 0 {
		return
	}
	d.keyErr = control.TPDKeyDecrypt.Refuse("the key in the TPD export does not decrypt with the password that opens the rest of it")
	for _, k := range keys {
		blob, padded := decrypt(e.key, k.key)
		defer clear(blob)
		if !capi.IsBlob(blob) {
			d.keyCollides = padded
			continue
		}
		d.KeyDerivation = k.derivation
		if padded {
			d.Key, d.KeyAlgorithm, d.keyErr = capi.Parse(blob)
		} else {
			d.keyErr = control.TPDKeyBlob.Refuse("the key in the TPD export does not end as it should")
		}
		return
	}
}

// UseKey gives a keyless TPD its private key from a PEM file: PKCS #8 or PKCS #1, as
// TpdUtil writes it beside the keyless TPD. From then on the checks are those of an
// export that carries the key. It refuses with KF-TPD-KEY-PEM, or
// KF-TPD-KEY-PRESENT where the TPD has a key of its own. The caller clears file.
func (d *Domain) UseKey(file []byte) (err error) {
	if d.HasKey {
		return control.TPDKeyPresent.Refuse("the TPD carries its private key itself, and another one was given with it").
			WithHint("give an export alone, and a PEM file with the keyless TPD that belongs to it")
	}
	secret.Do(func() { d.Key, err = parsePEM(file) })
	d.HasKey = err == nil
	return err
}

func parsePEM(file []byte) (*rsa.PrivateKey, error) {
	block, rest := pem.Decode(file)
	if block == nil {
		return nil, control.TPDKeyPEM.Refuse("there is no PEM block in the file")
	}
	defer clear(block.Bytes)
	if more, _ := pem.Decode(rest); more != nil {
		clear(more.Bytes)
		return nil, control.TPDKeyPEM.Refuse("there is more than one PEM block in the file")
	}
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		if len(block.Headers) > 0 {
			return nil, control.TPDKeyPEM.Refuse("the private key in the PEM file is encrypted")
		}
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, control.TPDKeyPEM.Refuse("the PEM file holds a %s", control.Quote(block.Type))
	}
	if err != nil { // its text may quote the key
		return nil, control.TPDKeyPEM.Refuse("the private key in the PEM file is damaged")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok || len(key.Primes) != 2 {
		return nil, control.TPDKeyPEM.Refuse("the private key in the PEM file is no RSA key of two primes")
	}
	return key, nil
}

// initialVector is the same in every export.
var initialVector = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// decrypt returns the plaintext without its padding if that is right, else all of
// it. The ciphertext is one or more whole blocks.
func decrypt(ciphertext, key []byte) (plain []byte, padded bool) {
	plain = make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(newCipher(key), initialVector).CryptBlocks(plain, ciphertext)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return plain, false
	}
	return plain[:len(plain)-pad], true
}

func newCipher(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // not for a key of 16 bytes
	}
	return block
}

// isText tells a document that is damaged from one that was decrypted with a
// wrong key: by how it begins, else by how much of it is ASCII text (or the zeros
// of UTF-16). Of random bytes two in five are, of most documents nearly all.
func isText(plain []byte) bool {
	start := string(plain[:min(len(plain), 64)])
	for _, mark := range []string{"\xEF\xBB\xBF", "\xFF\xFE", "\xFE\xFF"} {
		start = strings.TrimPrefix(start, mark)
	}
	start = strings.TrimLeft(strings.ReplaceAll(start, "\x00", ""), " \t\r\n")
	if strings.HasPrefix(start, "<?xml") || strings.HasPrefix(start, "<ArrayOfAnyType") {
		return true
	}
	const enough = 256 // less says nothing
	text := 0
	for _, b := range plain {
		if b >= ' ' && b <= '~' || b == '\t' || b == '\r' || b == '\n' || b == 0 {
			text++
		}
	}
	return len(plain) >= enough && 4*text > 3*len(plain)
}
