// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

// Letter is the content of a bundle to be sealed.
type Letter struct {
	Purpose   Purpose
	Sender    string // name
	Signer    crypto.Signer
	Receiver  fingerprint.Fingerprint // of the receiver's signing key
	Recipient age.Recipient           // the receiver's
	Sequence  uint64
	Previous  fingerprint.Fingerprint // of the manifest before; zero in the first
	Rehearsal bool
	Created   time.Time
	Keys      []KeyContent
	Files     []Content
}

// KeyContent is one key with its files. Seal fills in the Files of its Key.
type KeyContent struct {
	Key
	Contents []Content
}

// Content is one file of the payload.
type Content struct {
	Path string
	Data []byte
}

// Sealed says what was sealed.
type Sealed struct {
	Manifest Manifest
	Request  []byte                  // the manifest's bytes, which approvers sign
	Digest   fingerprint.Fingerprint // of the manifest's bytes
}

// Seal writes the bundle of a letter to w. The manifest, which comes first, holds
// the payload's digest: so the payload is made first, in scratch, an empty file.
func Seal(w io.Writer, scratch io.ReadWriteSeeker, l Letter) (*Sealed, error) {
	// The index describes all contents.
	salt := make([]byte, sha256.Size)
	rand.Read(salt)
	x := Index{Salt: hex.EncodeToString(salt), Keys: []Key{}, Files: []File{}}
	var contents []Content // behind index.json, in order
	for _, k := range l.Keys {
		k.Key.Files, k.Key.Warnings = describe(k.Contents), sorted(k.Warnings)
		x.Keys = append(x.Keys, k.Key)
		contents = append(contents, k.Contents...)
	}
	x.Files = describe(l.Files)
	contents = append(contents, l.Files...)
	if err := x.check(); err != nil { // nothing is sealed that can't be opened
		return nil, err
	}
	index, err := strictjson.MarshalLines(x)
	if err != nil {
		return nil, err
	}

	// The payload.
	digest := sha256.New()
	encrypted, err := age.Encrypt(io.MultiWriter(scratch, digest), l.Recipient)
	if err != nil {
		return nil, err
	}
	// Files have kilobytes: a window larger than a MiB takes memory and gives nothing.
	compressed, err := zstd.NewWriter(encrypted, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, err
	}
	t := tarWriter{compressed}
	if err := t.addBytes(indexName, index); err != nil {
		return nil, err
	}
	for _, c := range contents {
		if err := t.addBytes(c.Path, c.Data); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.close(), compressed.Close(), encrypted.Close()); err != nil {
		return nil, err
	}
	size, err := scratch.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}

	// The manifest, and its signature.
	signer, err := sshsig.NewPublicKey(l.Signer.Public())
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	m := Manifest{
		Format: Format, Purpose: l.Purpose, ID: hex.EncodeToString(id), Created: l.Created.UTC().Truncate(time.Second), Rehearsal: l.Rehearsal,
		Sender: Party{l.Sender, signer.Fingerprint()}, Receiver: l.Receiver, Sequence: l.Sequence, Previous: l.Previous,
		Keys: x.manifestKeys(), Payload: File{payloadName, size, fingerprint.Fingerprint(digest.Sum(nil))}, Index: fingerprint.Of(index),
	}
	manifest, err := strictjson.MarshalLines(m)
	if err != nil {
		return nil, err
	}
	if _, err := ParseManifest(manifest); err != nil {
		return nil, err
	}
	signature, err := sshsig.Sign(l.Signer, Namespace, manifest)
	if err != nil {
		return nil, err
	}

	// The bundle.
	if _, err := scratch.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t = tarWriter{w}
	err = errors.Join(t.addBytes(manifestName, manifest), t.addBytes(signatureName(signer.Fingerprint()), signature), t.add(payloadName, size, scratch), t.close())
	if err != nil {
		return nil, err
	}
	return &Sealed{m, manifest, fingerprint.Of(manifest)}, nil
}

func signatureName(signer fingerprint.Fingerprint) string {
	return signaturesDir + signer.Hex() + ".sig"
}

// describe says of each file what the index does.
func describe(contents []Content) []File {
	files := []File{}
	for _, c := range contents {
		files = append(files, File{c.Path, int64(len(c.Data)), fingerprint.Of(c.Data)})
	}
	return files
}
