// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

// Own is a bundle that this side sealed, to which approvals may be attached. The
// payload is not looked at: the manifest, which is signed, holds its digest.
type Own struct {
	Manifest Manifest
	Digest   fingerprint.Fingerprint // of the manifest's bytes
	outer    *outer
	payload  *io.SectionReader
}

// OpenOwn reads a bundle and checks that sender signed it, and that its
// approvals, if it has any, are good (KF-APPROVAL-BUNDLE).
func OpenOwn(file *io.SectionReader, sender sshsig.PublicKey) (*Own, error) {
	medium := &faultyReader{Reader: file}
	outer, payload, err := readOwn(file, medium)
	if medium.err != nil {
		return nil, fmt.Errorf("read the bundle: %w", medium.err)
	}
	if err == nil {
		_, err = outer.checkSignatures(Pins{Sender: sender})
	}
	if err != nil {
		return nil, control.ApprovalBundle.Refuse("this is not a bundle of this side: %w", err)
	}
	o := &Own{Digest: fingerprint.Of(outer.manifest), outer: outer, payload: payload}
	o.Manifest, err = ParseManifest(outer.manifest)
	return o, err
}

// readOwn reads the file by way of r, and passes over the payload.
func readOwn(file *io.SectionReader, r io.Reader) (*outer, *io.SectionReader, error) {
	t := tarReader{r, "the bundle"}
	o, err := readOuter(t)
	if err != nil {
		return nil, nil, err
	}
	start, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil, err
	}
	if _, err := file.Seek(start+o.payload, io.SeekStart); err != nil {
		return nil, nil, err
	}
	return o, io.NewSectionReader(file, start, o.payload), t.end(padding(o.payload) + trailer)
}

// Request is the manifest's bytes, which approvers sign.
func (o *Own) Request() []byte { return o.outer.manifest }

// Approvals lists who has approved: the signers behind the sender.
func (o *Own) Approvals() []sshsig.PublicKey {
	var keys []sshsig.PublicKey
	for _, s := range o.outer.signatures[1:] {
		keys = append(keys, s.Key)
	}
	return keys
}

// Approve attaches an approval, an armored signature of the manifest in
// [Namespace] by one of approvers, and returns its signer. The very signature
// that is attached already is no error, and again is true. KF-APPROVAL-SIGNATURE,
// -NAMESPACE, -SENDER, -SIGNER, -TWICE.
func (o *Own) Approve(armored []byte, approvers []sshsig.PublicKey) (signer sshsig.PublicKey, again bool, err error) {
	armored = unixLines(armored)
	s, err := ReadApproval(armored)
	if err != nil {
		return signer, false, err
	}
	listed := slices.ContainsFunc(approvers, s.Key.Equal)
	switch err := s.Verify(Namespace, o.outer.manifest); {
	case errors.Is(err, sshsig.ErrNamespace):
		return signer, false, control.ApprovalNamespace.Refuse("the approval was signed for the namespace %s, not for %s", control.Quote(s.Namespace), Namespace)
	case err != nil:
		return signer, false, control.ApprovalSignature.Refuse("the approval by %s does not count for this manifest: %w", s.Key.Fingerprint().SSH(), err)
	case s.Key.Equal(o.outer.signatures[0].Key) && !listed:
		return signer, false, control.ApprovalSender.Refuse("the key %s sealed the bundle and is not listed as an approver", s.Key.Fingerprint().SSH())
	case !listed:
		return signer, false, control.ApprovalSigner.Refuse("the key %s is not an approver of the security world", s.Key.Fingerprint().SSH())
	}
	i := slices.IndexFunc(o.outer.signatures, func(have *sshsig.Signature) bool { return have.Key.Equal(s.Key) })
	switch {
	case i >= 0 && bytes.Equal(o.outer.armored[i], armored):
		return s.Key, true, nil
	case i >= 0:
		return signer, false, control.ApprovalTwice.Refuse("the bundle has a signature by %s already", s.Key.Fingerprint().SSH())
	case len(o.outer.signatures) == maxSignatures:
		return signer, false, control.BundleSize.Refuse("the bundle has %d signatures, the most that it may have", maxSignatures).
			WithHint("begin with a copy that has no approvals, and attach no more than the security world asks for")
	}
	o.outer.insert(s, armored)
	return s.Key, false, nil
}

// ReadApproval reads an armored signature, with line ends of Windows too
// (KF-APPROVAL-SIGNATURE). Whether it approves a bundle is another question.
func ReadApproval(armored []byte) (*sshsig.Signature, error) {
	s, err := sshsig.Parse(unixLines(armored))
	if err != nil {
		return nil, control.ApprovalSignature.Refuse("the approval can't be read: %w", err)
	}
	return s, nil
}

// unixLines undoes what the way by Windows does to a signature.
func unixLines(armored []byte) []byte { return bytes.ReplaceAll(armored, []byte("\r\n"), []byte("\n")) }

// insert puts an approval in the place that its name has in the order.
func (o *outer) insert(s *sshsig.Signature, armored []byte) {
	at := 1
	for at < len(o.signatures) && o.signatures[at].Key.Fingerprint().Hex() < s.Key.Fingerprint().Hex() {
		at++
	}
	o.signatures = slices.Insert(o.signatures, at, s)
	o.armored = slices.Insert(o.armored, at, armored)
}

// Write writes the bundle with its approvals.
func (o *Own) Write(w io.Writer) error {
	t := tarWriter{w}
	if err := t.addBytes(manifestName, o.outer.manifest); err != nil {
		return err
	}
	for i, s := range o.outer.signatures {
		if err := t.addBytes(signatureName(s.Key.Fingerprint()), o.outer.armored[i]); err != nil {
			return err
		}
	}
	if _, err := o.payload.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return errors.Join(t.add(payloadName, o.payload.Size(), o.payload), t.close())
}
