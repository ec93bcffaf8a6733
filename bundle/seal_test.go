// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

func TestRoundTrip(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	classic := identity(t)
	long := strings.Repeat("k", 127)
	for _, test := range []struct {
		name      string
		change    func(*Letter)
		identity  age.Identity
		recipient age.Recipient
	}{
		{"two keys, classic recipient", func(*Letter) {}, classic, classic.Recipient()},
		{"two keys, hybrid recipient", func(*Letter) {}, hybrid, hybrid.Recipient()},
		{"a key identifier of 127 characters", func(l *Letter) { l.Keys = append(l.Keys, keyContent(long)) }, classic, classic.Recipient()},
		{"no keys", func(l *Letter) { l.Keys = nil }, classic, classic.Recipient()},
		{"nothing at all", func(l *Letter) { l.Keys, l.Files = nil, nil }, classic, classic.Recipient()},
		{"empty files", func(l *Letter) { l.Files = []Content{{"a", nil}, {"b", []byte{}}} }, classic, classic.Recipient()},
		{"sizes about a block", func(l *Letter) {
			l.Files = []Content{{"a", make([]byte, 511)}, {"b", make([]byte, 512)}, {"c", make([]byte, 513)}}
		}, classic, classic.Recipient()},
		{"a Microsoft-managed key", func(l *Letter) {
			k := &l.Keys[0].Key
			k.Disposition, k.KID, k.KEK, k.WrappedBy, k.Mechanism = DispositionMicrosoftManaged, "", nil, "", ""
		}, classic, classic.Recipient()},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := letter(t)
			test.change(&l)
			l.Recipient = test.recipient
			p := pins(t)
			p.Identity = test.identity
			same(t, mustOpen(t, seal(t, l), p), l)
		})
	}
}

// same checks that all of the letter arrived.
func same(t *testing.T, v *Verified, l Letter) {
	t.Helper()
	if len(v.Index.Keys) != len(l.Keys) {
		t.Fatalf("%d keys arrived of %d", len(v.Index.Keys), len(l.Keys))
	}
	for i, k := range v.Index.Keys {
		if k.ID != l.Keys[i].ID || k.KID != l.Keys[i].KID || !bytes.Equal(k.PublicKey, l.Keys[i].PublicKey) {
			t.Errorf("key %d arrived as %+v", i, k)
		}
	}
	if got, want := len(v.Index.files()), len(l.contents()); got != want {
		t.Fatalf("%d files arrived of %d", got, want)
	}
	for _, c := range l.contents() {
		if got, err := v.File(c.Path); err != nil || !bytes.Equal(got, c.Data) {
			t.Errorf("%s: %d bytes of %d arrived, error %v", c.Path, len(got), len(c.Data), err)
		}
	}
}

func TestSealSaysWhatItSealed(t *testing.T) {
	var b bytes.Buffer
	sealed, err := Seal(&b, scratch(t), letter(t))
	if err != nil {
		t.Fatal(err)
	}
	v := mustOpen(t, b.Bytes(), pins(t))
	if v.Digest != sealed.Digest || !reflect.DeepEqual(v.Manifest, sealed.Manifest) {
		t.Errorf("sealed %+v, opened %+v", sealed.Manifest, v.Manifest)
	}
	if v.Again || len(v.Approvals) != 0 {
		t.Errorf("a first bundle without approvals: again %v, approvals %v", v.Again, v.Approvals)
	}
	if got := FileName(v.Manifest.Sender.Name, v.Manifest.Sequence); got != "keyferry-vault-room-1.kfb" {
		t.Errorf("file name %s", got)
	}
}

// More than a bundle may hold is not sealed.
func TestSealRefusesTooMuch(t *testing.T) {
	filler := func(path string, size int) Content {
		return Content{path, make([]byte, size)}
	}
	for name, change := range map[string]func(*Letter){
		"one file too large":        func(l *Letter) { l.Files = append(l.Files, filler("filler", MaxContents+1)) },
		"files too large together":  func(l *Letter) { l.Files = append(l.Files, filler("a", MaxContents/2), filler("b", MaxContents/2)) },
		"one key more than allowed": func(l *Letter) { l.Keys = manyKeys(MaxKeys + 1) },
	} {
		l := letter(t)
		change(&l)
		var b bytes.Buffer
		if sealed, err := Seal(&b, scratch(t), l); !control.Is(err, control.BundleSize) || sealed != nil || b.Len() > 0 {
			t.Errorf("%s: sealed %v with %d bytes, %v", name, sealed, b.Len(), err)
		}
	}
}

