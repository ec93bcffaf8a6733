// SPDX-License-Identifier: Apache-2.0

package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/signer"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

func init() { hsm.Above.Signer = signerSuite }

// signerSuite makes, uses, tries and removes a signing key in each token of the suite.
func signerSuite(t *testing.T, token *hsm.Token, signs bool) {
	made, err := signer.Create(token, "signer", []byte{1})
	if !signs {
		if err == nil || !strings.Contains(err.Error(), "KF-HSM-") {
			t.Error(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	verify(t, made)
	if err := signer.Remove(token, "signer", []byte{2}); err != nil { // another one
		t.Error(err)
	}
	if _, err := signer.Find(token, "signer"); err != nil {
		t.Error(err)
	}
	if err := signer.Remove(token, "signer", []byte{1}); err != nil {
		t.Error(err)
	}
	_, err = signer.Find(token, "signer")
	hsm.Refused(t, err, control.HSMSigner)
}

// verify has a key sign, and returns its public half.
func verify(t *testing.T, key crypto.Signer) *ecdsa.PublicKey {
	t.Helper()
	digest := sha256.Sum256([]byte("manifest"))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public().(*ecdsa.PublicKey)
	if !ecdsa.VerifyASN1(public, digest[:], signature) {
		t.Error("the signature does not verify")
	}
	return public
}

// A signing key is found again by a later run, and only once there.
func TestSigner(t *testing.T) {
	token, _ := hsm.NewToken(t)
	made, err := signer.Create(token, "signer", []byte("id"))
	if err != nil {
		t.Fatal(err)
	}
	public, path := verify(t, made), token.Info().Module
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	token = hsm.OpenToken(t, path)
	found, err := signer.Find(token, "signer")
	if err != nil {
		t.Fatal(err)
	}
	if !verify(t, found).Equal(public) {
		t.Error("another key is found again")
	}
	_, err = signer.Create(token, "signer", []byte("id"))
	hsm.Refused(t, err, control.HSMExists)
	hsm.Refused(t, token.CheckFree("signer", &vectors.OneTPD(t, "contoso-mode2").Key.PublicKey, false), control.HSMExists)
	_, err = signer.Find(token, "absent")
	hsm.Refused(t, err, control.HSMSigner)
}

// BenchmarkSign is a signature as it is under a bundle.
func BenchmarkSign(b *testing.B) {
	token := hsm.BenchToken(b)
	done := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	key, err := signer.Create(token, "signer", []byte{1})
	done(err)
	all, err := token.Objects()
	done(err)
	bare := token.Chosen()
	session, err := bare.NewSession()
	done(err)
	digest := sha256.Sum256(nil)
	hsm.Beside(b, func() {
		_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		done(err)
	}, func() {
		done(bare.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, all[0].Handle))
		_, err := bare.Sign(session, digest[:])
		done(err)
	})
}
