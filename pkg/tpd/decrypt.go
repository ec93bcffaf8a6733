// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"slices"
	"strings"
	"unicode/utf8"

	"keyferry/internal/cores"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/utf16le"
)

// Domain is a decrypted export. [Domain.Clear] wipes its key.
type Domain struct {
	Info      *KeyInfo // nil if the document has none
	Chain     []string // XrML certificates, leaf first, not parsed
	Templates []string // XrML templates, not parsed

	Key          *rsa.PrivateKey // consistent in itself; nil in a keyless TPD and where its field is damaged
	KeyAlgorithm capi.Algorithm

	DocumentDerivation Derivation
	KeyDerivation      Derivation // "" without a key

	hasKeyField bool
	keyErr      error  // why Key is nil though there is a field for it
	extra       extras // of the file and the document
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
type keys [2]struct {
	derivation Derivation
	key        []byte
}

func deriveKeys(password []byte) keys {
	var k keys
	k[0].derivation, k[0].key = Current, currentKey(password)
	k[1].derivation, k[1].key = Legacy, legacyKey(password)
	return k
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
	for _, k := range keys {
		ciphertext, err := e.take()
		if err != nil {
			return nil, err
		}
		if !mayBeText(beginning(ciphertext, k.key)) {
			e.document = ciphertext
			continue
		}
		plain, padded := decrypt(ciphertext, k.key)
		d := &Domain{DocumentDerivation: k.derivation, extra: e.extra[:len(e.extra):len(e.extra)]}
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
	}
	if damage != nil {
		return nil, damage
	}
	return nil, control.TPDPassword.Refuse("the password does not open this TPD export, neither by the current nor by the legacy key derivation")
}

// openKey reads the key field into the domain. The derivation whose plaintext
// begins as a key blob is the right one.
func (e *Export) openKey(d *Domain, keys keys) {
	d.hasKeyField, d.keyErr = e.HasKey(), e.keyErr
	if len(e.key) == 0 {
		return
	}
	d.keyErr = control.TPDKeyDecrypt.Refuse("the key in the TPD export does not decrypt with the password that opens the rest of it")
	for _, k := range keys {
		blob, padded := decrypt(bytes.Clone(e.key), k.key)
		if !capi.HasHeader(blob) {
			if padded && capi.HasType(blob) { // decrypted, but no such blob
				d.KeyDerivation = k.derivation
				_, _, d.keyErr = capi.Parse(blob)
			}
			clear(blob)
			continue
		}
		d.KeyDerivation = k.derivation
		if !padded {
			d.keyErr = control.TPDKeyBlob.Refuse("the key in the TPD export does not end as it should")
		} else {
			d.Key, d.KeyAlgorithm, d.keyErr = capi.Parse(blob)
		}
		clear(blob)
		return
	}
}

// initialVector is the same in every export.
var initialVector = []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// beginning returns the first bytes of the plaintext, so that a wrong key costs
// little.
func beginning(ciphertext, key []byte) []byte {
	sample := bytes.Clone(ciphertext[:min(len(ciphertext), sampleSize)])
	decryptBlocks(sample, key)
	return sample
}

// decrypt returns the plaintext in the place of the ciphertext, without its
// padding if that is right, else all of it. The ciphertext is one or more whole
// blocks.
func decrypt(ciphertext, key []byte) (plain []byte, padded bool) {
	plain = ciphertext
	decryptBlocks(plain, key)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		return plain, false
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return plain, false
		}
	}
	return plain[:len(plain)-pad], true
}

// decryptBlocks decrypts whole blocks where they lie, on all cores: to begin
// anywhere in CBC takes only the block of ciphertext before, which each
// decrypter copies while it is there.
func decryptBlocks(blocks, key []byte) {
	pieces := slices.Collect(slices.Chunk(blocks, 1<<20))
	decrypters := make([]cipher.BlockMode, len(pieces))
	block := newCipher(key)
	before := initialVector
	for i, piece := range pieces { // here, where secret.Do reaches them: it does not reach into other goroutines
		decrypters[i] = cipher.NewCBCDecrypter(block, before)
		before = piece[len(piece)-aes.BlockSize:]
	}
	cores.Each(len(pieces), func() func(int) {
		return func(i int) { decrypters[i].CryptBlocks(pieces[i], pieces[i]) }
	})
}

func newCipher(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // not for a key of 16 bytes
	}
	return block
}

// What tells text from what a wrong key gives: how it begins, or, where that is
// damaged, how many bytes of a sample are ASCII text (or the zeros of UTF-16). Of
// random bytes, two in five are; of a document, nearly all, unless it holds much
// in other alphabets.
const (
	sampleSize = 64 << 10
	minSample  = 256 // less says nothing
)

// mayBeText reports whether it is worth reading: not so for the plaintext of a
// wrong key.
func mayBeText(plain []byte) bool {
	text, all := countText(plain)
	return all < minSample || 2*text > all || beginsAsXML(plain)
}

// isText tells a document that is damaged from one that was decrypted with a
// wrong key.
func isText(plain []byte) bool {
	text, all := countText(plain)
	return all >= minSample && 4*text > 3*all || beginsAsXML(plain)
}

// beginsAsXML reports whether it begins as a document does, in UTF-8 or UTF-16,
// which is ASCII with zeros there: a wrong key makes five such bytes hardly ever.
func beginsAsXML(plain []byte) bool {
	start := string(plain[:min(len(plain), 64)])
	for _, mark := range []string{"\xEF\xBB\xBF", "\xFF\xFE", "\xFE\xFF"} {
		start = strings.TrimPrefix(start, mark)
	}
	start = strings.TrimLeft(strings.ReplaceAll(start, "\x00", ""), " \t\r\n")
	return strings.HasPrefix(start, "<?xml") || strings.HasPrefix(start, "<ArrayOfAnyType")
}

func countText(plain []byte) (text, all int) {
	sample := plain[:min(len(plain), sampleSize)]
	for _, b := range sample {
		if b >= ' ' && b <= '~' || b == '\t' || b == '\r' || b == '\n' || b == 0 {
			text++
		}
	}
	return text, len(sample)
}
