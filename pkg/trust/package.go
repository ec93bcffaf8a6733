// SPDX-License-Identifier: Apache-2.0

// Package trust makes and checks what the two sides publish about themselves
// and pin of each other: the security world and the KEK packages of the online
// side, and the card of the offline side.
//
// # Packages
//
// BYOK-SecurityWorld-pkg-<region>-<n> and BYOK-KEK-pkg-<region>-<n> are one
// JSON object of two strings, on one line:
//
//	{"content":"{…}","signature":"-----BEGIN SSH SIGNATURE-----\n…"}
//
// The content is a JSON document of its own, one line with its line feed; what is signed, as SSHSIG in the
// namespace keyferry-package-v1, is its bytes:
//
//	jq -j .content FILE > content; jq -j .signature FILE > content.sig
//	ssh-keygen -Y verify -f allowed_signers -I online -n keyferry-package-v1 -s content.sig < content
//
// A security world is signed by the key that it names, which proves possession
// and no more: trust comes from its fingerprint, the SHA-256 of the file
// (sha256sum), read aloud once and pinned. A KEK package is signed by the key
// that the pinned security world names, carries that world's fingerprint, and
// must agree with it in region, vault and rehearsal or real.
package trust

import (
	"crypto"
	"fmt"
	"slices"

	"keyferry/pkg/control"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

const (
	namespace   = "keyferry-package-v1"
	maxPackage  = 1 << 20 // bytes; an attestation takes some tens of KiB
	worldFormat = "keyferry-security-world-v1"
	kekFormat   = "keyferry-kek-v1"
)

// Regions are the regions of Microsoft's BYOK toolset, which name packages.
var Regions = []string{
	"NA", "EU", "AP", "LATAM", "JPN", "KOREA", "SA", "UAE", "AUS", "USGOV", "USDOD",
	"CANADA", "GERMANY", "INDIA", "FRANCE", "UK", "SUI",
}

// CheckRegion refuses a region that Microsoft's toolset does not know.
func CheckRegion(region string) error {
	if !slices.Contains(Regions, region) {
		return control.CommandLine.Refuse("%s is not a region", control.Quote(region)).WithHint("the regions are %s", fmt.Sprint(Regions))
	}
	return nil
}

// envelope is a package as it stands in its file.
type envelope struct {
	Content   string `json:"content"`
	Signature string `json:"signature"`
}

func seal(signer crypto.Signer, content any) ([]byte, error) {
	data, err := strictjson.MarshalLine(content)
	if err != nil {
		return nil, err
	}
	signature, err := sshsig.Sign(signer, namespace, data)
	if err != nil {
		return nil, err
	}
	return strictjson.MarshalLine(envelope{string(data), string(signature)})
}

// unseal checks a package's signature and decodes its content, from the bytes
// that were verified, into v. by is the key that must have signed; nil takes
// the key that did, which is returned.
func unseal(file []byte, by *sshsig.PublicKey, v any) (sshsig.PublicKey, error) {
	var e envelope
	if err := strictjson.UnmarshalLine(file, maxPackage, &e); err != nil {
		return sshsig.PublicKey{}, control.PackageFormat.Refuse("this is not a package: %w", err)
	}
	signature, err := sshsig.Parse([]byte(e.Signature))
	if err != nil {
		return sshsig.PublicKey{}, control.PackageSignature.Refuse("the package's signature can't be read: %w", err)
	}
	if by != nil && !signature.Key.Equal(*by) {
		return sshsig.PublicKey{}, control.PackageSignature.Refuse("the package is signed by %s, not by the security world's key %s",
			signature.Key.Fingerprint(), by.Fingerprint())
	}
	if err := signature.Verify(namespace, []byte(e.Content)); err != nil {
		return sshsig.PublicKey{}, control.PackageSignature.Refuse("the package's signature: %w", err)
	}
	if err := strictjson.UnmarshalLine([]byte(e.Content), maxPackage, v); err != nil {
		return sshsig.PublicKey{}, control.PackageFormat.Refuse("the package's content: %w", err)
	}
	return signature.Key, nil
}

// WorldName is the file name of a security world package.
func WorldName(region string, number int) string {
	return fmt.Sprintf("BYOK-SecurityWorld-pkg-%s-%d", region, number)
}

// KEKName is the file name of a KEK package.
func KEKName(region string, number int) string {
	return fmt.Sprintf("BYOK-KEK-pkg-%s-%d", region, number)
}
