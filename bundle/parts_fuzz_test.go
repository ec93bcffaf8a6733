// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// seeds adds good inputs, which accept must take, and their halves, which it must
// not.
func seeds(f *testing.F, accept func([]byte) error, good ...[]byte) {
	f.Helper()
	for i, data := range good {
		if err := accept(data); err != nil {
			f.Fatalf("seed %d: %v", i, err)
		}
		cut := slices.Clone(data[:len(data)/2])
		if accept(cut) == nil {
			f.Fatalf("seed %d: half of it is taken", i)
		}
		f.Add(data)
		f.Add(cut)
	}
}

// mustRefuse fails unless err is a refusal of what came in.
func mustRefuse(t *testing.T, err error) {
	t.Helper()
	if r := new(control.Refusal); !errors.As(err, &r) || r.Control.Class != control.Refused {
		t.Fatalf("no refusal: %v", err)
	}
}

// FuzzManifest: what is taken has one spelling, and fits the pins.
func FuzzManifest(f *testing.F) {
	good := split(f, golden(f))[0].data
	seeds(f, func(data []byte) error { _, err := parseManifest(data, pins(f)); return err }, good)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data, pins(t))
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if again := mustLine(t, m); !bytes.Equal(again, data) {
			t.Errorf("another spelling of\n%s", again)
		}
		if m.Sender.Name != "vault-room" || m.Purpose != KeyTransfer || m.Rehearsal || m.Payload.Path != payloadName || strings.ContainsAny(m.FileName(), "/\\\x00") {
			t.Errorf("taken: %+v", m)
		}
	})
}

// FuzzIndex: what is taken has one spelling, and names files that can be.
func FuzzIndex(f *testing.F) {
	seeds(f, func(data []byte) error { _, err := parseIndex(data); return err }, mustLine(f, index(f, letter(f))))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if again := mustLine(t, x); !bytes.Equal(again, data) {
			t.Errorf("another spelling of\n%s", again)
		}
		seen := map[string]bool{indexName: true}
		for _, file := range x.files() {
			if !filepath.IsLocal(file.Path) || filepath.Clean(file.Path) != file.Path || strings.HasPrefix(filepath.Base(file.Path), ".") || seen[file.Path] || file.Size < 0 {
				t.Errorf("taken: %+v", file)
			}
			seen[file.Path] = true
		}
	})
}

// FuzzTar: what is taken is, to the byte, what Keyferry writes for it.
func FuzzTar(f *testing.F) {
	seeds(f, func(data []byte) error { _, err := untar(data); return err }, golden(f), join(f, []member{{"a", nil}, {"b", []byte("x")}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := untar(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if !bytes.Equal(join(t, members), data) {
			t.Errorf("another tar of %q", members)
		}
	})
}

// untar reads a tar whose members are not known, as the outer one is read.
func untar(data []byte) ([]member, error) {
	t := tarReader{bytes.NewReader(data), "a test"}
	var members []member
	for {
		name, size, err := t.next()
		if err != nil || name == "" {
			return members, err
		}
		if size > int64(len(data)) {
			return nil, t.refuse("it is too large")
		}
		content, err := t.member(size)
		if err != nil {
			return nil, err
		}
		members = append(members, member{name, content})
	}
}

// FuzzFrames: what passes is all of it, and holds nothing that a decoder skips.
func FuzzFrames(f *testing.F) {
	plain := bytes.Repeat([]byte("plain text "), 1000)
	p, err := newPacker()
	if err != nil {
		f.Fatal(err)
	}
	pass := func(data []byte) ([]byte, error) { return io.ReadAll(newFrames(bytes.NewReader(data))) }
	seeds(f, func(data []byte) error { _, err := pass(data); return err },
		p.pack(plain, nil), slices.Concat(p.pack(plain[:1], nil), p.pack(plain[1:], nil)), withWindow(23, plain))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := pass(data)
		if !bytes.HasPrefix(data, got) || err == nil && len(got) != len(data) {
			t.Fatalf("%d of %d bytes passed: %v", len(got), len(data), err)
		}
		if err == nil && bytes.HasPrefix(data, []byte{0x50, 0x2a, 0x4d, 0x18}) {
			t.Error("a skippable frame passed")
		}
	})
}
