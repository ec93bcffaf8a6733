// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/byok"
)

// benchToken opens a token on tmpfs where there is one, so that the disk is
// not what is measured.
func benchToken(b *testing.B) *Token {
	parent, err := os.MkdirTemp("/dev/shm", "keyferry-bench-")
	if err != nil {
		parent = b.TempDir()
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(parent); err != nil {
			b.Error(err)
		}
	})
	token, _ := newTokenIn(b, parent)
	return token
}

// BenchmarkImport is a key's whole way: import, proof, keeping; then removed.
// Compare with BenchmarkBareImport of the same run.
func BenchmarkImport(b *testing.B) {
	token := benchToken(b)
	key := vectorKey(b, "contoso-mode2")
	imported(b, token, key) // chooses the way, makes the transport pair
	for b.Loop() {
		session, err := token.Import(key)
		if err != nil {
			b.Fatal(err)
		}
		proven, err := session.Prove(&key.PublicKey)
		if err != nil {
			b.Fatal(err)
		}
		kept, err := proven.Keep(KeepOptions{Label: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		if err := kept.Remove(); err != nil {
			b.Fatal(err)
		}
		if err := session.Destroy(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareImport is the PKCS#11 calls that move, use and store the key and
// remove it again, without any check: no reading back, nothing in software.
func BenchmarkBareImport(b *testing.B) {
	token := benchToken(b)
	key := vectorKey(b, "contoso-mode2")
	pair, err := token.transportKeys()
	if err != nil {
		b.Fatal(err)
	}
	wrapped, err := byok.Wrap(rand.Reader, key, &pair.public)
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, &key.PublicKey, make([]byte, 32), nil)
	if err != nil {
		b.Fatal(err)
	}
	id := make([]byte, 32)
	named := template{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, "bench"), attr(pkcs11.CKA_ID, id)}
	aesTemplate := template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_UNWRAP, true),
	}
	ck, s := token.ck, token.session
	made := func(h pkcs11.ObjectHandle, err error) pkcs11.ObjectHandle {
		done(b, err)
		return h
	}
	for b.Loop() {
		aes := made(ck.UnwrapKey(s, oaep(), pair.private, wrapped[:256], aesTemplate))
		session := made(ck.UnwrapKey(s, mechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil), aes, wrapped[256:], privateTemplate()))
		done(b, ck.DestroyObject(s, aes))
		done(b, ck.SignInit(s, mechanism(pkcs11.CKM_SHA256_RSA_PKCS, nil), session))
		_, err := ck.Sign(s, sealed)
		done(b, err)
		done(b, ck.DecryptInit(s, oaep(), session))
		_, err = ck.Decrypt(s, sealed)
		done(b, err)
		private := made(ck.CopyObject(s, session, append(named, attr(pkcs11.CKA_EXTRACTABLE, false))))
		public := made(ck.CreateObject(s, publicTemplate(&key.PublicKey, named...)))
		for _, h := range []pkcs11.ObjectHandle{public, private, session} {
			done(b, ck.DestroyObject(s, h))
		}
	}
}

func done(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkList is the one listing of a token with 1,000 keys.
func BenchmarkList(b *testing.B) {
	token := benchToken(b)
	key := vectorKey(b, "contoso-mode2")
	for i := range 1000 {
		_, err := token.ck.CreateObject(token.session, publicTemplate(&key.PublicKey,
			attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, []byte{byte(i), byte(i >> 8)})))
		done(b, err)
	}
	for b.Loop() {
		token.listed = false
		done(b, token.list())
	}
}
