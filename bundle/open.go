// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
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
	hashing, writing := copyTo(digest), copyTo(scratch)
	err = t.content(io.MultiWriter(hashing, writing), outer.payload)
	if err := cmp.Or(writing.Close(), hashing.Close()); err != nil {
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
		return control.BundleSize.Refuse("the bundle has more than %d signatures, or one of more than %d bytes", maxSignatures, maxSignature)
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

func parseManifest(line []byte, pins Pins) (m Manifest, err error) {
	if err := strictjson.UnmarshalLine(line, maxManifest, &m); err != nil {
		return m, control.BundleManifest.Refuse("the manifest: %w", err)
	}
	return m, m.check(pins)
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
		return nil, control.BundleApproval.Refuse("%d approvals were given, the security world asks for %d", len(approvals), pins.Threshold)
	}
	return approvals, nil
}

var idSyntax = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (m Manifest) check(pins Pins) error {
	switch {
	case m.Format != Format:
		return control.BundleVersion.Refuse("the bundle's format is %s, not %s", control.Quote(m.Format), Format)
	case m.Rehearsal != pins.Rehearsal:
		return control.TrustRehearsal.Refuse("one of bundle and this side's state directory is a rehearsal, the other is not")
	case m.Purpose != pins.Purpose:
		return control.BundlePurpose.Refuse("the bundle is a %s, not a %s", control.Quote(string(m.Purpose)), pins.Purpose)
	case m.Receiver != pins.Receiver:
		return control.BundleReceiver.Refuse("the bundle is for the receiver %s, this side is %s", m.Receiver, pins.Receiver)
	case m.Sender.Fingerprint != pins.Sender.Fingerprint() || m.Sender.Name != pins.SenderName:
		return control.BundleSender.Refuse("the manifest names the sender %s, the pinned one is %s", control.Quote(m.Sender.Name), control.Quote(pins.SenderName))
	case !idSyntax.MatchString(m.ID):
		return control.BundleManifest.Refuse("the manifest's id %s is not 32 hex digits", control.Quote(m.ID))
	case !validWarnings(m.Warnings):
		return control.BundleManifest.Refuse("the manifest's warnings are not a sorted list of control IDs")
	case m.Payload.Path != payloadName:
		return control.BundleManifest.Refuse("the manifest names the payload %s, not %s", control.Quote(m.Payload.Path), payloadName)
	case m.Sequence == 0 || (m.Sequence == 1) != (m.Previous == fingerprint.Fingerprint{}):
		return control.BundleManifest.Refuse("the manifest's place in the sender's sequence, %d, does not fit the manifest before it", m.Sequence)
	}
	return nil
}

// checkSequence tells a new bundle from one that was taken, from an older one,
// and from one that claims a place that another has. A gap is accepted: a
// bundle may have been lost on the way.
func (m Manifest) checkSequence(digest fingerprint.Fingerprint, taken []Taken) (again bool, err error) {
	var last Taken
	for _, t := range taken {
		switch {
		case t.Manifest == digest:
			return true, nil
		case t.Sequence == m.Sequence:
			return false, control.BundleFork.Refuse("another bundle number %d was taken already", m.Sequence)
		case t.Sequence > last.Sequence:
			last = t
		}
	}
	switch {
	case m.Sequence < last.Sequence:
		return false, control.BundleReplay.Refuse("this is the sender's bundle number %d; number %d was taken already", m.Sequence, last.Sequence)
	case last.Sequence > 0 && m.Sequence == last.Sequence+1 && m.Previous != last.Manifest:
		return false, control.BundleFork.Refuse("bundle number %d does not follow the number %d that was taken", m.Sequence, last.Sequence)
	}
	return false, nil
}

func (m Manifest) checkSize(payload int64, pins Pins) error {
	if payload != m.Payload.Size {
		return control.BundlePayload.Refuse("the payload has %d bytes, the manifest says %d", payload, m.Payload.Size)
	}
	if most := pins.maxSize(); payload > most {
		return control.BundleSize.Refuse("the payload has %d bytes, the most that is taken is %d", payload, most)
	}
	return nil
}

