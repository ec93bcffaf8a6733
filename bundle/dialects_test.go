// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
)

// What else a tar header may say, in the fields that POSIX gives them. Each
// keeps the checksum right, so that other programs would take it.
var dialects = []struct {
	name   string
	change func(h []byte)
}{
	{"GNU magic", func(h []byte) { copy(h[257:], "ustar  \x00") }},
	{"no magic, as of 1979", func(h []byte) { clear(h[257:265]) }},
	{"a hard link", func(h []byte) { h[156] = '1' }},
	{"a symbolic link", func(h []byte) { h[156] = '2' }},
	{"a character device", func(h []byte) { h[156] = '3' }},
	{"a block device", func(h []byte) { h[156] = '4' }},
	{"a folder", func(h []byte) { h[156] = '5' }},
	{"a FIFO", func(h []byte) { h[156] = '6' }},
	{"a contiguous file", func(h []byte) { h[156] = '7' }},
	{"a file, as of 1979", func(h []byte) { h[156] = 0 }},
	{"a GNU long name", func(h []byte) { h[156] = 'L' }},
	{"a GNU long link", func(h []byte) { h[156] = 'K' }},
	{"a sparse file", func(h []byte) { h[156] = 'S' }},
	{"a sparse file with its map", func(h []byte) {
		h[156] = 'S'
		copy(h[386:], "00000000000\x0000000001000\x00")
		copy(h[483:], "77777777777")
	}},
	{"a continued file", func(h []byte) { h[156] = 'M' }},
	{"a volume label", func(h []byte) { h[156] = 'V' }},
	{"a PAX header", func(h []byte) { h[156] = 'x' }},
	{"a global PAX header", func(h []byte) { h[156] = 'g' }},
	{"a vendor's type", func(h []byte) { h[156] = 'Z' }},
	{"a link name", func(h []byte) { copy(h[157:], "/etc/passwd") }},
	{"a prefix to the name", func(h []byte) { copy(h[345:], "..") }},
	{"something behind the name", func(h []byte) { h[99] = 'x' }},
	{"something behind the header", func(h []byte) { h[511] = 'x' }},
	{"a mode", func(h []byte) { copy(h[100:], "0004755") }},
	{"an owner", func(h []byte) { copy(h[108:], "0001750") }},
	{"a group", func(h []byte) { copy(h[116:], "0001750") }},
	{"an owner's name", func(h []byte) { copy(h[265:], "root") }},
	{"a group's name", func(h []byte) { copy(h[297:], "root") }},
	{"a device number", func(h []byte) { copy(h[329:], "0000010") }},
	{"a time", func(h []byte) { copy(h[136:], "00000000001") }},
	{"the largest size", func(h []byte) { copy(h[124:], "77777777777") }},
	{"a size in base 256", func(h []byte) { copy(h[124:], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00") }},
	{"a negative size", func(h []byte) { copy(h[124:], "-0000000001") }},
	{"a size without leading zeros", func(h []byte) { copy(h[124:], bytes.Replace(h[124:136], []byte("0"), []byte(" "), 1)) }},
	{"no size", func(h []byte) { clear(h[124:136]) }},
}

// withChecksum makes a header's checksum right again.
func withChecksum(h []byte) {
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// Each dialect in each header, of the bundle and of its payload: refused, and by
// nothing that a decoder or a library makes of it.
func TestDialects(t *testing.T) {
	file, count := scratch(t), 0
	try := func(where, name string, data []byte) {
		t.Helper()
		v, err := reopen(t, file, data, pins(t))
		if r := new(control.Refusal); v != nil || !errors.As(err, &r) || r.Control.Class != control.Refused {
			t.Errorf("%s: %s: %v", where, name, err)
		}
		count++
	}
	good := forge(t, letter(t), forgery{})
	if _, err := reopen(t, file, good, pins(t)); err != nil {
		t.Fatal(err)
	}
	for _, d := range dialects {
		for _, at := range headers(t, good) {
			data := slices.Clone(good)
			d.change(data[at : at+block])
			withChecksum(data[at : at+block])
			try("outer", d.name, data)
		}
		var plain []byte
		forge(t, letter(t), forgery{plain: func(b []byte) []byte { plain = b; return b }})
		for _, at := range headers(t, plain) {
			try("payload", d.name, forge(t, letter(t), forgery{plain: func(b []byte) []byte {
				d.change(b[at : at+block])
				withChecksum(b[at : at+block])
				return b
			}}))
		}
	}
	if count != len(dialects)*(3+8) {
		t.Errorf("%d cases, want each dialect in each of 3 outer headers and 8 of the payload", count)
	}
	t.Logf("count: %d headers, all refused", count)
}

// headers lists where the headers of a tar are.
func headers(t *testing.T, data []byte) []int {
	t.Helper()
	var at []int
	for next := 0; !bytes.Equal(data[next:next+block], zeros[:block]); {
		at = append(at, next)
		r := tarReader{bytes.NewReader(data[next:]), "a test"}
		_, size, err := r.next()
		if err != nil {
			t.Fatal(err)
		}
		next += int(block + size + padding(size))
	}
	return at
}

// Payloads that stock tools may open just the same, but that hold more than is
// seen, ask for more than is given, or are for more than this side.
func TestPayloads(t *testing.T) {
	compressed := func(plain []byte, options ...zstd.EOption) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, options...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(plain)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	hidden := append([]byte{0x50, 0x2a, 0x4d, 0x18, 6, 0, 0, 0}, "hidden"...) // a skippable frame
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	password, err := age.NewScryptRecipient("password")
	if err != nil {
		t.Fatal(err)
	}
	password.SetWorkFactor(10)
	self := identity(t).Recipient()
	for _, test := range []struct {
		name       string
		pack       func(plain []byte) []byte
		recipients []age.Recipient
		identity   age.Identity
		want       control.Control // none: it opens
	}{
		{name: "one frame", pack: func(b []byte) []byte { return compressed(b) }},
		{name: "without a checksum", pack: func(b []byte) []byte { return compressed(b, zstd.WithEncoderCRC(false)) }},
		{name: "many frames", pack: func(b []byte) (all []byte) {
			for piece := range slices.Chunk(b, 100) {
				all = append(all, compressed(piece)...)
			}
			return all
		}},
		{name: "a window of 8 MiB", pack: func(b []byte) []byte { return withWindow(23, b) }},
		{name: "a window of 16 MiB", want: control.BundleFormat, pack: func(b []byte) []byte { return withWindow(24, b) }},
		{name: "a window of 2 GiB", want: control.BundleFormat, pack: func(b []byte) []byte { return withWindow(31, b) }},
		{name: "a skippable frame first, which the sender signed", pack: func(b []byte) []byte { return slices.Concat(hidden, compressed(b)) }},
		{name: "a skippable frame last, which the sender signed", pack: func(b []byte) []byte { return slices.Concat(compressed(b), hidden) }},
		{name: "something behind the last frame", want: control.BundleFormat, pack: func(b []byte) []byte { return append(compressed(b), 0) }},
		{name: "a frame more", want: control.BundleFormat, pack: func(b []byte) []byte { return slices.Concat(compressed(b), compressed([]byte("more"))) }},
		{name: "a bomb behind the end", want: control.BundleFormat, pack: func(b []byte) []byte { return slices.Concat(compressed(b), compressed(make([]byte, 64<<20))) }},
		{name: "a bomb instead", want: control.BundleFormat, pack: func([]byte) []byte { return compressed(make([]byte, 64<<20)) }},
		{name: "a frame that is cut", want: control.BundleFormat, pack: func(b []byte) []byte { return compressed(b)[:40] }},

		{name: "hybrid", recipients: []age.Recipient{hybrid.Recipient()}, identity: hybrid},
		{name: "two recipients", want: control.BundleRecipient, recipients: []age.Recipient{self, other.Recipient()}},
		{name: "twice the same recipient", want: control.BundleRecipient, recipients: []age.Recipient{self, self}},
		{name: "classic for hybrid", want: control.BundleRecipient, recipients: []age.Recipient{self}, identity: hybrid},
		{name: "hybrid for classic", want: control.BundleRecipient, recipients: []age.Recipient{hybrid.Recipient()}},
		{name: "a password", want: control.BundleRecipient, recipients: []age.Recipient{password}},
		{name: "another recipient", want: control.BundleDecrypt, recipients: []age.Recipient{other.Recipient()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.pack == nil {
				test.pack = func(b []byte) []byte { return compressed(b) }
			}
			if test.recipients == nil {
				test.recipients = []age.Recipient{self}
			}
			p := pins(t)
			if test.identity != nil {
				p.Identity = test.identity
			}
			var plain []byte
			v, err := open(t, forge(t, letter(t), forgery{
				plain:   func(b []byte) []byte { plain = b; return b },
				payload: func([]byte) []byte { return ageOnly(t, test.pack(plain), test.recipients...) },
			}), p)
			if test.want.ID != "" {
				refused(t, v, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// withWindow is a frame that asks for a window of so many bits, with content as
// it is, in one block.
func withWindow(bits byte, content []byte) []byte {
	size := len(content)<<3 | 1
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, (bits - 10) << 3, byte(size), byte(size >> 8), byte(size >> 16)}
	return append(frame, content...)
}

func ageOnly(t testing.TB, plain []byte, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	encrypted, err := age.Encrypt(&b, to...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(encrypted, bytes.NewReader(plain))
	if err := errors.Join(err, encrypted.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
