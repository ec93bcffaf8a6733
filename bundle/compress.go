// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"io"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// frameSize is how much is compressed at a time, and maxPackers by how many at
// most: more only take memory, since what is packed is hashed by one.
const (
	frameSize  = 512 << 10
	maxPackers = 8
)

func packers() int { return min(runtime.GOMAXPROCS(0), maxPackers) }

// compressed writes what write writes to w, compressed.
func compressed(w io.Writer, write func(io.Writer) error) error {
	c, err := newCompressor(w)
	if err != nil {
		return err
	}
	err = write(c)
	return cmp.Or(c.Close(), err)
}

// compressor packs what it is given into zstd frames, on all cores, and writes
// them on in order.
type compressor struct {
	packer      packer
	free, queue chan *frame
	filling     *frame
	fault       fault
	done        chan struct{}
}

// frame is a frame in the making; its memory is used again.
type frame struct {
	plain, packed []byte
	done          chan struct{}
}

func newCompressor(w io.Writer) (*compressor, error) {
	p, err := newPacker()
	if err != nil {
		return nil, err
	}
	frames := packers() + 2 // one is filled, one written
	c := &compressor{packer: p, free: make(chan *frame, frames), queue: make(chan *frame, frames), done: make(chan struct{})}
	for range frames {
		c.free <- &frame{plain: make([]byte, 0, frameSize), done: make(chan struct{}, 1)}
	}
	c.filling = <-c.free
	go c.write(w)
	return c, nil
}

func (c *compressor) write(w io.Writer) {
	defer close(c.done)
	for f := range c.queue {
		<-f.done
		if c.fault.get() == nil {
			_, err := w.Write(f.packed)
			c.fault.set(err)
		}
		c.free <- f
	}
}

func (c *compressor) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		f := c.filling
		n := min(len(rest), frameSize-len(f.plain))
		f.plain = append(f.plain, rest[:n]...)
		if rest = rest[n:]; len(f.plain) == frameSize {
			c.pass()
			c.filling = <-c.free
		}
	}
	return len(b), c.fault.get()
}

func (c *compressor) pass() {
	f := c.filling
	c.queue <- f
	go f.pack(c.packer)
}

// Close waits until all that was written is written on.
func (c *compressor) Close() error {
	if len(c.filling.plain) > 0 {
		c.pass()
	}
	close(c.queue)
	<-c.done
	close(c.free)
	for f := range c.free {
		clear(f.plain[:frameSize])
	}
	clear(c.filling.plain[:frameSize])
	return c.fault.get()
}

func (f *frame) pack(p packer) {
	f.packed = p.pack(f.plain, f.packed[:0])
	f.plain = f.plain[:0]
	f.done <- struct{}{}
}

// packer makes zstd frames, each of at most frameSize bytes.
type packer struct {
	thorough *zstd.Encoder // codes literals, too: only so does base64 shrink, which TPDs are made of
	quick    *zstd.Encoder
}

func newPacker() (p packer, err error) {
	common := []zstd.EOption{
		zstd.WithEncoderConcurrency(packers()), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), // age authenticates
	}
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
