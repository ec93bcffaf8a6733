// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// ApproveResult is what approvals are asked for, and who has given one by now.
type ApproveResult struct {
	Sealed
	Request  bundle.Manifest
	Approved []trust.Approver
	World    *trust.World
}

// Approve attaches signatures to the last bundle. The request, where one is given, must
// be the one for it.
func Approve(s *state.State, request string, signatures []string) (*ApproveResult, error) {
	w, _, err := PinnedWorld(s)
	if err != nil {
		return nil, err
	}
	self, err := OwnKey(s)
	if err != nil {
		return nil, err
	}
	j, err := ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	b := j.LastBundle()
	if b.Sequence == 0 {
		return nil, control.ApprovalBundle.Refuse("no bundle was sealed yet")
	}
	var m bundle.Manifest
	var asked []byte
	var all []sshsig.PublicKey
	err = dispatch.Kept(s, b.Sequence, self, func(own *bundle.Own) error {
		m, asked, all = own.Manifest, own.Request(), own.Approvals()
		if own.Digest != b.Manifest {
			return control.StateDamaged.Refuse("the sealed bundle %d is not the one that the ledger knows", b.Sequence)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if request != "" {
		file, err := cli.ReadInput(request)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(file, asked) {
			err := control.ApprovalBundle.Refuse("%s is not the request for bundle %d", control.Quote(request), b.Sequence)
			return nil, filetype.Explain(err, file, filetype.Request)
		}
	}

	var armored [][]byte
	for _, path := range signatures {
		file, err := cli.ReadInput(path)
		if err != nil {
			return nil, err
		}
		if _, err := bundle.ReadApproval(file); err != nil {
			return nil, filetype.Explain(control.About(control.Quote(path), err), file, filetype.Signature)
		}
		armored = append(armored, file)
	}
	if len(armored) > 0 {
		var signers []sshsig.PublicKey
		if signers, all, err = dispatch.Attach(s, b.Sequence, self, armored, w.ApproverKeys()); err != nil {
			return nil, err
		}
		for i, signer := range signers {
			known := slices.ContainsFunc(j.Approvals[b.Manifest], func(known Approval) bool { return known.By.Key.Equal(signer) })
			if known { // a run that was stopped has told the ledger
				continue
			}
			record := Approved{Manifest: b.Manifest, Approver: w.Who([]sshsig.PublicKey{signer})[0], Signature: fingerprint.Of(armored[i])}
			if err := s.Ledger.Append(time.Now(), EventApproved, record); err != nil {
				return nil, err
			}
		}
	}
	return &ApproveResult{Sealed: b, Request: m, Approved: w.Who(all), World: w}, nil
}
