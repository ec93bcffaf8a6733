// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ed25519"
	_ "embed"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

// testIdentity is the receiver's age identity in all tests.
const testIdentity = "AGE-SECRET-KEY-18RXAN72N6J0YWHWKM7PFFCESXDS2Y5DUZ5GWL6Q664JFDKGUNU6SSCFKP3"

var (
	sender   = testSigner(1)
	receiver = testSigner(2)
	stranger = testSigner(3)
)

// testSigner is the same key in each run, so that testdata stays good.
func testSigner(n byte) crypto.Signer {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(t testing.TB, s crypto.Signer) sshsig.PublicKey {
	t.Helper()
	key, err := sshsig.NewPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func identity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.ParseX25519Identity(testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// publicKey is an RSA-2048 key, as PKIX DER.
//
//go:embed testdata/public.der
var publicKey []byte

// letter is a small key transfer of two keys.
func letter(t testing.TB) Letter {
	t.Helper()
	return Letter{
		Purpose: KeyTransfer, Sender: "vault-room", Signer: sender,
		Receiver: public(t, receiver).Fingerprint(), Recipient: identity(t).Recipient(),
		Sequence: 1, Created: time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC),
		Keys:  []KeyContent{keyContent("tenant-key"), keyContent("old-key")},
		Files: []Content{{"transcript.jsonl", []byte("{}\n")}},
	}
}

func keyContent(id string) KeyContent {
	kek := fingerprint.Of([]byte("kek"))
	return KeyContent{
		Key: Key{
			ID: id, Disposition: DispositionHSM, SLC: "5c1b62b5-7d3c-4a43-8d0d-6a7d1e7f2f10", PublicKey: publicKey,
			KID: "https://practice.vault.keyferry.test/keys/kek/1", KEK: &kek, WrappedBy: "software", Mechanism: "CKM_RSA_AES_KEY_WRAP",
			Warnings: []string{},
		},
		Contents: []Content{
			{KeyPath(id, "wrapped.bin"), bytes.Repeat([]byte{0xc5}, 600)},
			{KeyPath(id, "no_key_tpd_"+id+".xml"), []byte("<ArrayOfTrustedDocDomain/>")},
			{KeyPath(id, "key.json"), []byte("{}\n")},
		},
	}
}

// pins are what takes the letter.
func pins(t testing.TB) Pins {
	t.Helper()
	return Pins{
		Purpose: KeyTransfer, Receiver: public(t, receiver).Fingerprint(), SenderName: "vault-room",
		Sender: public(t, sender), Identity: identity(t),
	}
}

func scratch(t testing.TB) *os.File {
	t.Helper()
	return create(t, filepath.Join(t.TempDir(), "scratch"))
}

func create(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func seal(t testing.TB, l Letter) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Seal(&b, scratch(t), l); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// full is a disk with room for so many bytes.
type full struct{ room int }

var errDiskFull = errors.New("the disk is full")

func (d *full) Write(p []byte) (int, error) {
	if d.room -= len(p); d.room < 0 {
		return 0, errDiskFull
	}
	return len(p), nil
}

func open(t testing.TB, data []byte, p Pins) (*Verified, error) {
	t.Helper()
	return reopen(t, scratch(t), data, p)
}

// reopen is open with a scratch file that was used before.
func reopen(t testing.TB, scratch *os.File, data []byte, p Pins) (*Verified, error) {
	t.Helper()
	if err := scratch.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := scratch.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	return Open(bytes.NewReader(data), scratch, p)
}

func mustOpen(t testing.TB, data []byte, p Pins) *Verified {
	t.Helper()
	v, err := open(t, data, p)
	if err != nil {
		t.Fatalf("the good bundle: %v", err)
	}
	return v
}

// refused checks that the outcome of Open is a refusal by want.
func refused(t testing.TB, v *Verified, err error, want control.Control) {
	t.Helper()
	if r := new(control.Refusal); !errors.As(err, &r) || r.Control.ID != want.ID {
		t.Errorf("got the error %v, want %s", err, want.ID)
	}
	if v != nil {
		t.Error("a refused bundle is returned")
	}
}

// member is one member of a tar.
type member struct {
	name string
	data []byte
}

// split takes a tar apart with archive/tar, not with what is under test.
func split(t testing.TB, data []byte) []member {
	t.Helper()
	var members []member
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{h.Name, content})
	}
}

// join is the canonical tar of members.
func join(t testing.TB, members []member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tarWriter{&b}
	for _, m := range members {
		if err := w.add(m.name, int64(len(m.data)), bytes.NewReader(m.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// approval is the member with s's signature of the bundle's manifest.
func approval(t testing.TB, s crypto.Signer, manifest []byte) member {
	t.Helper()
	armored, err := sshsig.Sign(s, Namespace, manifest)
	if err != nil {
		t.Fatal(err)
	}
	return member{signatureName(public(t, s).Fingerprint()), armored}
}

// withApprovals adds approvals in front of the payload, in the given order.
func withApprovals(t testing.TB, data []byte, signers ...crypto.Signer) []byte {
	t.Helper()
	members := split(t, data)
	for _, s := range signers {
		members = slices.Insert(members, len(members)-1, approval(t, s, members[0].data))
	}
	return join(t, members)
}

// inOrder sorts signers as their approvals must stand.
func inOrder(t testing.TB, signers ...crypto.Signer) []crypto.Signer {
	t.Helper()
	slices.SortFunc(signers, func(a, b crypto.Signer) int {
		return strings.Compare(public(t, a).Fingerprint().Hex(), public(t, b).Fingerprint().Hex())
	})
	return signers
}

// forgery puts something wrong into a bundle: the true sender signs what comes
// out. Each function that is set changes one stage.
type forgery struct {
	index    func(*Index)
	lines    func([]byte) []byte     // of the index
	members  func([]member) []member // of the payload; index.json is the first
	plain    func([]byte) []byte     // the payload's tar
	payload  func([]byte) []byte     // encrypted
	manifest func(*Manifest)
	line     func([]byte) []byte // the manifest's bytes
	outer    func([]member) []member
}

func change[T any](f func(T) T, v T) T {
	if f == nil {
		return v
	}
	return f(v)
}

// forge seals a letter, takes the bundle apart, and puts it together again.
func forge(t testing.TB, l Letter, f forgery) []byte {
	t.Helper()
	good := split(t, seal(t, l))
	m, err := ParseManifest(good[0].data)
	if err != nil {
		t.Fatal(err)
	}
	members := split(t, plain(t, good[2].data))
	x, err := parseIndex(members[0].data)
	if err != nil {
		t.Fatal(err)
	}
	if f.index != nil {
		f.index(&x)
	}
	members[0].data = change(f.lines, mustLines(t, x))
	m.Index = fingerprint.Of(members[0].data)
	payload := change(f.payload, encrypt(t, l.Recipient, change(f.plain, join(t, change(f.members, members)))))
	m.Payload = File{payloadName, int64(len(payload)), fingerprint.Of(payload)}
	if f.manifest != nil {
		f.manifest(&m)
	}
	manifest := change(f.line, mustLines(t, m))
	return join(t, change(f.outer, []member{{manifestName, manifest}, approval(t, l.Signer, manifest), {payloadName, payload}}))
}

// plain is the tar in a payload, decrypted without the code under test.
func plain(t testing.TB, payload []byte) []byte {
	t.Helper()
	decrypted, err := age.Decrypt(bytes.NewReader(payload), identity(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(decrypted)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// contents lists the files of a letter in the order of the payload.
func (l Letter) contents() []Content {
	var all []Content
	for _, k := range l.Keys {
		all = append(all, k.Contents...)
	}
	return append(all, l.Files...)
}

func mustLines(t testing.TB, v any) []byte {
	t.Helper()
	lines, err := strictjson.MarshalLines(v)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func encrypt(t testing.TB, to age.Recipient, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	encrypted, err := age.Encrypt(&b, to)
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := zstd.NewWriter(encrypted)
	if err != nil {
		t.Fatal(err)
	}
	_, err = compressed.Write(plain)
	if err := errors.Join(err, compressed.Close(), encrypted.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
