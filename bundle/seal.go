// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

// Letter is what is sealed into a bundle.
type Letter struct {
	Purpose   Purpose
	Sender    string // name
	Signer    crypto.Signer
	Receiver  fingerprint.Fingerprint // of the receiver's signing key
	Recipient age.Recipient           // the receiver's
	Sequence  uint64
	Previous  fingerprint.Fingerprint // of the manifest before; zero in the first
	Rehearsal bool
	Warnings  []string // control IDs, besides those of keys
	Created   time.Time
	Keys      []KeyContent
	Files     []Content
}

// KeyContent is one key with its files. Its Files are filled in by Seal.
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
	Digest   fingerprint.Fingerprint // of the manifest's bytes
}

// Seal writes the bundle of a letter to w. The payload passes through scratch,
// an empty file without a name, since the manifest, which comes first, holds
// its digest.
func Seal(w io.Writer, scratch *os.File, l Letter) (*Sealed, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	payload, err := l.writePayload(scratch, index)
	if err != nil {
		return nil, err
	}
	manifest, err := l.manifest(payload, fingerprint.Of(index))
	if err != nil {
		return nil, err
	}
	signed, err := strictjson.MarshalLine(manifest)
	if err != nil {
		return nil, err
	}
	signature, err := sshsig.Sign(l.Signer, Namespace, signed)
	if err != nil {
		return nil, err
	}
	if _, err := scratch.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	t := tarWriter{w}
	err = errors.Join(
		t.add(manifestName, int64(len(signed)), bytes.NewReader(signed)),
		t.add(signatureName(manifest.Sender.Fingerprint), int64(len(signature)), bytes.NewReader(signature)),
		t.add(payloadName, payload.Size, scratch),
		t.close(),
	)
	if err != nil {
		return nil, err
	}
	return &Sealed{manifest, fingerprint.Of(signed)}, nil
}

func signatureName(signer fingerprint.Fingerprint) string {
	return signaturesDir + signer.Hex() + ".sig"
}

func (l Letter) index() ([]byte, error) {
	salt := make([]byte, sha256.Size)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	x := Index{Salt: hex.EncodeToString(salt), Keys: []Key{}, Files: describe(l.Files)}
	for _, k := range l.Keys {
		k.Key.Files = describe(k.Contents)
		k.Key.Warnings = sorted(k.Warnings)
		x.Keys = append(x.Keys, k.Key)
	}
	if err := x.check(); err != nil {
		return nil, err
	}
	line, err := strictjson.MarshalLine(x)
	if err != nil {
		return nil, err
	}
	return line, strictjson.UnmarshalLine(line, maxIndex, new(Index)) // what can't be opened is not sealed
}

func describe(contents []Content) []File {
	files := []File{}
	for _, c := range contents {
		files = append(files, File{c.Path, int64(len(c.Data)), fingerprint.Of(c.Data)})
	}
	return files
}

// contents lists all files behind index.json, in the order of the index.
func (l Letter) contents() []Content {
	var all []Content
	for _, k := range l.Keys {
		all = append(all, k.Contents...)
	}
	return append(all, l.Files...)
}

// writePayload writes age(zstd(tar)) to scratch.
func (l Letter) writePayload(scratch *os.File, index []byte) (File, error) {
	digest := sha256.New()
	encrypted, err := age.Encrypt(io.MultiWriter(scratch, digest), l.Recipient)
	if err != nil {
		return File{}, err
	}
	// Base64, which TPDs are made of, shrinks only where literals are coded too.
	compressed, err := zstd.NewWriter(encrypted, zstd.WithAllLitEntropyCompression(true))
	if err != nil {
		return File{}, err
	}
	t := tarWriter{compressed}
	if err := t.add(indexName, int64(len(index)), bytes.NewReader(index)); err != nil {
		return File{}, err
	}
	for _, c := range l.contents() {
		if err := t.add(c.Path, int64(len(c.Data)), bytes.NewReader(c.Data)); err != nil {
			return File{}, err
		}
	}
	if err := errors.Join(t.close(), compressed.Close(), encrypted.Close()); err != nil {
		return File{}, err
	}
	size, err := scratch.Seek(0, io.SeekCurrent)
	return File{payloadName, size, fingerprint.Fingerprint(digest.Sum(nil))}, err
}

func (l Letter) manifest(payload File, index fingerprint.Fingerprint) (Manifest, error) {
	signer, err := sshsig.NewPublicKey(l.Signer.Public())
	if err != nil {
		return Manifest{}, err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return Manifest{}, err
	}
	return Manifest{
		Format:    Format,
		Purpose:   l.Purpose,
		ID:        hex.EncodeToString(id),
		Created:   l.Created.UTC().Truncate(time.Second),
		Sender:    Party{l.Sender, signer.Fingerprint()},
		Receiver:  l.Receiver,
		Sequence:  l.Sequence,
		Previous:  l.Previous,
		Rehearsal: l.Rehearsal,
		Warnings:  l.warnings(),
		Payload:   payload,
		Index:     index,
	}, nil
}
