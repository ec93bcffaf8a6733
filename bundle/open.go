// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

// Pins are what the receiver holds a bundle against.
type Pins struct {
	Purpose    Purpose
	Receiver   fingerprint.Fingerprint // the receiver's own signing key
	SenderName string
	Sender     sshsig.PublicKey
	Rehearsal  bool
	Approvers  []sshsig.PublicKey
	Threshold  int
	Identity   age.Identity
	Taken      []Taken // the sender's bundles that were taken before
	OutOfOrder bool    // take a bundle that is older than one of these, if its number was never taken
}

// Taken is a bundle that was taken before.
type Taken struct {
	Sequence uint64
	Manifest fingerprint.Fingerprint // digest
	Previous fingerprint.Fingerprint // digest of the manifest before, as this one says
}

// Verified is a bundle that passed every check. Only [Open] makes one.
type Verified struct {
	Manifest  Manifest
	Digest    fingerprint.Fingerprint // of the manifest's bytes
	Index     Index
	Approvals []sshsig.PublicKey // of listed approvers, each once
	Again     bool               // this very bundle was taken before
	// OutOfOrder says that a newer bundle was taken before, and this one never.
	OutOfOrder bool

	files map[string][]byte // by path
}

// Open reads a bundle once from stick and checks all of it against pins. The
// payload, once its signed manifest is known, goes into scratch, an empty file
// without a name. Open writes nothing else.
func Open(stick io.Reader, scratch *os.File, pins Pins) (*Verified, error) {
	source, copied := &faultyReader{Reader: stick}, &faultyWriter{Writer: scratch}
	v, err := receive(source, copied, pins)
	switch { // the medium and this machine's disk are no faults of the bundle
	case source.err != nil:
		return nil, fmt.Errorf("read the bundle from the stick: %w", source.err)
	case copied.err != nil:
		return nil, copied.err
	case err != nil:
		return nil, err
	}
	if _, err := scratch.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := v.unpack(scratch, pins.Identity); err != nil {
		return nil, err
	}
	return v, nil
}

// receive checks signatures, manifest and payload, each before the next is read.
func receive(stick io.Reader, scratch io.Writer, pins Pins) (*Verified, error) {
	t := tarReader{stick, "the bundle"}
	outer, err := readOuter(t)
	if err != nil {
		return nil, err
	}
	v := &Verified{Digest: fingerprint.Of(outer.manifest)}
	if v.Approvals, err = outer.checkSignatures(pins); err != nil {
		return nil, outer.mixedUp(pins, err)
	}
	if v.Manifest, err = ParseManifest(outer.manifest); err != nil {
		return nil, err
	}
	if err := v.Manifest.fits(pins); err != nil {
		return nil, err
	}
	if v.Again, err = v.Manifest.checkSequence(v.Digest, pins.Taken, pins.OutOfOrder); err != nil {
		return nil, err
	}
	v.OutOfOrder = !v.Again && slices.ContainsFunc(pins.Taken, func(t Taken) bool { return t.Sequence > v.Manifest.Sequence })
	want := v.Manifest.Payload
	if outer.payload != want.Size {
		return nil, control.BundlePayload.Refuse("the payload has %d bytes, the manifest says %d", outer.payload, want.Size)
	}
	digest := sha256.New()
	if err := t.content(io.MultiWriter(scratch, digest), want.Size); err != nil {
		return nil, err
	}
	if got := fingerprint.Fingerprint(digest.Sum(nil)); got != want.SHA256 {
		return nil, control.BundlePayload.Refuse("the payload's SHA-256 is %s, the manifest says %s", got, want.SHA256)
	}
	return v, t.end(trailer)
}

// outer is the outer tar up to the payload, read but not believed.
type outer struct {
	manifest   []byte
	signatures []*sshsig.Signature
	armored    [][]byte // the signatures as they stand
	payload    int64    // size
}

func readOuter(t tarReader) (*outer, error) {
	name, size, err := t.next()
	if err != nil {
		return nil, err
	}
	if name != manifestName || size > maxManifest {
		return nil, t.refuse("the first member is %s of %d bytes, not %s", control.Quote(name), size, manifestName)
	}
	var o outer
	if o.manifest, err = t.member(size); err != nil {
		return nil, err
	}
	for {
		if name, size, err = t.next(); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(name, signaturesDir) {
			break
		}
		if err := o.readSignature(t, name, size); err != nil {
			return nil, err
		}
	}
	if name != payloadName {
		return nil, t.refuse("there is a member %s where %s should be", control.Quote(name), payloadName)
	}
	o.payload = size
	return &o, nil
}

// mixedUp gives a better reason than err where the bundle, by what it says of
// itself, is a good one in the wrong place. The reason lets nothing pass.
func (o *outer) mixedUp(pins Pins, err error) error {
	m, bad := ParseManifest(o.manifest)
	switch {
	case bad != nil:
	case m.Sender.Fingerprint == pins.Receiver:
		return control.BundlePurpose.Refuse("this is %s, which this side has sealed itself; %s of the other side is wanted", FileName(m.Sender.Name, m.Sequence), pins.Purpose.people()).
			WithHint("give the file that came back from the other side")
	case m.Purpose != pins.Purpose:
		return control.BundlePurpose.Refuse("this is %s; %s is wanted", m.Purpose.people(), pins.Purpose.people())
	}
	return err
}

