// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"testing"
)

// What the tests look at from within: they stand outside, since package inspect,
// which reports on what they check, stands above this one.

var (
	DecryptField, EncryptField = decrypt, encrypt
	CurrentKey, LegacyKey      = currentKey, legacyKey
)

const DocumentField, KeyField = documentField, keyField

func (e *Export) Document() []byte            { return e.document }
func (e *Export) Key() []byte                 { return e.key }
func (e *Export) Extra() []string             { return e.extra }
func (e *Export) SetDocument(document []byte) { e.document = document }
func (e *Export) Domain() *Domain             { return &Domain{export: e} } // not decrypted
func (d *Domain) Export() *Export             { return d.export }

// ReadDocument reads a document that is decrypted already.
func ReadDocument(plain []byte) (*Domain, error) {
	d := &Domain{export: &Export{}}
	d.DocumentDerivation = Current
	return d, d.readDocument(plain)
}

func TestKeysAreCleared(t *testing.T) {
	k := deriveKeys([]byte("Passw0rd!"))
	first, second := k[0].key[:cap(k[0].key)], k[1].key[:cap(k[1].key)]
	k.clear()
	if !bytes.Equal(first, make([]byte, len(first))) || !bytes.Equal(second, make([]byte, len(second))) {
		t.Error("a key is still in memory")
	}
}
