// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"keyferry/pkg/control"
)

const block = 512

// header returns the one header that a member of that name and size may have.
func header(name string, size int64) ([]byte, error) {
	format := tar.FormatUSTAR
	if len(name) > 100 {
		format = tar.FormatPAX
	}
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: format,
	})
	return b.Bytes(), err
}

// padding is how many zero bytes follow a member of that size.
func padding(size int64) int64 { return -size & (block - 1) }

// zeros pad a member, at most one block; two more blocks of them end a tar.
var zeros = make([]byte, block+trailer)

const trailer = 2 * block

// tarWriter writes a canonical tar.
type tarWriter struct{ w io.Writer }

func (t tarWriter) add(name string, size int64, content io.Reader) error {
	h, err := header(name, size)
	if err != nil {
		return fmt.Errorf("tar header of %s: %w", name, err)
	}
	if _, err := t.w.Write(h); err != nil {
		return err
	}
	if _, err := io.CopyN(t.w, content, size); err != nil {
		return fmt.Errorf("seal %s: %w", name, err)
	}
	_, err = t.w.Write(zeros[:padding(size)])
	return err
}

func (t tarWriter) addBytes(name string, content []byte) error {
	return t.add(name, int64(len(content)), bytes.NewReader(content))
}

func (t tarWriter) close() error {
	_, err := t.w.Write(zeros[:trailer])
	return err
}

// tarReader reads a canonical tar. It interprets no header: it knows, or reads
// from the two fields name and size, which header must stand there, and compares.
// So there is no dialect, link, device or path trick to refuse.
type tarReader struct {
	r    io.Reader
	name string // of the tar, in errors
}

func (t tarReader) refuse(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if r := new(control.Refusal); errors.As(err, &r) { // by the decryption below
		return r
	}
	return control.BundleFormat.Refuse("%s: %w", t.name, err)
}

func (t tarReader) read(n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(t.r, b); err != nil {
		return nil, t.refuse("it ends too early, or can't be read: %w", err)
	}
	return b, nil
}

// next reads the header of a member whose name and size are not known yet.
// name is empty at the end of the tar.
func (t tarReader) next() (name string, size int64, err error) {
	h, err := t.read(block)
	if err != nil {
		return "", 0, err
	}
	if bytes.Equal(h, zeros[:block]) {
		return "", 0, t.end(trailer - block)
	}
	field, _, _ := bytes.Cut(h[:100], []byte{0})
	name = string(field)
	size, err = strconv.ParseInt(string(bytes.TrimRight(h[124:136], " \x00")), 8, 64)
	if err != nil {
		return "", 0, t.refuse("the size of member %s can't be read", control.Quote(name))
	}
	want, err := header(name, size)
	if err != nil || !bytes.Equal(h, want) {
		return "", 0, t.refuse("the header of member %s is not canonical", control.Quote(name))
	}
	return name, size, nil
}

// expect reads the header of a member that must be there.
func (t tarReader) expect(name string, size int64) error {
	want, err := header(name, size)
	if err != nil {
		return t.refuse("member %s: %w", control.Quote(name), err)
	}
	got, err := t.read(int64(len(want)))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return t.refuse("member %s of %d bytes should begin here, and does not", control.Quote(name), size)
	}
	return nil
}

// content reads a member's bytes into w, and the padding behind them.
func (t tarReader) content(w io.Writer, size int64) error {
	n, err := io.Copy(w, io.LimitReader(t.r, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return t.refuse("a member ends after %d of %d bytes: %w", n, size, err)
	}
	return t.padding(size)
}

func (t tarReader) padding(size int64) error {
	pad, err := t.read(padding(size))
	if err != nil {
		return err
	}
	if !bytes.Equal(pad, zeros[:len(pad)]) {
		return t.refuse("the padding is not zero")
	}
	return nil
}

// member reads a member whole. Its size is known to be no more than it may be.
func (t tarReader) member(size int64) ([]byte, error) {
	b := make([]byte, size)
	if n, err := io.ReadFull(t.r, b); err != nil {
		return nil, t.refuse("a member ends after %d of %d bytes: %w", n, size, err)
	}
	return b, t.padding(size)
}

// end reads the n zero bytes that are left. Nothing may follow them.
func (t tarReader) end(n int64) error {
	got, err := t.read(n)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, zeros[:n]) {
		return t.refuse("there is something where it should end")
	}
	if n, err := io.ReadFull(t.r, make([]byte, 1)); n != 0 || err != io.EOF {
		return t.refuse("something follows its end")
	}
	return nil
}
