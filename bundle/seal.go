// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
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

// Content is one file of the payload. Seal opens and reads it twice, since the
// index, which comes first, holds its size and digest.
type Content struct {
	Path string
	Open func() (io.ReadCloser, error)
}

// Bytes is content in memory.
func Bytes(path string, data []byte) Content {
	return Content{path, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// FromFile is the content of the file of that name.
func FromFile(path, name string) Content {
	return Content{path, func() (io.ReadCloser, error) { return os.Open(name) }}
}

// Sealed says what was sealed.
type Sealed struct {
	Manifest Manifest
	Request  []byte                  // the manifest's bytes, which approvers sign
	Digest   fingerprint.Fingerprint // of the manifest's bytes
}

var errChanged = errors.New("it changed while it was read")

// Seal writes the bundle of a letter to w. The manifest, which comes first, holds
// the payload's digest: so the payload is made first, in scratch, an empty file.
func Seal(w io.Writer, scratch io.ReadWriteSeeker, l Letter) (*Sealed, error) {
	// The index describes all contents.
	salt := make([]byte, sha256.Size)
	rand.Read(salt)
	x := Index{Salt: hex.EncodeToString(salt), Keys: []Key{}, Files: []File{}}
	var contents []Content // behind index.json, in order
	for _, k := range l.Keys {
		files, err := describe(k.Contents)
		if err != nil {
			return nil, err
		}
		k.Key.Files, k.Key.Warnings = files, sorted(k.Warnings)
		x.Keys = append(x.Keys, k.Key)
		contents = append(contents, k.Contents...)
	}
	files, err := describe(l.Files)
	if err != nil {
		return nil, err
	}
	x.Files = files
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
	compressed, err := zstd.NewWriter(encrypted, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	t := tarWriter{compressed}
	if err := t.addBytes(indexName, index); err != nil {
		return nil, err
	}
	for i, f := range x.files() {
		if err := t.addContent(f, contents[i]); err != nil {
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

// describe reads contents, for the index. It stops at more than a bundle holds.
func describe(contents []Content) ([]File, error) {
	files := []File{}
	for _, c := range contents {
		r, err := c.Open()
		if err != nil {
			return nil, err
		}
		digest := sha256.New()
		size, err := io.Copy(digest, io.LimitReader(r, MaxContents+1))
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("read %s: %w", c.Path, err)
		}
		if size > MaxContents {
			return nil, control.BundleSize.Refuse("%s has more than the %d bytes that a bundle holds", c.Path, MaxContents)
		}
		files = append(files, File{c.Path, size, fingerprint.Fingerprint(digest.Sum(nil))})
	}
	return files, nil
}
