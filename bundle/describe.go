// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"errors"
	"hash/maphash"
	"io"

	"keyferry/internal/cores"
	"keyferry/pkg/fingerprint"
)

// described is a file that was read once, for the index. When it is read again,
// sum tells whether it is still the same: a seeded 64-bit hash is enough for
// that, and takes a tenth of the time that SHA-256 does.
type described struct {
	File
	open func() (io.ReadCloser, error)
	sum  uint64
}

var seed = maphash.MakeSeed()

// describe reads all contents, several at a time.
func (l Letter) describe() ([]described, error) {
	contents := l.contents()
	files, errs := make([]described, len(contents)), make([]error, len(contents))
	cores.Each(len(contents), func() func(int) {
		return func(i int) { files[i], errs[i] = contents[i].describe() }
	})
	return files, errors.Join(errs...)
}

func (c Content) describe() (described, error) {
	digest, sum := sha256.New(), newSum()
	size, err := c.copyTo(io.MultiWriter(digest, sum))
	return described{File{c.Path, size, fingerprint.Fingerprint(digest.Sum(nil))}, c.Open, sum.Sum64()}, err
}

func (c Content) copyTo(w io.Writer) (int64, error) {
	r, err := c.Open()
	if err != nil {
		return 0, err
	}
	size, err := copyPieces(w, r)
	return size, errors.Join(err, r.Close())
}

func newSum() *maphash.Hash {
	sum := new(maphash.Hash)
	sum.SetSeed(seed)
	return sum
}
