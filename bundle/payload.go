// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto/sha256"
	"io"
	"slices"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/strictjson"
)

// walk decrypts the payload and checks all of it: the index against the
// manifest, each file against the index, and that nothing else is there. What
// the files hold goes to sink, if it wants it.
func (v *Verified) walk(sink func(File) io.Writer) (Index, error) {
	decrypted, size, err := age.DecryptReaderAt(v.payload, v.Manifest.Payload.Size, alone{v.pins.Identity})
	if err != nil {
		return Index{}, refuseDecrypt(err)
	}
	packed := readAheadAt(decrypted, size)
	defer packed.Close()
	unpacked, err := zstd.NewReader(newFrames(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(4*maxWindow))
	if err != nil {
		return Index{}, err
	}
	defer unpacked.Close()
	plain := readAhead(unpacked)
	defer plain.Close()
	t := tarReader{plain, "the payload"}
	x, err := t.readIndex(v.Manifest.Index)
	if err == nil {
		err = x.checkSize(v.pins)
	}
	if err != nil {
		return Index{}, err
	}
	for _, f := range x.files() {
		if err := t.readFile(f, sink); err != nil {
			return Index{}, err
		}
	}
	return x, t.end(trailer)
}

func (t tarReader) readIndex(commitment fingerprint.Fingerprint) (Index, error) {
	name, size, err := t.next()
	if err != nil {
		return Index{}, err
	}
	if name != indexName || size > maxIndex {
		return Index{}, control.BundleContents.Refuse("the payload begins with %s of %d bytes, not with %s", control.Quote(name), size, indexName)
	}
	data, err := t.member(size)
	if err != nil {
		return Index{}, err
	}
	if fingerprint.Of(data) != commitment {
		return Index{}, control.BundleContents.Refuse("the index is not the one that the manifest commits to")
	}
	return parseIndex(data)
}

func parseIndex(line []byte) (x Index, err error) {
	if err := strictjson.UnmarshalLine(line, maxIndex, &x); err != nil {
		return x, control.BundleContents.Refuse("the index: %w", err)
	}
	return x, x.check()
}

func (t tarReader) readFile(f File, sink func(File) io.Writer) error {
	if err := t.expect(f.Path, f.Size); err != nil {
		return err
	}
	h := sha256.New()
	w := io.Writer(h)
	if sink != nil {
		if to := sink(f); to != nil {
			w = io.MultiWriter(h, to)
		}
	}
	if err := t.content(w, f.Size); err != nil {
		return err
	}
	if fingerprint.Fingerprint(h.Sum(nil)) != f.SHA256 {
		return control.BundleContents.Refuse("%s is not the file that the index describes", control.Quote(f.Path))
	}
	return nil
}

// MaxKeys bounds what the files of all keys in a bundle may have together, in
// bytes: the receiver reads them at once, by [Verified.ReadFiles].
const MaxKeys = 512 << 20

// checkMemory refuses keys that the receiver could not read together.
func (x Index) checkMemory() error {
	var total int64
	for _, k := range x.Keys {
		for _, f := range k.Files {
			total += f.Size
		}
	}
	if total > MaxKeys {
		return control.BundleSize.Refuse("the keys' files have %d bytes together, the most that the other side reads is %d", total, MaxKeys).
			WithHint("import and seal fewer keys at a time")
	}
	return nil
}

// ReadFile returns a file of the payload, verified once more.
func (v *Verified) ReadFile(path string) ([]byte, error) {
	files, err := v.ReadFiles(path)
	return files[path], err
}

// ReadFiles returns files of the payload by their paths, verified once more, in
// one pass over the payload.
func (v *Verified) ReadFiles(paths ...string) (map[string][]byte, error) {
	all := v.Index.files()
	buffers := map[string]*bytes.Buffer{}
	var total int64
	for _, path := range paths {
		i := slices.IndexFunc(all, func(f File) bool { return f.Path == path })
		if i < 0 {
			return nil, control.BundleContents.Refuse("the bundle has no %s", control.Quote(path))
		}
		if total += all[i].Size; total > MaxKeys {
			return nil, control.BundleSize.Refuse("%s and what is read with it have more than the %d bytes allowed", control.Quote(path), MaxKeys).
				WithHint("ask the sender to seal fewer keys at a time")
		}
		buffers[path] = bytes.NewBuffer(make([]byte, 0, all[i].Size+bytes.MinRead))
	}
	_, err := v.walk(func(f File) io.Writer {
		if b, wanted := buffers[f.Path]; wanted {
			return b
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for path, b := range buffers {
		files[path] = b.Bytes()
	}
	return files, nil
}
