// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"io"
	"sync"
	"sync/atomic"
)

// A bundle of any size passes through memory in pieces, of which each step of
// the work holds a few.
const (
	pieceSize = 256 << 10
	maxPieces = 8
)

var buffers = sync.Pool{New: func() any { return new([pieceSize]byte) }}

// copyPieces copies all of r. A file's own ways to copy take smaller pieces, and
// leave them in memory.
func copyPieces(w io.Writer, r io.Reader) (int64, error) {
	if f, ok := w.(*fanOut); ok {
		return f.readFrom(r)
	}
	buffer := buffers.Get().(*[pieceSize]byte)
	defer func() {
		clear(buffer[:])
		buffers.Put(buffer)
	}()
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buffer[:])
}

// copyN copies n bytes, fewer at the end. What was read ahead takes no buffer of
// its own.
func copyN(w io.Writer, r io.Reader, n int64) (int64, error) {
	if a, ok := r.(*ahead); ok {
		return a.copyTo(w, n)
	}
	return copyPieces(w, io.LimitReader(r, n))
}

// fault is the first error of a step that others learn of.
type fault struct{ first atomic.Pointer[error] }

func (f *fault) set(err error) {
	if err != nil {
		f.first.CompareAndSwap(nil, &err)
	}
}

func (f *fault) get() error {
	if err := f.first.Load(); err != nil {
		return *err
	}
	return nil
}
