// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/sshsig"
)

// World is a security world: what the offline side pins of the online side.
type World struct {
	Format    string           `json:"format"`
	Name      string           `json:"name"` // of the online side
	Region    string           `json:"region"`
	Number    int              `json:"number"`
	Created   time.Time        `json:"created"`
	Rehearsal bool             `json:"rehearsal"`
	Vault     string           `json:"vault"`     // https://host
	Signer    sshsig.PublicKey `json:"signer"`    // signs KEK packages and receipts
	Recipient string           `json:"recipient"` // age; bundles are encrypted to it
	Approvers []Approver       `json:"approvers"` // who may approve a bundle
	Threshold int              `json:"threshold"` // how many of them must
}

// Seal makes the security world's package, signed by the key that it names.
func (w World) Seal(signer crypto.Signer) ([]byte, error) {
	w.Format = worldFormat
	if w.Approvers == nil {
		w.Approvers = []Approver{}
	}
	return seal(signer, w)
}

// OpenWorld reads a security world package and checks that the key that it
// names signed it. That it is the right one only its fingerprint can tell.
func OpenWorld(file []byte) (*World, error) {
	w, err := openWorld(file)
	if err != nil {
		return nil, filetype.Explain(err, file, filetype.World)
	}
	return w, nil
}

func openWorld(file []byte) (*World, error) {
	var w World
	signer, err := unseal(file, nil, &w)
	if err != nil {
		return nil, err
	}
	switch {
	case w.Format != worldFormat:
		return nil, control.PackageFormat.Refuse("this is not a security world package but %s", control.Quote(w.Format))
	case !signer.Equal(w.Signer):
		return nil, control.PackageSignature.Refuse("the security world names another key than the one that signed it")
	case !slices.Contains(Regions, w.Region) || w.Number < 1 || !keyid.Valid(w.Name) || !vaultSyntax.MatchString(w.Vault):
		return nil, control.PackageFormat.Refuse("the security world's name, region, number or vault is out of range")
	}
	if err := w.CheckApprovers(); err != nil {
		return nil, control.PackageFormat.Refuse("%w", err)
	}
	if _, err := w.AgeRecipient(); err != nil {
		return nil, control.PackageFormat.Refuse("the security world's recipient: %w", err)
	}
	return &w, nil
}

// AgeRecipient is the recipient to which bundles are encrypted.
func (w *World) AgeRecipient() (age.Recipient, error) { return parseRecipient(w.Recipient) }

// KEK is a key exchange key package: the vault key that wraps what is carried.
type KEK struct {
	Format      string                  `json:"format"`
	World       fingerprint.Fingerprint `json:"world"` // of the security world's package
	Region      string                  `json:"region"`
	Number      int                     `json:"number"`
	Created     time.Time               `json:"created"`
	Rehearsal   bool                    `json:"rehearsal"`
	KID         string                  `json:"kid"` // the vault's identifier, with version
	KeyOps      []string                `json:"key_ops"`
	Expires     *time.Time              `json:"expires"`
	PublicKey   []byte                  `json:"public_key"` // PKIX DER, base64
	Attestation json.RawMessage         `json:"attestation"`
}

// Seal makes the KEK's package.
func (k KEK) Seal(signer crypto.Signer) ([]byte, error) {
	k.Format = kekFormat
	if k.Attestation == nil {
		k.Attestation = json.RawMessage("null")
	}
	return seal(signer, k)
}

// VerifiedKEK is a KEK that holds under a pinned security world. Only
// [World.OpenKEK] makes one.
type VerifiedKEK struct {
	kek    KEK
	file   fingerprint.Fingerprint
	public *rsa.PublicKey
}

// KID is the KEK's identifier in the vault, with its version.
func (v VerifiedKEK) KID() string { return v.kek.KID }

// Fingerprint is the SHA-256 of the KEK's PKIX DER: what people compare with the key
// that the vault shows.
func (v VerifiedKEK) Fingerprint() fingerprint.Fingerprint { return fingerprint.Of(v.kek.PublicKey) }

// Number is the package's; it rises with each package that the connected side makes.
func (v VerifiedKEK) Number() int { return v.kek.Number }

// Created is when the package was made, as it says.
func (v VerifiedKEK) Created() time.Time { return v.kek.Created }

// Package is the fingerprint of the package's file.
func (v VerifiedKEK) Package() fingerprint.Fingerprint { return v.file }

