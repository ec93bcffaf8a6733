// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"time"

	"filippo.io/age"

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
	Digest   fingerprint.Fingerprint // of the manifest's bytes
}

// Target is the empty file that a bundle is sealed into.
type Target interface {
	io.ReaderAt
	io.WriterAt
}

// Seal writes the bundle of a letter to f. The manifest, which comes first,
// holds the payload's digest: so the payload is written first, behind the room
// that the manifest and its signature will take. With an error, f holds no bundle.
func Seal(f Target, l Letter) (*Sealed, error) {
	files, err := l.describe()
	if err != nil {
		return nil, err
	}
	x, err := l.index(files)
	if err != nil {
		return nil, err
	}
	if err := x.checkMemory(); err != nil { // what can't be read again is not sealed
		return nil, err
	}
	index, err := x.line()
	if err != nil {
		return nil, err
	}
	m, err := l.manifest(fingerprint.Of(index))
	if err != nil {
		return nil, err
	}
	room, err := newHead(m, unsigned{l.Signer})
	if err != nil {
		return nil, err
	}
	if m.Payload, err = l.writePayload(io.NewOffsetWriter(f, room.size()), index, files); err != nil {
		return nil, err
	}
	h, err := newHead(m, l.Signer)
	if err != nil {
		return nil, err
	}
	return &Sealed{m, fingerprint.Of(h.signed)}, h.write(f, room.size(), m.Payload.Size)
}

// index describes all contents.
func (l Letter) index(files []described) (Index, error) {
	salt := make([]byte, sha256.Size)
	if _, err := rand.Read(salt); err != nil {
		return Index{}, err
	}
	take := func(n int) (taken []File) {
		for _, f := range files[:n] {
			taken = append(taken, f.File)
		}
		files = files[n:]
		return taken
	}
	x := Index{Salt: hex.EncodeToString(salt), Keys: []Key{}}
	for _, k := range l.Keys {
		k.Key.Files = take(len(k.Contents))
		k.Key.Warnings = sorted(k.Warnings)
		x.Keys = append(x.Keys, k.Key)
	}
	x.Files = take(len(files))
	return x, x.check()
}

// line is the index as it stands in the payload.
func (x Index) line() ([]byte, error) {
	line, err := strictjson.MarshalLine(x)
	if err != nil {
		return nil, err
	}
	return line, strictjson.UnmarshalLine(line, maxIndex, new(Index)) // what can't be opened is not sealed
}

// contents lists all files behind index.json, in the order of the index.
func (l Letter) contents() []Content {
	var all []Content
	for _, k := range l.Keys {
		all = append(all, k.Contents...)
	}
	return append(all, l.Files...)
}

// manifest is the manifest, but for what it says of the payload.
func (l Letter) manifest(index fingerprint.Fingerprint) (Manifest, error) {
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
		Payload:   File{Path: payloadName},
		Index:     index,
	}, nil
}

// writePayload writes age(zstd(tar)) to w, each step on its own.
func (l Letter) writePayload(w io.WriteSeeker, index []byte, files []described) (File, error) {
	digest := sha256.New()
	writing := newFanOut(w, digest)
	encrypted, err := age.Encrypt(writing, l.Recipient)
	if err == nil {
		err = compressed(encrypted, func(w io.Writer) error { return writePlain(w, index, files) })
		err = cmp.Or(encrypted.Close(), err)
	}
	if err = cmp.Or(writing.Close(), err); err != nil { // where it began comes first
		return File{}, err
	}
	size, err := w.Seek(0, io.SeekCurrent)
	return File{payloadName, size, fingerprint.Fingerprint(digest.Sum(nil))}, err
}

// writePlain writes the payload's tar. A file that is no longer what the index
// says is an error.
func writePlain(w io.Writer, index []byte, files []described) error {
	t := tarWriter{w}
	if err := t.addBytes(indexName, index); err != nil {
		return err
	}
	for _, f := range files {
		if err := t.addContent(f); err != nil {
			return err
		}
	}
	return t.close()
}
