// SPDX-License-Identifier: Apache-2.0

// Package bundle seals and opens the transfer bundle, the one file that crosses
// the air gap: keyferry-<sender>-<sequence>.kfb. This comment is the format's
// specification.
//
// # Outer file
//
// A POSIX (ustar) tar of at most 256 MiB, with regular files in this order and
// nothing else:
//
//	manifest.json                what is signed: these bytes
//	signatures/<signer>.sig      armored SSHSIG, namespace keyferry-bundle-v2: the
//	                             sender's first, then approvals, by file name
//	payload.tar.zst.age          age(zstd(tar(index.json, files)))
//
// <signer> is the SHA-256 of the signing key's SSH wire encoding in 64 hex
// digits. Every header is canonical: mode 0644, owner and group 0 without names,
// time 0, checksum as usual; the file ends with two blocks of zeros and nothing
// more. So every byte of a bundle is checked:
//
//	tar xf B.kfb
//	ssh-keygen -Y verify -f allowed_signers -I offline -n keyferry-bundle-v2 -s signatures/….sig < manifest.json
//	sha256sum payload.tar.zst.age
//	age -d -i id.txt payload.tar.zst.age | zstd -d | tar x
//
// # JSON
//
// All JSON documents of a bundle have one spelling, the one that "jq ." writes:
// one field a line, indented by two spaces, a line feed at the end. Fields come
// in the order of the Go struct, and none is left out. Everything else is
// refused: unknown and duplicate fields, another order or case, trailing data.
//
// # Manifest
//
// See [Manifest]. It says what travels, so that a person who approves a bundle
// can read what they sign: for each key its identifier, the GUID of its SLC, the
// SHA-256 of its public key and of the KEK that wraps it (both of the PKIX DER),
// what is to become of it, and the IDs of the controls that a person overrode or
// that hold weakly for it. sequence counts a sender's bundles from 1; previous
// is the SHA-256 of the sender's manifest before, or 32 zero bytes in the first.
// index is the SHA-256 of index.json, which holds a random salt: the manifest
// commits to the rest of the contents without telling anything of them.
//
// # Payload
//
// A zstd stream with a window of at most 8 MiB holds a tar like the outer one,
// whose first member is index.json (see [Index]). The index lists every other
// member, in order, with size and SHA-256: first the files of each key,
// keys/<id>/…, then the rest. What it says of each key agrees with the manifest.
// A path of over 100 bytes has the PAX header that Go's archive/tar writes for it.
//
// A key transfer carries, for each key of the disposition hsm, wrapped.bin (the
// ciphertext of the BYOK blob), no_key_tpd_<id>.xml, key.json (what was found and
// done, for the record) and, where the keyless TPD was encrypted anew,
// one_time_password.txt. For a key of the disposition microsoft-managed, which no
// cloud HSM takes, it carries tpd_with_key_<id>.xml, the export as it is, under
// the export's own password, which does not travel; and key.json. Then comes
// transcript.jsonl, the sender's ledger as it was before the bundle was sealed
// (see package ledger; empty where the sender keeps none). The receiver refuses a
// copy that does not continue the one in the bundle before.
//
// A receipt carries receipt.json (see [ReceiptText]).
//
// # Approvals
//
// A security world may ask for approvals. An approver signs the bytes of
// manifest.json, which leave the sender alone, as a request, before the bundle
// does (keyferry-<sender>-<sequence>.request.json). The signature becomes a
// member of the bundle.
//
// # Order of checks
//
// The stick is read once, from front to back, and the verified bytes are the
// parsed bytes: signatures before the manifest is parsed; the manifest and the
// payload's size before the payload is copied, into a file without a name; the
// payload's digest before it is decrypted; the index before any file; every size
// before the content that has it.
//
// A worked example is at the end.
package bundle

import (
	"fmt"
	"time"

	"keyferry/pkg/fingerprint"
)

// Format is the version of manifest, index and file layout.
const Format = "keyferry-bundle-v2"

// Namespace is the SSHSIG namespace of the manifest's signatures.
const Namespace = "keyferry-bundle-v2"

// Names of the members.
const (
	manifestName  = "manifest.json"
	signaturesDir = "signatures/"
	payloadName   = "payload.tar.zst.age"
	indexName     = "index.json"
	keysDir       = "keys"
)

// Limits of a bundle, in bytes and counts. More is refused unread.
const (
	MaxSize     = 256 << 20 // the file
	MaxContents = 240 << 20 // the files in the payload: with headers and encryption the bundle stays below MaxSize
	MaxKeys     = 1000

	maxManifest   = 4 << 20
	maxIndex      = 16 << 20
	maxSignature  = 16 << 10
	maxSignatures = 64
	maxWarnings   = 64 // of a key
)

// Purpose says what a bundle is for.
type Purpose string

