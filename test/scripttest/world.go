// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/trust"
)

// World is the connected side of a real ceremony, of which there are only the
// keys: an offline side that is not a rehearsal needs its packages.
type World struct {
	Package  []byte // the security world's
	Self     sshsig.PublicKey
	Identity *age.HybridIdentity
	KEK      *rsa.PrivateKey
}

const worldVault = "https://contoso.vault.azure.net"

// NewWorld makes the keys, and in dir the packages BYOK-SecurityWorld-pkg-EU-1
// and BYOK-KEK-pkg-EU-1.
func NewWorld(dir string) (*World, error) {
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	w := &World{}
	if w.Self, err = sshsig.NewPublicKey(public); err != nil {
		return nil, err
	}
	if w.Identity, err = age.GenerateHybridIdentity(); err != nil {
		return nil, err
	}
	if w.KEK, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	w.Package, err = trust.World{
		Name: "online", Region: "EU", Number: 1, Vault: worldVault, Signer: w.Self, Recipient: w.Identity.Recipient().String(),
	}.Seal(signer)
	if err != nil {
		return nil, err
	}
	kek, err := w.sealKEK(signer)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "BYOK-SecurityWorld-pkg-EU-1"), w.Package, 0o644); err != nil {
		return nil, err
	}
	return w, os.WriteFile(filepath.Join(dir, "BYOK-KEK-pkg-EU-1"), kek, 0o644)
}

func (w *World) sealKEK(signer ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&w.KEK.PublicKey)
	if err != nil {
		return nil, err
	}
	return trust.KEK{
		World: fingerprint.Of(w.Package), Region: "EU", Number: 1, KID: worldVault + "/keys/kek/0123456789abcdef",
		KeyOps: []string{"import"}, PublicKey: der, Attestation: []byte(`{"certificates":"none"}`),
	}.Seal(signer)
}

// world makes the packages of a real ceremony and puts the fingerprints of the security
// world and of the KEK into $WORLD and $KEK.
func world(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: world DIR")
	}
	w, err := NewWorld(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Setenv("WORLD", fingerprint.Of(w.Package).String())
	ts.Setenv("KEK", fingerprint.OfKey(&w.KEK.PublicKey).String())
}
