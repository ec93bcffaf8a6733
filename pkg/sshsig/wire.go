// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"encoding/binary"
	"math/big"
)

// wire writes the data types of RFC 4251 section 5.
type wire struct{ bytes.Buffer }

func (w *wire) bytes(b []byte) {
	w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	w.Write(b)
}

func (w *wire) str(s string) { w.bytes([]byte(s)) }

func (w *wire) mpint(n *big.Int) {
	b := n.Bytes()
	if len(b) > 0 && b[0] >= 0x80 {
		b = append([]byte{0}, b...)
	}
	w.bytes(b)
}

// reader reads them. After the first failure all its results are empty.
type reader struct {
	rest   []byte
	failed bool
	reason error // why a key that can be read may not sign
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	b := r.take(4)
	if r.failed {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func (r *reader) bytes() []byte {
	n := r.uint32()
	if uint64(n) > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	return r.take(int(n))
}

func (r *reader) str() string { return string(r.bytes()) }

// mpint reads a positive integer in its one shortest form.
func (r *reader) mpint() *big.Int {
	b := r.bytes()
	if len(b) == 0 || b[0] >= 0x80 || b[0] == 0 && (len(b) == 1 || b[1] < 0x80) {
		r.failed = true
		return new(big.Int)
	}
	return new(big.Int).SetBytes(b)
}

func (r *reader) done() bool { return !r.failed && len(r.rest) == 0 }