const (
	KeyTransfer Purpose = "key-transfer"
	Receipt     Purpose = "receipt"
)

// people is what people call such a bundle.
func (p Purpose) people() string {
	if p == KeyTransfer {
		return "a bundle with keys"
	}
	return "a receipt"
}

// Manifest is what the sender signs.
type Manifest struct {
	Format    string                  `json:"format"`
	Purpose   Purpose                 `json:"purpose"`
	ID        string                  `json:"id"` // 32 random hex digits
	Created   time.Time               `json:"created"`
	Rehearsal bool                    `json:"rehearsal"`
	Sender    Party                   `json:"sender"`
	Receiver  fingerprint.Fingerprint `json:"receiver"` // of the receiver's signing key
	Sequence  uint64                  `json:"sequence"`
	Previous  fingerprint.Fingerprint `json:"previous"`
	Keys      []ManifestKey           `json:"keys"`
	Payload   File                    `json:"payload"`
	Index     fingerprint.Fingerprint `json:"index"`
}

// Party names a side: its name, and the fingerprint of its signing key.
type Party struct {
	Name        string                  `json:"name"`
	Fingerprint fingerprint.Fingerprint `json:"fingerprint"`
}

// ManifestKey says which key travels, under which KEK, and what is to become of
// it.
type ManifestKey struct {
	ID          string                   `json:"id"`
	Disposition string                   `json:"disposition"`
	SLC         string                   `json:"slc"`        // GUID
	PublicKey   fingerprint.Fingerprint  `json:"public_key"` // of its PKIX DER
	KEK         *fingerprint.Fingerprint `json:"kek"`        // of its PKIX DER; null for a Microsoft-managed key
	Warnings    []string                 `json:"warnings"`   // control IDs, sorted
}

// File describes a member: its path, size in bytes, and SHA-256.
type File struct {
	Path   string                  `json:"path"`
	Size   int64                   `json:"size"`
	SHA256 fingerprint.Fingerprint `json:"sha256"`
}

// Index lists the contents of the payload.
type Index struct {
	Salt  string `json:"salt"` // 64 random hex digits
	Keys  []Key  `json:"keys"`
	Files []File `json:"files"` // those of no key
}

// Key describes one key that is carried. Of a Microsoft-managed key, which is
// wrapped under no KEK, KID, WrappedBy and Mechanism are empty and KEK is null.
type Key struct {
	ID          string                   `json:"id"`          // key identifier
	Disposition string                   `json:"disposition"` // what is to become of it
	SLC         string                   `json:"slc"`         // GUID of the SLC, lower case, no braces
	PublicKey   []byte                   `json:"public_key"`  // PKIX DER of an RSA key, base64
	KID         string                   `json:"kid"`         // identifier of the KEK, with version
	KEK         *fingerprint.Fingerprint `json:"kek"`         // of the KEK's PKIX DER
	WrappedBy   string                   `json:"wrapped_by"`  // token or software
	Mechanism   string                   `json:"mechanism"`   // by which it was wrapped
	Warnings    []string                 `json:"warnings"`    // control IDs, sorted
	Files       []File                   `json:"files"`
}

// Dispositions of a key.
const (
	DispositionHSM              = "hsm"               // to be imported into the vault's HSM
	DispositionMicrosoftManaged = "microsoft-managed" // to be imported into the tenant inside its TPD
)

// Values of Key.WrappedBy.
const (
	WrappedByToken    = "token"
	WrappedBySoftware = "software"
)

// MicrosoftManaged reports whether the key travels inside its TPD, wrapped for
// no HSM.
func (k Key) MicrosoftManaged() bool { return k.Disposition == DispositionMicrosoftManaged }

// Names of the files of a key.
const (
	WrappedName = "wrapped.bin"           // ciphertext of the transfer blob
	RecordName  = "key.json"              // what was found and done, for the record
	OneTimeName = "one_time_password.txt" // of the keyless TPD, where it has one
)

// TranscriptName is the path of the sender's ledger in a key transfer.
const TranscriptName = "transcript.jsonl"

// KeylessName is the name of a key's keyless TPD.
func KeylessName(id string) string { return "no_key_tpd_" + id + ".xml" }

// WithKeyName is the name of a Microsoft-managed key's TPD, which holds the key.
func WithKeyName(id string) string { return "tpd_with_key_" + id + ".xml" }

// KeyPath is the path of a key's file in the payload.
func KeyPath(id, name string) string { return keysDir + "/" + id + "/" + name }

// FileName is the name of a sender's bundle of that number.
func FileName(sender string, sequence uint64) string {
	return fmt.Sprintf("keyferry-%s-%d.kfb", sender, sequence)
}

// RequestName is the name of the file that asks for approvals of that bundle.
func RequestName(sender string, sequence uint64) string {
	return fmt.Sprintf("keyferry-%s-%d.request.json", sender, sequence)
}
