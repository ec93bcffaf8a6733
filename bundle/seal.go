// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
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

// Seal writes the bundle of a letter to w. The payload passes through scratch,
// an empty file without a name, since the manifest, which comes first, holds
// its digest.
func Seal(w io.Writer, scratch *os.File, l Letter) (*Sealed, error) {
	x, err := l.index()
	if err != nil {
		return nil, err
	}
	index, err := x.line()
	if err != nil {
		return nil, err
	}
	payload, err := l.writePayload(scratch, index, x.files())
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

// index describes all contents.
func (l Letter) index() (Index, error) {
	salt := make([]byte, sha256.Size)
	if _, err := rand.Read(salt); err != nil {
		return Index{}, err
	}
	files, err := describe(l.contents())
	if err != nil {
		return Index{}, err
	}
	x := Index{Salt: hex.EncodeToString(salt), Keys: []Key{}}
	for _, k := range l.Keys {
		k.Key.Files, files = files[:len(k.Contents):len(k.Contents)], files[len(k.Contents):]
		k.Key.Warnings = sorted(k.Warnings)
		x.Keys = append(x.Keys, k.Key)
	}
	x.Files = files
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

// describe reads contents, several at a time.
func describe(contents []Content) ([]File, error) {
	files, errs := make([]File, len(contents)), make([]error, len(contents))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, c := range contents {
		slots <- struct{}{}
		all.Go(func() {
			files[i], errs[i] = c.describe()
			<-slots
		})
	}
	all.Wait()
	return files, errors.Join(errs...)
}

func (c Content) describe() (File, error) {
	digest := sha256.New()
	size, err := c.copyTo(digest)
	return File{c.Path, size, fingerprint.Fingerprint(digest.Sum(nil))}, err
}

func (c Content) copyTo(w io.Writer) (int64, error) {
	r, err := c.Open()
	if err != nil {
		return 0, err
	}
	size, err := copyPieces(w, r)
	return size, errors.Join(err, r.Close())
}

// contents lists all files behind index.json, in the order of the index.
func (l Letter) contents() []Content {
	var all []Content
	for _, k := range l.Keys {
		all = append(all, k.Contents...)
	}
	return append(all, l.Files...)
}

// writePayload writes age(zstd(tar)) to scratch, each step on its own.
func (l Letter) writePayload(scratch *os.File, index []byte, files []File) (File, error) {
	digest := sha256.New()
	hashing, writing := copyTo(digest), copyTo(scratch)
	encrypted, err := age.Encrypt(io.MultiWriter(writing, hashing), l.Recipient)
	if err == nil {
		compressing := newStage(func(r *io.PipeReader) error { return compress(encrypted, r) })
		err = l.writePlain(compressing, index, files)
		err = cmp.Or(compressing.Close(), err)
		err = cmp.Or(encrypted.Close(), err)
	}
	err = cmp.Or(writing.Close(), hashing.Close(), err) // where it began comes first
	if err != nil {
		return File{}, err
	}
	size, err := scratch.Seek(0, io.SeekCurrent)
	return File{payloadName, size, fingerprint.Fingerprint(digest.Sum(nil))}, err
}

// writePlain writes the payload's tar. A file that is no longer what the index
// says is an error.
func (l Letter) writePlain(w io.Writer, index []byte, files []File) error {
	t := tarWriter{w}
	if err := t.add(indexName, int64(len(index)), bytes.NewReader(index)); err != nil {
		return err
	}
	for i, c := range l.contents() {
		if err := t.addContent(files[i], c); err != nil {
			return err
		}
	}
	return t.close()
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
