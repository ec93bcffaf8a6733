// SPDX-License-Identifier: Apache-2.0

// Package bundle seals and opens the transfer bundle, the one file that crosses
// the air gap: keyferry-<sender>-<sequence>.kfb. This comment is the format's
// specification.
//
// # Outer file
//
// A POSIX (ustar) tar of regular files, in this order and with nothing else:
//
//	manifest.json                one line of JSON; what is signed is these bytes
//	signatures/<signer>.sig      armored SSHSIG, namespace keyferry-bundle-v1: the
//	                             sender's first, then approvals, by file name
//	payload.tar.zst.age          age(zstd(tar(index.json, files))), below 8 GiB
//
// <signer> is the SHA-256 of the signing key's SSH wire encoding in 64 hex
// digits. Every header is canonical: mode 0644, owner and group 0 without names,
// time 0, checksum as usual; the file ends with two blocks of zeros and nothing
// more. So no byte of a bundle is outside of what is checked:
//
//	tar xf B.kfb
//	ssh-keygen -Y verify -f allowed_signers -I offline -n keyferry-bundle-v1 -s signatures/….sig < manifest.json
//	sha256sum payload.tar.zst.age
//	age -d -i id.txt payload.tar.zst.age | zstd -d | tar x
//
// # Manifest
//
// See [Manifest]. Every field is present, in that order, and spelled as
// encoding/json does, but for < > and &, which are not escaped; anything else is
// refused. sequence counts a sender's bundles from 1; previous is the SHA-256 of
// the sender's manifest before, or 32 zero bytes in the first. index is the
// SHA-256 of index.json, which holds a random salt: so the manifest commits to the
// contents without telling anything of them. Only warnings does: it has the IDs of
// the controls that a person overrode, or that hold weakly for a key, sorted, once
// each, for approvers to see before they sign. Those of a key are in the index
// too.
//
// # Payload
//
// One or more zstd frames, with windows of at most 8 MiB, hold a tar like the
// outer one, whose first member is index.json (see [Index]). The index lists
// every other member, in order, with size and SHA-256: first the files of each
// key, keys/<id>/…, then the rest. A path of over 100 bytes has the PAX header
// that Go's archive/tar writes for it.
//
// A key transfer carries for each key of the disposition hsm wrapped.bin (the
// ciphertext of the BYOK blob), no_key_tpd_<id>.xml, key.json (what was found and
// done, for the record) and, where the keyless TPD was encrypted anew,
// one_time_password.txt. Of a key of the disposition microsoft-managed, which no
// cloud HSM takes, it carries tpd_with_key_<id>.xml, the export as it is, under
// the export's own password, which does not travel; and key.json. Then comes
// transcript.jsonl, the sender's ledger as it was before it was sealed (see package
// ledger; of no record where the sender keeps none). The receiver refuses a copy
// that does not go on where the one in the bundle before ended.
//
// A receipt carries receipt.json (see [ReceiptText]): which manifest it answers, which copy
// of the sender's ledger came with that, the head of the receiver's own ledger, and what became of
// each key, or why it was refused.
//
// # Order of checks
//
// The stick is read once, from front to back; what is verified is what is
// parsed. Signatures before the manifest is parsed; the manifest and the
// payload's size before the payload is copied, into a file without a name; its
// digest before it is decrypted; the index before any file; every size before
// what it measures. A bundle of any size passes through little memory.
//
// A worked example is at the end.
package bundle

import (
	"fmt"
	"time"

	"keyferry/pkg/fingerprint"
)

// Format is the version of manifest, index and file layout.
const Format = "keyferry-bundle-v1"

// Namespace is the SSHSIG namespace of the manifest's signatures.
const Namespace = "keyferry-bundle-v1"

// Names of the members.
const (
	manifestName  = "manifest.json"
	signaturesDir = "signatures/"
	payloadName   = "payload.tar.zst.age"
	indexName     = "index.json"
	keysDir       = "keys"
)

// DefaultMaxSize is how large, in bytes, a payload and what it holds may each
// be, where the receiver does not say otherwise.
const DefaultMaxSize = 8 << 30

// Sizes in bytes, and counts, above which a bundle is refused unread.
const (
	maxManifest   = 64 << 10
	maxSignature  = 16 << 10
	maxSignatures = 64
	maxIndex      = 16 << 20
)

// Purpose says what a bundle is for.
type Purpose string

const (
	KeyTransfer Purpose = "key-transfer"
	Receipt     Purpose = "receipt"
)

// Manifest is what the sender signs.
type Manifest struct {
	Format    string                  `json:"format"`
	Purpose   Purpose                 `json:"purpose"`
	ID        string                  `json:"id"` // 32 random hex digits
	Created   time.Time               `json:"created"`
	Sender    Party                   `json:"sender"`
	Receiver  fingerprint.Fingerprint `json:"receiver"` // of the receiver's signing key
	Sequence  uint64                  `json:"sequence"`
	Previous  fingerprint.Fingerprint `json:"previous"`
	Rehearsal bool                    `json:"rehearsal"`
	Warnings  []string                `json:"warnings"` // control IDs
	Payload   File                    `json:"payload"`
	Index     fingerprint.Fingerprint `json:"index"`
}

// Party names a side: its name, and the fingerprint of its signing key.
type Party struct {
	Name        string                  `json:"name"`
	Fingerprint fingerprint.Fingerprint `json:"fingerprint"`
}

// File describes a member: its path, size in bytes, and SHA-256.
type File struct {
	Path   string                  `json:"path"`
	Size   int64                   `json:"size"`
	SHA256 fingerprint.Fingerprint `json:"sha256"`
}

// Index lists what the payload holds.
type Index struct {
	Salt  string `json:"salt"` // 64 random hex digits
	Keys  []Key  `json:"keys"`
	Files []File `json:"files"` // those of no key
}

// Key describes one key that is carried.
type Key struct {
	ID          string   `json:"id"`          // key identifier
	Disposition string   `json:"disposition"` // what is to become of it
	SLC         string   `json:"slc"`         // GUID of the SLC, lower case, no braces
	PublicKey   []byte   `json:"public_key"`  // PKIX DER, base64
	KID         string   `json:"kek"`         // identifier of the KEK, with version; "" for a Microsoft-managed key, as are the next two
	WrappedBy   string   `json:"wrapped_by"`  // "token" or "software"
	Mechanism   string   `json:"mechanism"`   // by which it was wrapped
	Warnings    []string `json:"warnings"`    // control IDs, also in the manifest
	Files       []File   `json:"files"`
}

// Dispositions of a key.
const (
	DispositionHSM              = "hsm"               // to be imported into the vault's HSM
	DispositionMicrosoftManaged = "microsoft-managed" // to be imported into the tenant inside its TPD
)

// MicrosoftManaged reports whether the key travels inside its TPD, wrapped for
// no HSM.
func (k Key) MicrosoftManaged() bool { return k.Disposition == DispositionMicrosoftManaged }

// files lists all members of the payload behind index.json, in order.
func (x Index) files() []File {
	var all []File
	for _, k := range x.Keys {
		all = append(all, k.Files...)
	}
	return append(all, x.Files...)
}

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

// FileName is the name of a bundle.
func (m Manifest) FileName() string {
	return fmt.Sprintf("keyferry-%s-%d.kfb", m.Sender.Name, m.Sequence)
}
