// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is what a payload may ask of the receiver's memory, in bytes.
const maxWindow = 8 << 20

var (
	errFrame = errors.New("there is something else than zstd frames without a dictionary and with a window of at most 8 MiB")
	errCut   = errors.New("a zstd frame is cut short")
)

// frames passes zstd frames on, as RFC 8878 has them, and refuses what a decoder
// passes over in silence: skippable frames, in which anything could travel.
type frames struct {
	r        *bufio.Reader
	left     int64 // of what was looked at
	within   bool  // a frame: a block follows
	checksum int64 // size of the frame's checksum
}

// newFrames keeps no more of r than headers: what is in a block goes past it.
func newFrames(r io.Reader) *frames { return &frames{r: bufio.NewReaderSize(r, zstd.HeaderMaxSize)} }

func (f *frames) Read(p []byte) (int, error) {
	for f.left == 0 {
		look := f.frame
		if f.within {
			look = f.block
		}
		if err := look(); err != nil {
			return 0, err
		}
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	if err == io.EOF {
		err = errCut
	}
	return n, err
}

// frame looks at a frame's header.
func (f *frames) frame() error {
	start, err := f.r.Peek(zstd.HeaderMaxSize)
	if len(start) == 0 || err != nil && err != io.EOF {
		return err
	}
	var h zstd.Header
	if h.Decode(start) != nil || h.Skippable || h.DictionaryID != 0 || h.WindowSize > maxWindow || h.SingleSegment && h.FrameContentSize > maxWindow {
		return errFrame
	}
	f.left, f.within, f.checksum = int64(h.HeaderSize), true, 0
	if h.HasCheckSum {
		f.checksum = 4
	}
	return nil
}

// block looks at a block's header: last block, 2 bits of type, 21 bits of size.
func (f *frames) block() error {
	h, err := f.r.Peek(3)
	if err == io.EOF {
		return errCut
	}
	if err != nil {
		return err
	}
	bits := int64(h[0]) | int64(h[1])<<8 | int64(h[2])<<16
	const repeated = 1 // a type of block: one byte, as often as the size says
	size := bits >> 3
	if bits>>1&3 == repeated {
		size = 1
	}
	f.left = 3 + size
	if last := bits&1 == 1; last {
		f.left += f.checksum
		f.within = false
	}
	return nil
}
