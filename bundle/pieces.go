// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
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

type piece struct {
	data  [pieceSize]byte
	n     int           // bytes in it
	users atomic.Int32  // of what was written: that are not done with it
	done  chan struct{} // of what is read: it was
	err   error         // after those bytes
}

// newPieces are pieces to be used again and again; a channel of that many never
// blocks who gives one back.
func newPieces() chan *piece {
	free := make(chan *piece, maxPieces)
	for range maxPieces {
		free <- &piece{done: make(chan struct{}, 1)}
	}
	return free
}

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

// fanOut writes what it is given to several writers, each in a goroutine of its
// own, a few pieces behind. When one fails, so does the next Write.
type fanOut struct {
	free    chan *piece
	filling *piece
	to      []chan *piece
	working sync.WaitGroup
	fault   fault
}

func newFanOut(to ...io.Writer) *fanOut {
	f := &fanOut{free: newPieces()}
	f.filling = <-f.free
	for _, w := range to {
		pieces := make(chan *piece, maxPieces)
		f.to = append(f.to, pieces)
		f.working.Go(func() { f.work(w, pieces) })
	}
	return f
}

func (f *fanOut) work(w io.Writer, pieces chan *piece) {
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

// ahead reads before it is asked, piece by piece. Its pieces hold what was
// decrypted; Close clears them.
type ahead struct {
	free, queue chan *piece // queue is in order; a piece in it may still be read
	reading     *piece      // data[at:n] is not asked for yet
	at          int
}

// readAhead reads from a reader in a goroutine of its own.
func readAhead(from io.Reader) *ahead {
	return newAhead(func(p *piece) (more bool) {
		p.n, p.err = io.ReadFull(from, p.data[:])
		if p.err == io.ErrUnexpectedEOF {
			p.err = io.EOF
		}
		p.done <- struct{}{}
		return p.err == nil
	})
}

// readAheadAt reads size bytes, several pieces at a time.
func readAheadAt(from io.ReaderAt, size int64) *ahead {
	at := int64(0)
	return newAhead(func(p *piece) (more bool) {
		offset := at
		at += pieceSize
		go func() {
			p.n, p.err = from.ReadAt(p.data[:min(pieceSize, size-offset)], offset)
			p.done <- struct{}{}
		}()
		return at < size
	})
}

func newAhead(read func(*piece) (more bool)) *ahead {
	a := &ahead{free: newPieces(), queue: make(chan *piece, maxPieces)}
	a.reading = <-a.free
	go func() {
		defer close(a.queue)
		for p := range a.free {
			more := read(p)
			a.queue <- p
			if !more {
				return
			}
		}
	}()
	return a
}

func (a *ahead) Read(b []byte) (int, error) {
	unread, err := a.next()
	n := copy(b, unread)
	a.at += n
	return n, err
}

// next returns what is left of a piece.
func (a *ahead) next() ([]byte, error) {
	for a.at == a.reading.n {
		if a.reading.err != nil {
			return nil, a.reading.err
		}
		p, ok := <-a.queue
		if !ok {
			return nil, io.EOF
		}
		<-p.done
		a.free <- a.reading
		a.reading, a.at = p, 0
	}
	return a.reading.data[a.at:a.reading.n], nil
}

func (a *ahead) copyTo(w io.Writer, n int64) (total int64, err error) {
	for total < n {
		unread, err := a.next()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		written, err := w.Write(unread[:min(int64(len(unread)), n-total)])
		a.at += written
		total += int64(written)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Close waits until nothing reads any more.
func (a *ahead) Close() {
	close(a.free)
	for p := range a.queue {
		<-p.done
		clear(p.data[:])
	}
	for p := range a.free {
		clear(p.data[:])
	}
	clear(a.reading.data[:])
}
