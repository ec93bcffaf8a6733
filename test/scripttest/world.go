// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

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

	created time.Time
}

const worldVault = "https://contoso.vault.azure.net"

// NewWorld makes the keys, and in dir the packages BYOK-SecurityWorld-pkg-EU-1
// and BYOK-KEK-pkg-EU-1, by a clock that says created.
func NewWorld(dir string, created time.Time) (*World, error) {
	public, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	w := &World{created: created}
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
		Name: "online", Created: created, Region: "EU", Number: 1, Vault: worldVault, Signer: w.Self, Recipient: w.Identity.Recipient().String(),
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
		World: fingerprint.Of(w.Package), Created: w.created, Region: "EU", Number: 1, KID: worldVault + "/keys/kek/0123456789abcdef",
		KeyOps: []string{"import"}, PublicKey: der, Attestation: []byte(`{"certificates":"none"}`),
	}.Seal(signer)
}

// world makes the packages of a real ceremony and puts the fingerprints of the security
// world and of the KEK into $WORLD and $KEK. The connected side's clock may be ahead.
func world(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: world DIR [AHEAD]")
	}
	created := time.Now()
	if len(args) == 2 {
		ahead, err := time.ParseDuration(args[1])
		ts.Check(err)
		created = created.Add(ahead)
	}
	w, err := NewWorld(ts.MkAbs(args[0]), created.UTC().Truncate(time.Second))
	ts.Check(err)
	ts.Setenv("WORLD", fingerprint.Of(w.Package).String())
	ts.Setenv("KEK", fingerprint.OfKey(&w.KEK.PublicKey).String())
}

// ownKEK is a connected machine that was taken over: it signs with the online side's key
// a package of the rehearsal's KEK, under the identifier that this has in the vault, with
// a public key of its own.
func ownKEK(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ownkek ONLINE-STATE KEK-PACKAGE FILE")
	}
	world, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), "security-world"))
	ts.Check(err)
	w, err := trust.OpenWorld(world)
	ts.Check(err)
	file, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	kek, err := w.OpenKEK(file, fingerprint.Of(world), time.Now())
	ts.Check(err)
	identity, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), "identity", "sign.pem"))
	ts.Check(err)
	block, _ := pem.Decode(identity)
	signer, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	ts.Check(err)
	own, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	der, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	ts.Check(err)
	forged, err := trust.KEK{
		World: fingerprint.Of(world), Region: w.Region, Number: kek.Number(), Rehearsal: w.Rehearsal, KID: kek.KID(), KeyOps: []string{"import"}, PublicKey: der,
	}.Seal(signer.(crypto.Signer))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), forged, 0o644))
}
