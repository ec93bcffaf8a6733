// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"keyferry/pkg/control"
)

// ToStick copies content to path on a removable medium, where it must not
// exist, and proves that the medium gives back what was written: the copy is
// read again past the page cache and compared by SHA-256. A copy that differs
// is removed (KF-RUN-READ-BACK).
//
//	as Create; then fadvise DONTNEED; read; compare
func ToStick(path string, content io.Reader, perm os.FileMode) error {
	return toStick(path, content, perm, openMedium)
}

func toStick(path string, content io.Reader, perm os.FileMode, open func(path string) (io.ReadCloser, error)) error {
	written := sha256.New()
	err := CreateFrom(path, perm, func(w *os.File) error { return copyPieces(io.MultiWriter(w, written), content) })
	if err != nil {
		return err
	}
	read, err := digestFromMedium(path, open)
	if err == nil && bytes.Equal(read, written.Sum(nil)) {
		return nil
	}
	if removeErr := Remove(path); removeErr != nil {
		return control.ReadBack.Refuse("%s does not read back as written, and can't be removed: %w", filepath.Base(path), removeErr)
	}
	if err != nil {
		return control.ReadBack.Refuse("%s can't be read back: %w", filepath.Base(path), err)
	}
	return control.ReadBack.Refuse("%s does not read back as written", filepath.Base(path))
}

// IsOnStick reports whether the medium holds content, and nothing else, at path:
// what a run that was stopped between writing and reading back may have left.
// What is there has reached the medium then, whatever became of that run. A link,
// a pipe or a file of another size is never opened. Content is rewound afterwards.
//
//	lstat; fsync; fsync directory; fadvise DONTNEED; read; compare
func IsOnStick(path string, content io.ReadSeeker) (bool, error) {
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err != nil {
		return false, err
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false, err
	}
	if err := errors.Join(syncFile(path), syncFile(filepath.Dir(filepath.Clean(path)))); err != nil {
		return false, err
	}
	read, err := digestFromMedium(path, openMedium)
	if err != nil {
		return false, err
	}
	want := sha256.New()
	if err := copyPieces(want, content); err != nil {
		return false, err
	}
	_, err = content.Seek(0, io.SeekStart)
	return bytes.Equal(read, want.Sum(nil)), err
}

func digestFromMedium(path string, open func(path string) (io.ReadCloser, error)) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if err := copyPieces(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// copyPieces copies in pieces of the size that suits flash memory.
func copyPieces(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
	return err
}
