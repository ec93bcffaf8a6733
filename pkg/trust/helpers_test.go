// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

var (
	online   = testSigner(1)
	offline  = testSigner(2)
	stranger = testSigner(3)
	now      = time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
)

func testSigner(n byte) crypto.Signer {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(t testing.TB, s crypto.Signer) sshsig.PublicKey {
	t.Helper()
	key, err := sshsig.NewPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// recipient is a fresh classic age recipient.
func recipient(t testing.TB) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

func world(t testing.TB) World {
	t.Helper()
	return World{
		Name: "cloud-desk", Region: "EU", Number: 1, Created: now, Vault: "https://contoso.vault.azure.net",
		Signer: public(t, online), Recipient: recipient(t),
		Approvers: []Approver{{"alice@contoso.test", public(t, offline)}, {"Bob", public(t, stranger)}}, Threshold: 1,
	}
}

// kekPKIX is the DER of a public key, as a KEK package carries it.
func kekPKIX(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func rsaKey(t testing.TB, bits int) *rsa.PublicKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// pinned is a security world that was sealed and opened, and a KEK for it.
func pinned(t testing.TB) (*World, KEK) {
	t.Helper()
	file := mustSeal(t, online, world(t))
	w, err := OpenWorld(file)
	if err != nil {
		t.Fatal(err)
	}
	return w, KEK{
		World: fingerprint.Of(file), Region: w.Region, Number: 1, Created: now,
		KID: w.Vault + "/keys/kek/0123456789abcdef0123456789abcdef", KeyOps: []string{"import"},
		PublicKey: kekPKIX(t, rsaKey(t, 2048)),
	}
}

func mustSeal(t testing.TB, by crypto.Signer, p interface {
	Seal(crypto.Signer) ([]byte, error)
}) []byte {
	t.Helper()
	file, err := p.Seal(by)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// resign changes a sealed package's content and signs it again.
func resign(t testing.TB, by crypto.Signer, file []byte, change func(content []byte) []byte) []byte {
	t.Helper()
	var e envelope
	if err := json.Unmarshal(file, &e); err != nil {
		t.Fatal(err)
	}
	content := change([]byte(e.Content))
	signature, err := sshsig.Sign(by, namespace, content)
	if err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(envelope{string(content), string(signature)})
	if err != nil {
		t.Fatal(err)
	}
	return append(again, '\n')
}

// replaced is a change for resign.
func replaced(t testing.TB, old, new string) func([]byte) []byte {
	return func(content []byte) []byte {
		t.Helper()
		if bytes.Count(content, []byte(old)) != 1 {
			t.Fatalf("%q is not once in %s", old, content)
		}
		return bytes.Replace(content, []byte(old), []byte(new), 1)
	}
}

// refused checks that err is a refusal by want, first of all.
func refused(t testing.TB, err error, want control.Control) {
	t.Helper()
	if r := new(control.Refusal); !errors.As(err, &r) || r.Control.ID != want.ID {
		t.Errorf("got the error %v, want %s", err, want.ID)
	}
}
