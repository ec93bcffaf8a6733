// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bufio"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A bundle of any size passes through memory in pieces of these sizes: what a
// stage hands to the next, and what is compressed at a time.
const (
	pieceSize = 128 << 10
	frameSize = 1 << 20
)

var pieces = sync.Pool{New: func() any { return new([pieceSize]byte) }}

func copyPieces(w io.Writer, r io.Reader) (int64, error) {
	piece := pieces.Get().(*[pieceSize]byte)
	defer func() {
		clear(piece[:])
		pieces.Put(piece)
	}()
	return io.CopyBuffer(w, r, piece[:])
}

// stage is a step of the work on a payload that runs in a goroutine of its own,
// on what is written to it.
type stage struct {
	*io.PipeWriter
	done chan error
}

func newStage(work func(*io.PipeReader) error) *stage {
	r, w := io.Pipe()
	s := &stage{w, make(chan error, 1)}
	go func() {
		err := work(r)
		r.CloseWithError(err) // what is written from now on fails by the same error
		s.done <- err
	}()
	return s
}

// copyTo is a stage that writes to w.
func copyTo(w io.Writer) *stage {
	return newStage(func(r *io.PipeReader) error {
		_, err := copyPieces(struct{ io.Writer }{w}, r) // a file's own way to copy takes smaller pieces
		return err
	})
}

// Close waits until all that was written is worked on.
func (s *stage) Close() error {
	s.PipeWriter.Close()
	return <-s.done
}

// ahead reads from another reader in a goroutine of its own, before it is asked.
type ahead struct {
	*bufio.Reader
	pipe *io.PipeReader
	done chan struct{}
}

func readAhead(from io.Reader) *ahead {
	r, w := io.Pipe()
	a := &ahead{bufio.NewReaderSize(r, pieceSize), r, make(chan struct{})}
	go func() {
		defer close(a.done)
		_, err := copyPieces(w, from)
		w.CloseWithError(err)
	}()
	return a
}

// Close waits until nothing reads any more.
func (a *ahead) Close() {
	a.pipe.Close()
	<-a.done
}

// packer makes zstd frames, each of at most frameSize bytes.
type packer struct {
	thorough *zstd.Encoder // codes literals, too: only so does base64 shrink, which TPDs are made of
	quick    *zstd.Encoder
}

func newPacker() (p packer, err error) {
	common := []zstd.EOption{zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false)} // age authenticates
	if p.thorough, err = zstd.NewWriter(nil, append(common, zstd.WithAllLitEntropyCompression(true))...); err != nil {
		return p, err
	}
	p.quick, err = zstd.NewWriter(nil, common...)
	return p, err
}

// pack appends one frame to packed. By a sample it finds out whether the literals are worth
// being coded: of what does not shrink, such as wrapped keys, that takes most
// of the time.
func (p packer) pack(plain, packed []byte) []byte {
	const size = 8 << 10
	middle := max(0, len(plain)/2-size/2)
	sample := plain[middle:min(len(plain), middle+size)]
	encoder := p.thorough
	if len(p.thorough.EncodeAll(sample, nil)) >= len(sample) {
		encoder = p.quick
	}
	return encoder.EncodeAll(plain, packed)
}

// compress packs what comes from r, on all cores, and writes it to w in order.
func compress(w io.Writer, r *io.PipeReader) error {
	p, err := newPacker()
	if err != nil {
		return err
	}
	cores := runtime.GOMAXPROCS(0)
	free, queue := make(chan *frame, cores+1), make(chan *frame, cores+1)
	for range cap(free) {
		free <- &frame{plain: make([]byte, frameSize), done: make(chan struct{}, 1)}
	}
	go func() {
		defer close(queue)
		for {
			f := <-free
			n, err := io.ReadFull(r, f.plain)
			if n > 0 {
				queue <- f
				go f.pack(p, n)
			}
			if err != nil {
				return // what is wrong with r is told to who writes to it
			}
		}
	}()
	for f := range queue {
		<-f.done
		if err == nil {
			if _, err = w.Write(f.packed); err != nil {
				r.CloseWithError(err)
			}
		}
		free <- f
	}
	return err
}

// frame is a frame in the making; its memory is used again.
type frame struct {
	plain, packed []byte
	done          chan struct{}
}

func (f *frame) pack(p packer, n int) {
	f.packed = p.pack(f.plain[:n], f.packed[:0])
	clear(f.plain)
	f.done <- struct{}{}
}
