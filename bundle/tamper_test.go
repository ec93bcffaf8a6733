// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/sshsig"
)

// anyRefusal checks that data is refused, by whatever control comes first.
func anyRefusal(t *testing.T, scratch *os.File, data []byte, p Pins, what string, n int) {
	t.Helper()
	v, err := reopen(t, scratch, data, p)
	if r := new(control.Refusal); v != nil || !errors.As(err, &r) || r.Control.Class != control.Refused {
		t.Fatalf("%s %d: not refused, error %v", what, n, err)
	}
}

func TestEveryFlipIsRefused(t *testing.T) {
	p := pins(t)
	p.Approvers, p.Threshold = []sshsig.PublicKey{public(t, stranger)}, 1
	good := withApprovals(t, golden(t), stranger)
	mustOpen(t, good, p)
	file, flips := scratch(t), 0
	for i := range good {
		for _, pattern := range []byte{0x01, 0x20, 0x80} {
			good[i] ^= pattern
			anyRefusal(t, file, good, p, "byte", i)
			good[i] ^= pattern
			flips++
		}
	}
	t.Logf("count: %d flips in %d bytes, all refused", flips, len(good))
}

func TestEveryCutIsRefused(t *testing.T) {
	good, file := golden(t), scratch(t)
	for n := range good {
		anyRefusal(t, file, good[:n], pins(t), "length", n)
	}
	t.Logf("count: %d cuts, all refused", len(good))
}

func TestWhatFollowsIsRefused(t *testing.T) {
	good, file, count := golden(t), scratch(t), 0
	for _, tail := range [][]byte{{0}, {1}, {'\n'}, make([]byte, 511), make([]byte, 512), make([]byte, 1024), make([]byte, 10240-len(good)%10240), good} {
		anyRefusal(t, file, slices.Concat(good, tail), pins(t), "tail", len(tail))
		anyRefusal(t, file, slices.Concat(tail, good), pins(t), "head", len(tail))
		count += 2
	}
	t.Logf("count: %d additions, all refused", count)
}

// The outer members, each of them dropped, doubled, renamed, moved, and with
// foreign ones between them.
func TestOuterMembers(t *testing.T) {
	good := split(t, withApprovals(t, golden(t), stranger))
	mustOpen(t, join(t, good), pins(t))
	file, count := scratch(t), 0
	try := func(what string, n int, members []member) {
		t.Helper()
		anyRefusal(t, file, join(t, members), pins(t), what, n)
		count++
	}
	for i, m := range good {
		without := slices.Delete(slices.Clone(good), i, i+1)
		if i != 2 { // without an approval that nobody asks for it is good
			try("dropped", i, without)
		}
		try("doubled", i, slices.Insert(slices.Clone(good), i, m))
		for _, name := range []string{m.name + "x", "./" + m.name, "x/" + m.name, "X", ""} {
			renamed := slices.Clone(good)
			renamed[i].name = name
			try("renamed", i, renamed)
		}
		for j := range good {
			if j != i {
				try("moved", i, slices.Insert(slices.Clone(without), j, m))
			}
		}
		for _, foreign := range []string{"x", "signatures/x.sig", "payload.tar.zst.age.x", ".hidden"} {
			try("foreign member before", i, slices.Insert(slices.Clone(good), i, member{foreign, nil}))
		}
	}
	try("foreign member behind", len(good), append(slices.Clone(good), member{"x", nil}))
	try("empty tar", 0, nil)
	t.Logf("count: %d arrangements, all refused", count)
}

