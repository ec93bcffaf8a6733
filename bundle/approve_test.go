// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/sshsig"
)

func section(data []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data)))
}

func mustOwn(t *testing.T, data []byte) *Own {
	t.Helper()
	own, err := OpenOwn(section(data), public(t, sender))
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func written(t *testing.T, own *Own) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := own.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// In whatever order approvals come, the bundle is the same one, and it opens.
func TestApprove(t *testing.T) {
	plain := seal(t, letter(t))
	signers := inOrder(t, testSigner(11), testSigner(12), testSigner(13))
	want := withApprovals(t, plain, signers...)
	p := pins(t)
	p.Threshold = 3
	for _, s := range signers {
		p.Approvers = append(p.Approvers, public(t, s))
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		data := plain
		for _, i := range order {
			own := mustOwn(t, data)
			armored := approval(t, signers[i], own.outer.manifest).data
			signer, again, err := own.Approve(armored, p.Approvers)
			if err != nil || again || !signer.Equal(p.Approvers[i]) {
				t.Fatalf("signer %d: %v, %v", i, again, err)
			}
			data = written(t, own)
			if _, again, err := mustOwn(t, data).Approve(armored, p.Approvers); !again || err != nil {
				t.Errorf("once more: %v, %v", again, err)
			}
		}
		if !bytes.Equal(data, want) {
			t.Errorf("order %v: another bundle", order)
		}
	}
	if v := mustOpen(t, want, p); len(v.Approvals) != 3 {
		t.Errorf("%d approvals", len(v.Approvals))
	}
	if own := mustOwn(t, want); len(own.Approvals()) != 3 || own.Manifest.Sequence != 1 {
		t.Errorf("got %+v", own)
	}
}

func TestApproveRefuses(t *testing.T) {
	data := seal(t, letter(t))
	manifest := split(t, data)[0].data
	a := testSigner(11)
	sign := func(s crypto.Signer, namespace string, message []byte) []byte {
		armored, err := sshsig.Sign(s, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		return armored
	}
	for name, c := range map[string]struct {
		armored []byte
		listed  []crypto.Signer
		want    control.Control
	}{
		"no signature":             {[]byte("signed"), []crypto.Signer{a}, control.ApprovalSignature},
		"of another manifest":      {sign(a, Namespace, []byte("other")), []crypto.Signer{a}, control.ApprovalSignature},
		"for another purpose":      {sign(a, "file", manifest), []crypto.Signer{a}, control.ApprovalNamespace},
		"by a stranger":            {sign(stranger, Namespace, manifest), []crypto.Signer{a}, control.ApprovalSigner},
		"by a stranger, none list": {sign(stranger, Namespace, manifest), nil, control.ApprovalSigner},
		"by the sender":            {sign(sender, Namespace, manifest), []crypto.Signer{a}, control.ApprovalSender},
	} {
		own := mustOwn(t, data)
		var listed []sshsig.PublicKey
		for _, s := range c.listed {
			listed = append(listed, public(t, s))
		}
		if _, _, err := own.Approve(c.armored, listed); !control.Is(err, c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want.ID)
		}
		if !bytes.Equal(written(t, own), data) {
			t.Errorf("%s: the bundle was changed", name)
		}
	}
	// The listed sender's signature is there: nothing is to be attached.
	if _, again, err := mustOwn(t, data).Approve(split(t, data)[1].data, []sshsig.PublicKey{public(t, sender)}); !again || err != nil {
		t.Errorf("the listed sender: %v, %v", again, err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never signs the same bytes twice
	if err != nil {
		t.Fatal(err)
	}
	own := mustOwn(t, data)
	if _, _, err := own.Approve(sign(ec, Namespace, manifest), []sshsig.PublicKey{public(t, ec)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := own.Approve(sign(ec, Namespace, manifest), []sshsig.PublicKey{public(t, ec)}); !control.Is(err, control.ApprovalTwice) {
		t.Errorf("twice: got %v", err)
	}
	var many []crypto.Signer
	for i := range maxSignatures - 1 {
		many = append(many, testSigner(byte(100+i)))
	}
	full := mustOwn(t, withApprovals(t, data, inOrder(t, many...)...))
	if _, _, err := full.Approve(sign(a, Namespace, manifest), []sshsig.PublicKey{public(t, a)}); !control.Is(err, control.BundleSize) {
		t.Errorf("one too many: got %v", err)
	}
}

func TestOpenOwnRefuses(t *testing.T) {
	data := seal(t, letter(t))
	for name, c := range map[string]struct {
		data   []byte
		sender crypto.Signer
	}{
		"of another sender": {data, stranger},
		"cut":               {data[:len(data)-1], sender},
		"empty":             {nil, sender},
		"a bad approval": {join(t, func() []member {
			m := split(t, data)
			return []member{m[0], m[1], approval(t, stranger, []byte("another")), m[2]}
		}()), sender},
	} {
		if own, err := OpenOwn(section(c.data), public(t, c.sender)); !control.Is(err, control.ApprovalBundle) || own != nil {
			t.Errorf("%s: got %v, %v", name, own, err)
		}
	}
}
