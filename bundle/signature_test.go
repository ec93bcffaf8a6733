// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/sshsig"
)

func TestSignersOfEachKind(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	for _, signer := range []crypto.Signer{sender, ec, r} {
		l, p := letter(t), pins(t)
		l.Signer, p.Sender = signer, public(t, signer)
		same(t, mustOpen(t, seal(t, l), p), l)
	}
}

// Each test changes the members of a good bundle; the manifest stays.
func TestSignature(t *testing.T) {
	sign := func(s crypto.Signer, namespace string, message []byte) []byte {
		armored, err := sshsig.Sign(s, namespace, message)
		if err != nil {
			t.Fatal(err)
		}
		return armored
	}
	own := signatureName(public(t, sender).Fingerprint())
	for _, test := range []struct {
		name   string
		change func(m []member) []member // manifest, signature, payload
		want   control.Control
	}{
		{"none", func(m []member) []member { return []member{m[0], m[2]} }, control.BundleSignature},
		{"by a stranger", func(m []member) []member { m[1] = approval(t, stranger, m[0].data); return m }, control.BundleSender},
		{"by a stranger in front", func(m []member) []member { return []member{m[0], approval(t, stranger, m[0].data), m[1], m[2]} }, control.BundleSender},
		{"of another manifest", func(m []member) []member { m[1] = approval(t, sender, append(m[0].data, ' ')); return m }, control.BundleSignature},
		{"for another purpose", func(m []member) []member { m[1].data = sign(sender, "keyferry-package-v1", m[0].data); return m }, control.BundleSignature},
		{"named after another key", func(m []member) []member { m[1].name = approval(t, stranger, nil).name; return m }, control.BundleSignature},
		{"by another key than its name", func(m []member) []member { m[1] = member{own, sign(stranger, Namespace, m[0].data)}; return m }, control.BundleSignature},
		{"in upper case", func(m []member) []member {
			m[1].name = signaturesDir + strings.ToUpper(m[1].name[11:75]) + ".sig"
			return m
		}, control.BundleSignature},
		{"no signature", func(m []member) []member { m[1].data = []byte("signed"); return m }, control.BundleSignature},
		{"empty", func(m []member) []member { m[1].data = nil; return m }, control.BundleSignature},
		{"two in one", func(m []member) []member { m[1].data = append(m[1].data, m[1].data...); return m }, control.BundleSignature},
		{"with Windows line ends", func(m []member) []member {
			m[1].data = bytes.ReplaceAll(m[1].data, []byte("\n"), []byte("\r\n"))
			return m
		}, control.BundleSignature},
		{"too large", func(m []member) []member { m[1].data = make([]byte, maxSignature+1); return m }, control.BundleSize},
		{"twice", func(m []member) []member { return []member{m[0], m[1], m[1], m[2]} }, control.BundleSignature},
		{"in a deeper folder", func(m []member) []member { m[1].name = signaturesDir + "x/" + m[1].name[11:]; return m }, control.BundleSignature},
		{"of another manifest, as an approval", func(m []member) []member {
			return []member{m[0], m[1], approval(t, stranger, []byte("another")), m[2]}
		}, control.BundleSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := open(t, forge(t, letter(t), forgery{outer: test.change}), pins(t))
			refused(t, v, err, test.want)
		})
	}
}

func TestApprovals(t *testing.T) {
	approvers := inOrder(t, testSigner(11), testSigner(12), testSigner(13))
	a, b, c := approvers[0], approvers[1], approvers[2]
	type signers = []crypto.Signer
	for _, test := range []struct {
		name      string
		by        signers
		listed    signers
		threshold int
		want      control.Control // none: it opens
		count     int
	}{
		{"none asked for, none given", nil, signers{a, b}, 0, control.Control{}, 0},
		{"none asked for, one given", signers{a}, signers{a, b}, 0, control.Control{}, 1},
		{"one asked for, none given", nil, signers{a, b}, 1, control.BundleApproval, 0},
		{"one asked for, one given", signers{b}, signers{a, b}, 1, control.Control{}, 1},
		{"one asked for, a stranger's given", signers{c}, signers{a, b}, 1, control.BundleApproval, 0},
		{"two asked for, one given", signers{a}, signers{a, b, c}, 2, control.BundleApproval, 0},
		{"two asked for, one and a stranger's given", signers{a, c}, signers{a, b}, 2, control.BundleApproval, 0},
		{"two asked for, two given", signers{a, c}, signers{a, b, c}, 2, control.Control{}, 2},
		{"two asked for, two and a stranger's given", signers{a, b, c}, signers{a, c}, 2, control.Control{}, 2},
		{"three given", signers{a, b, c}, signers{a, b, c}, 2, control.Control{}, 3},
		{"the sender does not count", nil, signers{a, b}, 1, control.BundleApproval, 0},
		{"the sender counts when listed", nil, signers{a, sender}, 1, control.Control{}, 1},
		{"the listed sender counts once", nil, signers{a, sender}, 2, control.BundleApproval, 0},
		{"an approver who is listed twice counts once", signers{a}, signers{a, a}, 2, control.BundleApproval, 0},
		{"not in order", signers{c, a}, signers{a, b, c}, 2, control.BundleSignature, 0},
		{"not in order, and not asked for", signers{c, a}, nil, 0, control.BundleSignature, 0},
		{"one twice", signers{a, a}, signers{a, b}, 2, control.BundleSignature, 0},
		{"the sender once more", signers{sender}, signers{sender}, 2, control.BundleSignature, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pins(t)
			p.Threshold = test.threshold
			for _, s := range test.listed {
				p.Approvers = append(p.Approvers, public(t, s))
			}
			v, err := open(t, withApprovals(t, seal(t, letter(t)), test.by...), p)
			if test.want.ID != "" {
				refused(t, v, err, test.want)
				return
			}
			if err != nil || len(v.Approvals) != test.count {
				t.Errorf("%v, error %v, want %d approvals", v, err, test.count)
			}
		})
	}
}

func TestManyApprovals(t *testing.T) {
	data := seal(t, letter(t))
	for count, want := range map[int]control.Control{maxSignatures - 1: {}, maxSignatures: control.BundleSize} {
		var signers []crypto.Signer
		for i := range count {
			signers = append(signers, testSigner(byte(100+i)))
		}
		v, err := open(t, withApprovals(t, data, inOrder(t, signers...)...), pins(t))
		if want.ID != "" {
			refused(t, v, err, want)
		} else if err != nil {
			t.Errorf("%d approvals: %v", count, err)
		}
	}
}
