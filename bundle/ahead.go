// SPDX-License-Identifier: Apache-2.0

package bundle

import "io"

// ahead reads before it is asked, piece by piece. Its pieces hold what was
// decrypted; Close clears them.
type ahead struct {
	free, queue chan *aheadPiece // queue is in order; a piece in it may still be read
	reading     *aheadPiece      // data[at:n] is not asked for yet
	at          int
}

// aheadPiece is a piece of what is read.
type aheadPiece struct {
	data [pieceSize]byte
	n    int           // bytes in it
	err  error         // after those bytes
	done chan struct{} // it was read
}

// readAhead reads from a reader in a goroutine of its own.
func readAhead(from io.Reader) *ahead {
	return newAhead(func(p *aheadPiece) (more bool) {
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
	return newAhead(func(p *aheadPiece) (more bool) {
		offset := at
		at += pieceSize
		go func() {
			p.n, p.err = from.ReadAt(p.data[:min(pieceSize, size-offset)], offset)
			p.done <- struct{}{}
		}()
		return at < size
	})
}

func newAhead(read func(*aheadPiece) (more bool)) *ahead {
	a := &ahead{free: make(chan *aheadPiece, maxPieces), queue: make(chan *aheadPiece, maxPieces)}
	for range maxPieces {
		a.free <- &aheadPiece{done: make(chan struct{}, 1)}
	}
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
