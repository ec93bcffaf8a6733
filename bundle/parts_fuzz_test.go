// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
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
	f.Logf("%d seeds are taken, and their %d halves are not", len(good), len(good))
}

// variants are a good document, and others of its kind.
func variants[T any](f *testing.F, good []byte, changes ...func(*T)) [][]byte {
	f.Helper()
	all := [][]byte{good}
	for _, change := range changes {
		var v T
		if err := json.Unmarshal(good, &v); err != nil {
			f.Fatal(err)
		}
		change(&v)
		all = append(all, mustLines(f, v))
	}
	return all
}

// mustRefuse fails unless err is a refusal of what came in.
func mustRefuse(t *testing.T, err error) {
	t.Helper()
	if r := new(control.Refusal); !errors.As(err, &r) || r.Control.Class != control.Refused {
		t.Fatalf("no refusal: %v", err)
	}
}

// FuzzManifest: a manifest that is taken has one spelling, and names that can be.
// A request for approvals is the same document: it has no other reader.
func FuzzManifest(f *testing.F) {
	good := variants(f, split(f, golden(f))[0].data,
		func(m *Manifest) { m.Keys[0].Warnings = []string{"KF-HSM-WRAP-UNPROVEN", "KF-TPD-VALIDITY"} },
		func(m *Manifest) { m.Keys[1].Disposition, m.Keys[1].KEK = DispositionMicrosoftManaged, nil },
		func(m *Manifest) {
			m.Purpose, m.Sequence, m.Previous, m.Rehearsal, m.Keys = Receipt, 7, fingerprint.Of([]byte("6")), true, []ManifestKey{}
		})
	seeds(f, func(data []byte) error { _, err := ParseManifest(data); return err }, good...)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if again := mustLines(t, m); !bytes.Equal(again, data) {
			t.Errorf("another spelling of\n%s", again)
		}
		if m.Purpose != KeyTransfer && m.Purpose != Receipt || m.Payload.Path != payloadName || m.Payload.Size > MaxSize || len(m.Keys) > MaxKeys || strings.ContainsAny(FileName(m.Sender.Name, m.Sequence), "/\\\x00") {
			t.Errorf("taken: %+v", m)
		}
	})
}

// FuzzIndex: what is taken has one spelling, and names files that can be.
func FuzzIndex(f *testing.F) {
	good := variants(f, split(f, plain(f, split(f, golden(f))[2].data))[0].data,
		func(x *Index) { x.Keys[0].Warnings = []string{"KF-HSM-WRAP-UNPROVEN", "KF-TPD-VALIDITY"} },
		func(x *Index) {
			k := &x.Keys[1]
			k.Disposition, k.KID, k.KEK, k.WrappedBy, k.Mechanism = DispositionMicrosoftManaged, "", nil, "", ""
		},
		func(x *Index) { x.Keys, x.Files = []Key{}, x.Files[:1] })
	seeds(f, func(data []byte) error { _, err := parseIndex(data); return err }, good...)
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if again := mustLines(t, x); !bytes.Equal(again, data) {
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
