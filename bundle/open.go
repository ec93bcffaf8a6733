// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"filippo.io/age"

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
	Taken      []Taken // the sender's bundles that were taken before, oldest first
	MaxSize    int64   // in bytes, of the payload and of what it holds; 0: [DefaultMaxSize]
}

func (p Pins) maxSize() int64 { return cmp.Or(p.MaxSize, DefaultMaxSize) }

// checkSize refuses a what of more bytes than the receiver takes.
func (p Pins) checkSize(what string, size int64) error {
	if size <= p.maxSize() {
		return nil
	}
	refusal := control.BundleSize.Refuse("%s %d bytes, the most that is taken is %d", what, size, p.maxSize())
	if p.Purpose == Receipt { // whose size nobody can allow
		return refusal.WithHint("no receipt is that large: ask the sender for it again")
	}
	return refusal
}

// Taken is a bundle that was taken before.
type Taken struct {
	Sequence uint64
	Manifest fingerprint.Fingerprint // digest
}

// Verified is a bundle that passed every check. Only [Open] makes one. Its
// bytes are in the scratch file that Open was given.
type Verified struct {
	Manifest  Manifest
	Digest    fingerprint.Fingerprint // of the manifest's bytes
	Index     Index
	Approvals []sshsig.PublicKey // of listed approvers, each once
	Again     bool               // this very bundle was taken before

	payload io.ReaderAt
	pins    Pins
}

// Open reads a bundle once from stick and checks all of it against pins. The
// payload, once its signed manifest is known, goes into scratch, an empty file
// without a name. Open writes nothing else.
func Open(stick io.Reader, scratch *os.File, pins Pins) (*Verified, error) {
	source := &source{r: stick}
	v, err := receive(source, scratch, pins)
	if source.err != nil {
		return nil, fmt.Errorf("read the bundle from the stick: %w", source.err)
	}
	if err != nil {
		return nil, err
	}
	if v.Index, err = v.walk(nil); err != nil {
		return nil, err
	}
	if err := v.Index.checkWarnings(v.Manifest.Warnings); err != nil {
		return nil, err
	}
	return v, nil
}

// source remembers that the medium failed, which is no fault of the bundle.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// receive reads the outer tar, member by member; each is checked before the
// next is read.
func receive(stick io.Reader, scratch *os.File, pins Pins) (*Verified, error) {
	t := tarReader{stick, "the bundle"}
	outer, err := readOuter(t)
	if err != nil {
		return nil, err
	}
	v, err := outer.verify(pins)
	if err != nil {
		return nil, err
	}
	if err := v.Manifest.checkSize(outer.payload, pins); err != nil {
		return nil, err
	}
	digest := sha256.New()
	writing := newFanOut(scratch, digest)
	err = t.content(writing, outer.payload)
	if err := writing.Close(); err != nil {
		return nil, err // the bundle is not to blame
	}
	if err != nil {
		return nil, err
	}
	if got := fingerprint.Fingerprint(digest.Sum(nil)); got != v.Manifest.Payload.SHA256 {
		return nil, control.BundlePayload.Refuse("the payload's SHA-256 is %s, the manifest says %s", got, v.Manifest.Payload.SHA256)
	}
	v.payload = scratch
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

// member reads a small member whole.
func (t tarReader) member(size int64) ([]byte, error) {
	var b bytes.Buffer
	err := t.content(&b, size)
	return b.Bytes(), err
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

// verify checks signatures, then parses the manifest from the same bytes, then
// holds it against pins.
func (o *outer) verify(pins Pins) (*Verified, error) {
	approvals, err := o.checkSignatures(pins)
	if err != nil {
		return nil, err
	}
	v := &Verified{Digest: fingerprint.Of(o.manifest), Approvals: approvals, pins: pins}
	if v.Manifest, err = parseManifest(o.manifest, pins); err != nil {
		return nil, err
	}
	v.Again, err = v.Manifest.checkSequence(v.Digest, pins.Taken)
	return v, err
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