// Expires is the end of the KEK's validity, nil if it has none.
func (v VerifiedKEK) Expires() *time.Time { return v.kek.Expires }

// Attestation is a JSON object that the vault gave with the KEK, nil without one.
// Nothing here judges it: it proves nothing until somebody has checked its
// certificates.
func (v VerifiedKEK) Attestation() []byte {
	if string(v.kek.Attestation) == "null" {
		return nil
	}
	return v.kek.Attestation
}

// Public is the KEK's public key.
func (v VerifiedKEK) Public() *rsa.PublicKey { return v.public }

// OpenKEK checks a KEK package against w, the pinned security world whose
// package has the fingerprint pin: signed by its key, of its region, vault and
// kind, import only, 2048, 3072 or 4096 bits, and not expired at now.
func (w *World) OpenKEK(file []byte, pin fingerprint.Fingerprint, now time.Time) (*VerifiedKEK, error) {
	v, err := w.openKEK(file, pin, now)
	if err != nil {
		return nil, filetype.Explain(err, file, filetype.KEK)
	}
	return v, nil
}

func (w *World) openKEK(file []byte, pin fingerprint.Fingerprint, now time.Time) (*VerifiedKEK, error) {
	var k KEK
	if _, err := unseal(file, &w.Signer, &k); err != nil {
		return nil, err
	}
	switch {
	case k.Format != kekFormat:
		return nil, control.PackageFormat.Refuse("this is not a KEK package but %s", control.Quote(k.Format))
	case k.Number < 1:
		return nil, control.PackageFormat.Refuse("the KEK package has the number %d", k.Number)
	case string(k.Attestation) != "null" && (!bytes.HasPrefix(k.Attestation, []byte("{")) || string(k.Attestation) == "{}"):
		return nil, control.PackageAttestation.Refuse("the KEK package has an attestation that is none: %s is not a JSON object with something in it", control.Quote(string(k.Attestation)))
	case k.Rehearsal != w.Rehearsal:
		return nil, control.TrustRehearsal.Refuse("one of KEK package and security world is for a rehearsal, the other is not")
	case k.Region != w.Region:
		return nil, control.PackageRegion.Refuse("the KEK package is of region %s, the security world of %s", control.Quote(k.Region), w.Region)
	case k.World != pin:
		return nil, control.PackageSignature.Refuse("the KEK package belongs to the security world %s, not to the pinned one %s", k.World, pin)
	case k.Expires != nil && !now.Before(*k.Expires):
		return nil, control.PackageExpired.Refuse("the KEK expired on %s, and this machine's clock says %s", k.Expires.Format(time.DateOnly), now.UTC().Format("2006-01-02 15:04 MST"))
	case !slices.Equal(k.KeyOps, []string{"import"}):
		return nil, control.PackageKEK.Refuse("the KEK may do %s; it must be good for import alone", control.Quote(strings.Join(k.KeyOps, ", ")))
	}
	if err := checkKID(k.KID, w.Vault); err != nil {
		return nil, err
	}
	public, err := kekPublic(k.PublicKey)
	if err != nil {
		return nil, err
	}
	return &VerifiedKEK{k, fingerprint.Of(file), public}, nil
}

func kekPublic(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, control.PackageKEK.Refuse("the KEK's public key can't be read: %w", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || !slices.Contains(byok.KeyBits, public.N.BitLen()) || public.E != 65537 {
		return nil, control.PackageKEK.Refuse("the KEK is not an RSA key of 2048, 3072 or 4096 bits with exponent 65537")
	}
	return public, nil
}

var (
	vaultSyntax = regexp.MustCompile(`^https://[0-9a-z.-]+$`)
	kidSyntax   = regexp.MustCompile(`^(https://[0-9a-z.-]+)/keys/[0-9A-Za-z-]{1,127}/[0-9A-Za-z]{1,64}$`)
)

// ValidKID reports whether kid is the URL of a key in a vault, with its version.
func ValidKID(kid string) bool { return kidSyntax.MatchString(kid) }

// checkKID wants https://host/keys/name/version of the security world's vault.
func checkKID(kid, vault string) error {
	match := kidSyntax.FindStringSubmatch(kid)
	if match == nil {
		return control.PackageVault.Refuse("the KEK's identifier %s is not the URL of a key and its version", control.Quote(kid))
	}
	if match[1] != vault {
		return control.PackageVault.Refuse("the KEK is in %s, not in the security world's vault %s", control.Quote(match[1]), vault)
	}
	return nil
}