// Tars that other programs would read just the same, but that say more than
// Keyferry's: refused by their headers.
func TestHeaders(t *testing.T) {
	members := split(t, golden(t))
	for _, test := range []struct {
		name   string
		change func(i int, h *tar.Header)
		want   control.Control // none: it opens
	}{
		{"canonical", func(int, *tar.Header) {}, control.Control{}},
		{"another mode", func(_ int, h *tar.Header) { h.Mode = 0o755 }, control.BundleFormat},
		{"an owner", func(_ int, h *tar.Header) { h.Uid = 1000 }, control.BundleFormat},
		{"an owner's name", func(_ int, h *tar.Header) { h.Uname = "root" }, control.BundleFormat},
		{"a time", func(_ int, h *tar.Header) { h.ModTime = time.Unix(1, 0) }, control.BundleFormat},
		{"the GNU dialect", func(_ int, h *tar.Header) { h.Format = tar.FormatGNU }, control.BundleFormat},
		{"PAX records", func(_ int, h *tar.Header) {
			h.Format, h.PAXRecords = tar.FormatPAX, map[string]string{"comment": "x"}
		}, control.BundleFormat},
		{"a link name", func(_ int, h *tar.Header) { h.Linkname = "x" }, control.BundleFormat},
		{"a payload that is a link", func(i int, h *tar.Header) {
			if i == 2 {
				h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0
			}
		}, control.BundleFormat},
		{"a payload that is a folder", func(i int, h *tar.Header) {
			if i == 2 {
				h.Typeflag, h.Size = tar.TypeDir, 0
			}
		}, control.BundleFormat},
		{"a payload that is a device", func(i int, h *tar.Header) {
			if i == 2 {
				h.Typeflag, h.Size = tar.TypeChar, 0
			}
		}, control.BundleFormat},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := open(t, foreignTar(t, members, test.change), pins(t))
			if test.want.ID != "" {
				refused(t, v, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// foreignTar is a tar of members whose headers are changed.
func foreignTar(t *testing.T, members []member, change func(i int, h *tar.Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, m := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Size: int64(len(m.data)), Mode: 0o644, Format: tar.FormatUSTAR}
		change(i, h)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size == 0 {
			continue
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A payload that is too large is not read, whoever signed it.
func TestTooLarge(t *testing.T) {
	good := forge(t, letter(t), forgery{
		manifest: func(m *Manifest) { m.Payload.Size = MaxSize + 1 },
		outer: func(m []member) []member {
			m[2].data = append(m[2].data, make([]byte, 1<<20)...)
			return m
		},
	})
	stick := &counted{r: bytes.NewReader(good)}
	v, err := Open(stick, scratch(t), pins(t))
	refused(t, v, err, control.BundleSize)
	if stick.n > 8192 {
		t.Errorf("%d bytes were read from the stick", stick.n)
	}
	x := forge(t, letter(t), forgery{manifest: func(m *Manifest) {
		for i := range MaxKeys {
			m.Keys = append(m.Keys, m.Keys[0])
			m.Keys[len(m.Keys)-1].ID = fmt.Sprintf("key-%d", i)
		}
	}})
	v, err = open(t, x, pins(t))
	refused(t, v, err, control.BundleSize)
}

// A stick without an end is left alone as soon as it says more than it should.
func TestEndlessStick(t *testing.T) {
	good := golden(t)
	for _, start := range [][]byte{nil, good[:100], good[:1000], good} {
		stick := &counted{r: io.MultiReader(bytes.NewReader(start), endless{})}
		v, err := Open(stick, scratch(t), pins(t))
		refused(t, v, err, control.BundleFormat)
		if most := int64(len(good)) + 1; stick.n > most {
			t.Errorf("%d bytes were read, the bundle has %d", stick.n, len(good))
		}
	}
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// What is wrong with the machine is not blamed on the bundle.
func TestBrokenStick(t *testing.T) {
	broken := errors.New("the stick is broken")
	v, err := Open(io.MultiReader(bytes.NewReader(golden(t)), brokenStick{broken}), scratch(t), pins(t))
	if r := new(control.Refusal); v != nil || !errors.Is(err, broken) || errors.As(err, &r) {
		t.Errorf("%v", err)
	}
	if v, err := Open(bytes.NewReader(golden(t)), readOnly(t), pins(t)); v != nil || err == nil {
		t.Error("a scratch file that can't be written to")
	}
}

type brokenStick struct{ error }

func (s brokenStick) Read([]byte) (int, error) { return 0, s.error }

func readOnly(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
