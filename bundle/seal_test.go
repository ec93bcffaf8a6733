// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"math/rand/v2"
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
		{"empty files", func(l *Letter) { l.Files = []Content{Bytes("a", nil), Bytes("b", []byte{})} }, classic, classic.Recipient()},
		{"sizes about a block", func(l *Letter) {
			l.Files = []Content{Bytes("a", make([]byte, 511)), Bytes("b", make([]byte, 512)), Bytes("c", make([]byte, 513))}
		}, classic, classic.Recipient()},
		{"a name that JSON escapes", func(l *Letter) { l.Keys[0].Mechanism = "<&>\u2028" }, classic, classic.Recipient()},
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
		if got, err := v.ReadFile(c.Path); err != nil || !bytes.Equal(got, data(t, c)) {
			t.Errorf("%s: %d bytes of %d arrived, error %v", c.Path, len(got), len(data(t, c)), err)
		}
	}
}

func TestSealSaysWhatItSealed(t *testing.T) {
	s := newStick()
	sealed, err := Seal(s, letter(t))
	if err != nil {
		t.Fatal(err)
	}
	v := mustOpen(t, s.data, pins(t))
	if v.Digest != sealed.Digest || !reflect.DeepEqual(v.Manifest, sealed.Manifest) {
		t.Errorf("sealed %+v, opened %+v", sealed.Manifest, v.Manifest)
	}
	if v.Again || len(v.Approvals) != 0 {
		t.Errorf("a first bundle without approvals: again %v, approvals %v", v.Again, v.Approvals)
	}
	if got := v.Manifest.FileName(); got != "keyferry-vault-room-1.kfb" {
		t.Errorf("file name %s", got)
	}
}

// Keys that the receiver could not read together are not sealed; other files are
// nothing to it.
func TestSealRefusesWhatIsTooLargeToRead(t *testing.T) {
	filler := func(path string, size int64) Content {
		return Content{path, func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(endless{}, size)), nil }}
	}
	l := letter(t)
	for i := range l.Keys {
		k := &l.Keys[i]
		k.Contents = append(k.Contents, filler(KeyPath(k.ID, "filler"), MaxKeys/2))
	}
	stick := newStick()
	if sealed, err := Seal(stick, l); allowed(t, err) || sealed != nil || len(stick.data) > 0 {
		t.Errorf("sealed %v with %d bytes, %v", sealed, len(stick.data), err)
	}
	x := index(t, letter(t))
	x.Files[0].Size = MaxKeys
	x.Keys[0].Files[0].Size = MaxKeys / 2
	if err := x.checkMemory(); err != nil {
		t.Errorf("half of it: %v", err)
	}
}

// JSON would turn it into other text.
func TestSealRefusesTextThatIsNotUTF8(t *testing.T) {
	l := letter(t)
	l.Keys[0].Mechanism = "\xff"
	if _, err := Seal(newStick(), l); err == nil {
		t.Error("it was sealed, and would not open")
	}
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
	} {
		t.Run(name, func(t *testing.T) {
			l := letter(t)
			change(&l)
			s := newStick()
			if _, err := Seal(s, l); !control.Is(err, control.BundleContents) || len(s.data) != 0 {
				t.Errorf("error %v, %d bytes written", err, len(s.data))
			}
		})
	}
}

// A disk that is full is an error at each write, and nothing on it is a bundle
// before it is one: what is written last comes first.
func TestSealToAFullDisk(t *testing.T) {
	l := letter(t)
	whole := len(seal(t, l))
	for room := 0; room < whole; room += 97 {
		s := &stick{room: room}
		if _, err := Seal(s, l); !errors.Is(err, errStickFull) || s.holdsBundle() {
			t.Fatalf("%d bytes of room: %v, a bundle: %v", room, err, s.holdsBundle())
		}
	}
}

func TestReceipt(t *testing.T) {
	text := ReceiptText{Answers: fingerprint.Of([]byte("m")), Keys: []Arrived{{ID: "tenant-key", KeyURL: "https://v/keys/tenant-key/1", Tenant: "Active"}}}
	encoded, err := text.Encode()
	if err != nil {
		t.Fatal(err)
	}
	receipt := func(data []byte) *Verified {
		l, p := letter(t), pins(t)
		l.Purpose, p.Purpose = Receipt, Receipt
		l.Keys, l.Files = nil, []Content{Bytes(ReceiptName, data)}
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
		{"another format", bytes.Replace(encoded, []byte("receipt-v1"), []byte("receipt-v2"), 1), control.BundleVersion},
		{"an unknown field", bytes.Replace(encoded, []byte(`{"format"`), []byte(`{"x":1,"format"`), 1), control.BundleContents},
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
const goldenDigest = "27c75c94699192257657904434a3c3ccfcf015136b932f0ce6cc3451079664ea"

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

// The payload stands where the manifest of an empty one would end: it is moved
// up where a longer size takes the manifest over a block.
func TestSealMovesThePayload(t *testing.T) {
	noise := make([]byte, 3*pieceSize+1)
	rand.NewChaCha8([32]byte{}).Read(noise)
	moved := 0
	for size := 330; size < 370; size++ { // of a name that makes a manifest of some 1,024 bytes
		l := letter(t)
		l.Sender = strings.Repeat("x", size)
		l.Files = []Content{Bytes("noise", noise)}
		s := &movedStick{stick: newStick()}
		if _, err := Seal(s, l); err != nil {
			t.Fatal(err)
		}
		p := pins(t)
		p.SenderName = l.Sender
		same(t, mustOpen(t, s.data, p), l)
		if s.reads > 0 {
			moved++
		}
	}
	if moved != len("868901")-len("0") {
		t.Errorf("%d payloads were moved", moved)
	}
}

type movedStick struct {
	*stick
	reads int
}

func (s *movedStick) ReadAt(p []byte, at int64) (int, error) {
	s.reads++
	return s.stick.ReadAt(p, at)
}

// A file that changes between the two readings is noticed, and nothing is sealed.
func TestSealNoticesWhatChanges(t *testing.T) {
	for name, second := range map[string]string{"other bytes": "abcx", "longer": "abcde", "shorter": "abc", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			opened := 0
			content := Content{"notes", func() (io.ReadCloser, error) {
				opened++
				return io.NopCloser(strings.NewReader(map[int]string{1: "abcd", 2: second}[opened])), nil
			}}
			l := letter(t)
			l.Files = append(l.Files, content)
			s := newStick()
			if _, err := Seal(s, l); !errors.Is(err, errChanged) || s.holdsBundle() || opened != 2 {
				t.Errorf("opened %d times, a bundle: %v, error %v", opened, s.holdsBundle(), err)
			}
		})
	}
}

func TestSealWithoutAFile(t *testing.T) {
	l := letter(t)
	l.Files = append(l.Files, FromFile("notes", filepath.Join(t.TempDir(), "absent")))
	s := newStick()
	if _, err := Seal(s, l); !errors.Is(err, fs.ErrNotExist) || len(s.data) != 0 {
		t.Errorf("%d bytes sealed, error %v", len(s.data), err)
	}
}