// As many keys as are allowed, with identifiers and lists of warnings as long as
// they may be.
func TestSealAsMuchAsAllowed(t *testing.T) {
	l := letter(t)
	l.Keys = manyKeys(MaxKeys)
	for i := range l.Keys {
		l.Keys[i].Warnings = manyWarnings(10)
	}
	data := seal(t, l)
	v := mustOpen(t, data, pins(t))
	if len(v.Index.Keys) != MaxKeys || len(v.Manifest.Keys) != MaxKeys {
		t.Errorf("%d keys arrived", len(v.Index.Keys))
	}
}

func manyKeys(n int) []KeyContent {
	var keys []KeyContent
	for i := range n {
		keys = append(keys, keyContent(fmt.Sprintf("%s-%04d", strings.Repeat("k", 122), i)))
	}
	return keys
}

func TestSealRefuses(t *testing.T) {
	for name, change := range map[string]func(*Letter){
		"a path outside":          func(l *Letter) { l.Files[0].Path = "../x" },
		"a path twice":            func(l *Letter) { l.Files = append(l.Files, l.Files[0]) },
		"a key twice":             func(l *Letter) { l.Keys[1] = l.Keys[0] },
		"another disposition":     func(l *Letter) { l.Keys[0].Disposition = "cloud" },
		"a bad key identifier":    func(l *Letter) { l.Keys[0].ID = "A key" },
		"a file of another key":   func(l *Letter) { l.Keys[0].Contents[0].Path = KeyPath("old-key", "x") },
		"a file named index.json": func(l *Letter) { l.Files[0].Path = "index.json" },
		"a name not in UTF-8":     func(l *Letter) { l.Keys[0].Mechanism = "\xff" },
		"a key that is no key":    func(l *Letter) { l.Keys[0].PublicKey = []byte("der") },
	} {
		t.Run(name, func(t *testing.T) {
			l := letter(t)
			change(&l)
			var b bytes.Buffer
			if _, err := Seal(&b, scratch(t), l); !control.Is(err, control.BundleContents) || b.Len() != 0 {
				t.Errorf("error %v, %d bytes written", err, b.Len())
			}
		})
	}
}

// A full disk is an error at each write.
func TestSealToAFullDisk(t *testing.T) {
	l := letter(t)
	whole := len(seal(t, l))
	for room := 0; room < whole; room += 97 {
		if _, err := Seal(&full{room: room}, scratch(t), l); !errors.Is(err, errDiskFull) {
			t.Fatalf("%d bytes of room: %v", room, err)
		}
	}
	if _, err := Seal(io.Discard, readOnly(t), l); err == nil {
		t.Error("a scratch file that can't be written to")
	}
}

func TestReceipt(t *testing.T) {
	text := ReceiptText{Answers: fingerprint.Of([]byte("m")), Keys: []Arrived{{ID: "tenant-key", KeyURL: "https://v/keys/tenant-key/1", Tenant: "Active", Warnings: []string{}}}}
	encoded, err := text.Encode()
	if err != nil {
		t.Fatal(err)
	}
	receipt := func(data []byte) *Verified {
		l, p := letter(t), pins(t)
		l.Purpose, p.Purpose = Receipt, Receipt
		l.Keys, l.Files = nil, []Content{{ReceiptName, data}}
		return mustOpen(t, seal(t, l), p)
	}
	got, err := receipt(encoded).ReadReceipt()
	if err != nil || got.Answers != text.Answers || len(got.Keys) != 1 || !reflect.DeepEqual(got.Keys[0], text.Keys[0]) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, test := range []struct {
		name string
		data []byte
		want control.Control
	}{
		{"another format", bytes.Replace(encoded, []byte("receipt-v2"), []byte("receipt-v3"), 1), control.BundleVersion},
		{"an unknown field", bytes.Replace(encoded, []byte(`  "format"`), []byte("  \"x\": 1,\n  \"format\""), 1), control.BundleContents},
		{"not JSON", []byte("arrived"), control.BundleContents},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := receipt(test.data).ReadReceipt(); !control.Is(err, test.want) || got != nil {
				t.Errorf("%v, want %s", err, test.want.ID)
			}
		})
	}
	if _, err := mustOpen(t, seal(t, letter(t)), pins(t)).ReadReceipt(); !control.Is(err, control.BundleContents) {
		t.Errorf("a key transfer read as a receipt: %v", err)
	}
}

var update = flag.Bool("update", false, "seal testdata/golden.kfb anew")

// goldenDigest is the digest of the manifest in testdata/golden.kfb.
const goldenDigest = "3b18bf1058a34932b75077592446dc99ee9fd261195e2563b0668d464ed4d4ee"

func golden(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden.kfb"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A bundle that was sealed once opens for ever.
func TestGolden(t *testing.T) {
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "golden.kfb"), seal(t, letter(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	v := mustOpen(t, golden(t), pins(t))
	if got := v.Digest.Hex(); got != goldenDigest {
		t.Errorf("the manifest's digest is %s", got)
	}
	same(t, v, letter(t))
}