func (o *outer) readSignature(t tarReader, name string, size int64) error {
	if len(o.signatures) == maxSignatures || size > maxSignature {
		return control.BundleSize.Refuse("the bundle has more than %d signatures, or one of more than %d bytes", maxSignatures, maxSignature).
			WithHint("ask the sender for the bundle with no more approvals than the security world asks for")
	}
	armored, err := t.member(size)
	if err != nil {
		return err
	}
	s, err := sshsig.Parse(armored)
	if err != nil {
		return control.BundleSignature.Refuse("%s: %w", control.Quote(name), err)
	}
	if name != signatureName(s.Key.Fingerprint()) {
		return control.BundleSignature.Refuse("%s holds a signature by another key, %s", control.Quote(name), s.Key.Fingerprint())
	}
	o.signatures = append(o.signatures, s)
	o.armored = append(o.armored, armored)
	return nil
}

// checkSignatures wants the sender's signature first, then approvals in the
// order of their names, all of them good, and enough of them by listed
// approvers. The same signer can't appear twice, since names are signers.
func (o *outer) checkSignatures(pins Pins) ([]sshsig.PublicKey, error) {
	if len(o.signatures) == 0 {
		return nil, control.BundleSignature.Refuse("the bundle is not signed")
	}
	if sender := o.signatures[0].Key; !sender.Equal(pins.Sender) {
		return nil, control.BundleSender.Refuse("the bundle is signed by %s, not by the pinned sender %s", sender.Fingerprint(), pins.Sender.Fingerprint())
	}
	var approvals []sshsig.PublicKey
	last := ""
	for i, s := range o.signatures {
		if err := s.Verify(Namespace, o.manifest); err != nil {
			return nil, control.BundleSignature.Refuse("the signature by %s: %w", s.Key.Fingerprint(), err)
		}
		if slices.ContainsFunc(pins.Approvers, s.Key.Equal) {
			approvals = append(approvals, s.Key)
		}
		if i == 0 {
			continue
		}
		name := s.Key.Fingerprint().Hex()
		if name <= last || s.Key.Equal(pins.Sender) {
			return nil, control.BundleSignature.Refuse("the approvals are not in order, or one is there twice")
		}
		last = name
	}
	if len(approvals) < pins.Threshold {
		return nil, control.BundleApproval.Refuse("approvals that were given: %d, the security world asks for %d", len(approvals), pins.Threshold)
	}
	return approvals, nil
}

// maxWindow bounds, in bytes, the memory that a zstd stream may ask for.
const maxWindow = 8 << 20

// unpack decrypts the payload into memory and checks all of it: the index against
// the manifest, each file against the index, and that nothing else is there.
func (v *Verified) unpack(payload io.Reader, identity age.Identity) error {
	decrypted, err := age.Decrypt(payload, alone{identity})
	if err != nil {
		return refuseDecrypt(err)
	}
	plain, err := zstd.NewReader(decryptedReader{decrypted}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	defer plain.Close()
	t := tarReader{plain, "the payload"}
	name, size, err := t.next()
	if err != nil {
		return err
	}
	if name != indexName || size > maxIndex {
		return control.BundleContents.Refuse("the payload begins with %s of %d bytes, not with %s", control.Quote(name), size, indexName)
	}
	index, err := t.member(size)
	if err != nil {
		return err
	}
	if fingerprint.Of(index) != v.Manifest.Index {
		return control.BundleContents.Refuse("the index is not the one that the manifest commits to")
	}
	if v.Index, err = parseIndex(index); err != nil {
		return err
	}
	v.files = map[string][]byte{}
	for _, f := range v.Index.files() {
		if err := t.expect(f.Path, f.Size); err != nil {
			return err
		}
		data, err := t.member(f.Size)
		if err != nil {
			return err
		}
		if fingerprint.Of(data) != f.SHA256 {
			return control.BundleContents.Refuse("%s is not the file that the index describes", control.Quote(f.Path))
		}
		v.files[f.Path] = data
	}
	if err := t.end(trailer); err != nil {
		return err
	}
	return v.Index.agrees(v.Manifest)
}

// File returns a file of the payload by its path. The caller must not change it.
func (v *Verified) File(path string) ([]byte, error) {
	data, has := v.files[path]
	if !has {
		return nil, control.BundleContents.Refuse("the bundle has no %s", control.Quote(path))
	}
	return data, nil
}

// alone is an identity that opens only a payload encrypted to it alone, and to a
// recipient of its own kind: the sender does not decide who else could read a
// payload, or could once X25519 is broken.
type alone struct{ age.Identity }

func (a alone) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 {
		return nil, control.BundleRecipient.Refuse("the payload is encrypted to %d recipients, not to this side alone", len(stanzas))
	}
	kind := "X25519"
	if _, hybrid := a.Identity.(*age.HybridIdentity); hybrid {
		kind = "mlkem768x25519"
	}
	if stanzas[0].Type != kind {
		return nil, control.BundleRecipient.Refuse("the payload is encrypted to a recipient of the kind %s, this side's is of the kind %s", control.Quote(stanzas[0].Type), kind)
	}
	return a.Identity.Unwrap(stanzas)
}

func refuseDecrypt(err error) error {
	if r := new(control.Refusal); errors.As(err, &r) {
		return r
	}
	return control.BundleDecrypt.Refuse("the payload can't be decrypted: %w", err)
}

// decryptedReader says of a payload that breaks off within that it can't be
// decrypted.
type decryptedReader struct{ io.Reader }

func (d decryptedReader) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = refuseDecrypt(err)
	}
	return n, err
}

// faultyReader and faultyWriter remember that the medium failed.
type faultyReader struct {
	io.Reader
	err error
}

func (f *faultyReader) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

type faultyWriter struct {
	io.Writer
	err error
}

func (f *faultyWriter) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err != nil {
		f.err = err
	}
	return n, err
}
