// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"io"
	"sync"
	"sync/atomic"
)

// fanOut writes what it is given to several writers, each in a goroutine of its
// own, a few pieces behind. When one fails, so does the next Write.
type fanOut struct {
	free    chan *fanPiece // of the capacity that all have: giving one back never blocks
	filling *fanPiece
	to      []chan *fanPiece
	working sync.WaitGroup
	fault   fault
}

// fanPiece is a piece of what was written.
type fanPiece struct {
	data  [pieceSize]byte
	n     int          // bytes in it
	users atomic.Int32 // that are not done with it
}

func newFanOut(to ...io.Writer) *fanOut {
	f := &fanOut{free: make(chan *fanPiece, maxPieces)}
	for range maxPieces {
		f.free <- new(fanPiece)
	}
	f.filling = <-f.free
	for _, w := range to {
		pieces := make(chan *fanPiece, maxPieces)
		f.to = append(f.to, pieces)
		f.working.Go(func() { f.work(w, pieces) })
	}
	return f
}

func (f *fanOut) work(w io.Writer, pieces chan *fanPiece) {
	for p := range pieces {
		if f.fault.get() == nil {
			_, err := w.Write(p.data[:p.n])
			f.fault.set(err)
		}
		if p.users.Add(-1) == 0 {
			p.n = 0
			f.free <- p
		}
	}
}

func (f *fanOut) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := copy(f.room(), rest)
		f.filling.n += n
		rest = rest[n:]
	}
	return len(b), f.fault.get()
}

// readFrom writes all of r, without a buffer between.
func (f *fanOut) readFrom(r io.Reader) (total int64, err error) {
	for err == nil {
		var n int
		n, err = r.Read(f.room())
		f.filling.n += n
		total += int64(n)
		err = cmp.Or(f.fault.get(), err)
	}
	if err == io.EOF {
		err = nil
	}
	return total, err
}

// room is where the next bytes belong.
func (f *fanOut) room() []byte {
	if f.filling.n == pieceSize {
		f.pass()
		f.filling = <-f.free
	}
	return f.filling.data[f.filling.n:]
}

func (f *fanOut) pass() {
	f.filling.users.Store(int32(len(f.to)))
	for _, pieces := range f.to {
		pieces <- f.filling
	}
}

// Close waits until all that was written is worked on, and returns the first
// error.
func (f *fanOut) Close() error {
	if f.filling.n > 0 {
		f.pass()
	}
	for _, pieces := range f.to {
		close(pieces)
	}
	f.working.Wait()
	return f.fault.get()
}