// walk decrypts the payload and checks all of it: the index against the
// manifest, each file against the index, and that nothing else is there. What
// the files hold goes to sink, if it wants it.
func (v *Verified) walk(sink func(File) io.Writer) (Index, error) {
	decrypted, err := age.Decrypt(io.NewSectionReader(v.payload, 0, v.Manifest.Payload.Size), alone{v.pins.Identity})
	if err != nil {
		return Index{}, refuseDecrypt(err)
	}
	packed := readAhead(decrypted)
	defer packed.Close()
	unpacked, err := zstd.NewReader(newFrames(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(4*maxWindow))
	if err != nil {
		return Index{}, err
	}
	defer unpacked.Close()
	plain := readAhead(unpacked)
	defer plain.Close()
	t := tarReader{plain, "the payload"}
	x, err := t.readIndex(v.Manifest.Index)
	if err == nil {
		err = x.checkSize(v.pins)
	}
	if err != nil {
		return Index{}, err
	}
	for _, f := range x.files() {
		if err := t.readFile(f, sink); err != nil {
			return Index{}, err
		}
	}
	return x, t.end(trailer)
}

func (t tarReader) readIndex(commitment fingerprint.Fingerprint) (Index, error) {
	name, size, err := t.next()
	if err != nil {
		return Index{}, err
	}
	if name != indexName || size > maxIndex {
		return Index{}, control.BundleContents.Refuse("the payload begins with %s of %d bytes, not with %s", control.Quote(name), size, indexName)
	}
	data, err := t.member(size)
	if err != nil {
		return Index{}, err
	}
	if fingerprint.Of(data) != commitment {
		return Index{}, control.BundleContents.Refuse("the index is not the one that the manifest commits to")
	}
	return parseIndex(data)
}

func parseIndex(line []byte) (x Index, err error) {
	if err := strictjson.UnmarshalLine(line, maxIndex, &x); err != nil {
		return x, control.BundleContents.Refuse("the index: %w", err)
	}
	return x, x.check()
}

func (t tarReader) readFile(f File, sink func(File) io.Writer) error {
	if err := t.expect(f.Path, f.Size); err != nil {
		return err
	}
	h := sha256.New()
	w := io.Writer(h)
	if sink != nil {
		if to := sink(f); to != nil {
			w = io.MultiWriter(h, to)
		}
	}
	if err := t.content(w, f.Size); err != nil {
		return err
	}
	if fingerprint.Fingerprint(h.Sum(nil)) != f.SHA256 {
		return control.BundleContents.Refuse("%s is not the file that the index describes", control.Quote(f.Path))
	}
	return nil
}

// maxInMemory bounds what [Verified.ReadFiles] returns together, in bytes.
const maxInMemory = 512 << 20

// ReadFile returns a file of the payload, verified once more.
func (v *Verified) ReadFile(path string) ([]byte, error) {
	files, err := v.ReadFiles(path)
	return files[path], err
}

// ReadFiles returns files of the payload by their paths, verified once more, in
// one pass over the payload.
func (v *Verified) ReadFiles(paths ...string) (map[string][]byte, error) {
	all := v.Index.files()
	buffers := map[string]*bytes.Buffer{}
	var total int64
	for _, path := range paths {
		i := slices.IndexFunc(all, func(f File) bool { return f.Path == path })
		if i < 0 {
			return nil, control.BundleContents.Refuse("the bundle has no %s", control.Quote(path))
		}
		if total += all[i].Size; total > maxInMemory {
			return nil, control.BundleSize.Refuse("%s and what is read with it have more than the %d bytes allowed", control.Quote(path), maxInMemory)
		}
		buffers[path] = bytes.NewBuffer(make([]byte, 0, all[i].Size+bytes.MinRead))
	}
	_, err := v.walk(func(f File) io.Writer {
		if b, wanted := buffers[f.Path]; wanted {
			return b
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for path, b := range buffers {
		files[path] = b.Bytes()
	}
	return files, nil
}
