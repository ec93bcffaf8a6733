// SPDX-License-Identifier: Apache-2.0

package control

var trustControls []Control

func trust(id string, class Class, hint string) Control {
	return register(&trustControls, Control{id, class, hint})
}

// Controls of trust: the packages and the card that cross the gap, and the
// pins that hold them.
var (
	BlobFormat = trust("KF-BYOK-FORMAT", Refused, "make the transfer blob again with `online package`")

	PackageFormat      = trust("KF-PACKAGE-FORMAT", Refused, "copy the package again from the machine that made it")
	PackageSignature   = trust("KF-PACKAGE-SIGNATURE", Refused, "somebody else made or changed this package: copy it again, and ask the online side which one is theirs")
	PackageRegion      = trust("KF-PACKAGE-REGION", Refused, "use the KEK package that was made together with the pinned security world")
	PackageVault       = trust("KF-PACKAGE-VAULT", Refused, "use the KEK package of the pinned security world's vault")
	PackageKEK         = trust("KF-PACKAGE-KEK", Refused, "make a new KEK with `online kek create --kek-name keyferry-kek-2`: RSA, 2048 to 4096 bits, import only")
	PackageNumber      = trust("KF-PACKAGE-NUMBER", Refused, "use the newest KEK package; `online kek fetch` writes one with a new number for a KEK that is in the vault")
	PackageAttestation = trust("KF-PACKAGE-ATTESTATION", Refused, "not each vault gives an attestation: compare the KEK's fingerprint with the one that a second person reads from the vault")
	PackageExpired     = trust("KF-PACKAGE-EXPIRED", Refused, "check this machine's clock first; if it is right, make a new KEK with `online kek create --kek-name keyferry-kek-2`")

	TrustNone        = trust("KF-TRUST-NONE", Refused, "pin the other side first, with the trust command")
	TrustFingerprint = trust("KF-TRUST-FINGERPRINT", Refused, "this is not the file that was read aloud: copy it again and compare the words")
	TrustPinned      = trust("KF-TRUST-PINNED", Refused, "another one is pinned already, and a pin is never replaced: start with a new state directory")
	TrustRehearsal   = trust("KF-TRUST-REHEARSAL", Refused, "rehearsal and real never mix: use a state directory, packages and bundles of one kind")
	TrustApprover    = trust("KF-TRUST-APPROVER", Refused, "name each approver once, by the .pub file of an SSH key of theirs (ssh-keygen -t ed25519, or ed25519-sk in hardware)")
	CardFormat       = trust("KF-CARD-FORMAT", Refused, "copy the offline card again from the machine that made it")
)
