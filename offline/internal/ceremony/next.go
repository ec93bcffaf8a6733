// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"cmp"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// Stand says by the ledger what comes next on this side, and what is carried to
// the other one. w is the pinned security world, nil if there is none yet; card is
// where this side's card lies. The KEK package in hand may be unknown to the ledger yet;
// without one kek is empty.
func Stand(s *state.State, j *Journal, w *trust.World, card, kek string) *cli.Standing {
	stand := &cli.Standing{}
	next := stand.Next
	stick := cmp.Or(j.Stick, "DIR")
	on := func(name string) string { return filepath.Join(stick, name) }
	if w == nil {
		there, note := on(filepath.Base(card)), ""
		if stand.Carry = []string{there}; j.Stick == "" {
			stand.Carry, note = []string{card}, "DIR is where the stick is"
		}
		next(note, "online", "trust", there)
		next("once the other side's packages are here", "offline", "trust", on("BYOK-SecurityWorld-pkg-REGION-1"))
		return stand
	}
	kek = cmp.Or(kek, j.KEKPackage(w))
	carry := func(command, id string, more ...string) []string {
		return append([]string{command, "--tpd-file-path", "TPD", "--key-identifier", id, "--exchange-key-package", kek}, more...)
	}

	// What was stopped goes first.
	for _, k := range j.Keys {
		switch k.Stage {
		case Begun:
			next(fmt.Sprintf("the import of %s was stopped, and is taken up with the same TPD", k.ID), "offline", carry("import", k.ID)...)
		case Wrapped:
			next(fmt.Sprintf("%s is still extractable in the token: the same wrap ends that", k.ID), "offline", carry("wrap", k.ID)...)
		}
	}

	// The bundle that waits for approvals.
	last := j.LastBundle()
	if last.HeldBack {
		request := on(dispatch.RequestName(s, last.Sequence))
		have := len(w.Who(ApproverKeys(j.Approvers(last))))
		if have < w.Threshold {
			stand.Carry = append(stand.Carry, request)
			note := fmt.Sprintf("%d of %d approvals are there. Each approver signs a copy, on a machine of their own", have, w.Threshold)
			attach := []string{"approve"}
			approved := w.Who(ApproverKeys(j.Approvers(last)))
			for i, a := range w.Approvers {
				if slices.ContainsFunc(approved, func(b trust.Approver) bool { return a.Key.Equal(b.Key) }) {
					continue
				}
				signed := on(fmt.Sprintf("approval-%d.json", i+1))
				stand.Steps = append(stand.Steps,
					cli.Step{By: a.Name, Note: note, Program: copies(), Words: []string{request, signed}},
					cli.Step{By: a.Name, Program: "ssh-keygen", Words: []string{"-Y", "sign", "-f", "KEY", "-n", bundle.Namespace, signed}})
				note = ""
				if len(attach) < 1+2*(w.Threshold-have) {
					attach = append(attach, "--signature", signed+".sig")
				}
			}
			next("then here, with the signatures that came back", "offline", attach...)
			next("once enough have approved", "offline", "seal", "--out", stick)
			return stand
		}
		next("", "offline", "seal", "--out", stick)
		return stand
	}

	// The outbox.
	if staged := j.At(Staged); len(staged) > 0 {
		next("in the outbox: "+strings.Join(staged, ", "), "offline", "seal", "--out", stick)
	}
	if len(stand.Steps) > 0 {
		return stand
	}

	// The bundles that are not answered, and what did not arrive.
	open, refused := map[uint64]bool{}, []string{}
	for _, k := range j.Keys {
		switch {
		case k.Stage == Returned:
			refused = append(refused, k.ID)
		case k.Stage == InBundle || k.Stage == Arrived && k.Tenant == "":
			open[k.Bundle] = true
		}
	}
	for _, b := range j.Bundles {
		if !open[b.Sequence] {
			continue
		}
		file := filepath.Join(cmp.Or(b.Out, stick), dispatch.FileName(s, b.Sequence))
		stand.Carry = append(stand.Carry, file)
		next("", "online", "verify", file)
		next("", "online", "upload", file)
	}
	if len(stand.Carry) > 0 {
		next("once the other side's receipt is here", "offline", "receipt", on(bundle.FileName(w.Name, lastReceipt(j)+1)))
	}
	for _, id := range refused {
		next(fmt.Sprintf("%s did not arrive: either a later receipt says that it has, or it is sent once more", id), "offline", carry("import", id, "--again", id)...)
	}
	switch {
	case len(stand.Steps) > 0:
	case len(j.Keys) == 0:
		next("", "offline", carry("import", "ID")...)
	default:
		next("all that was sent has arrived: a page for each key, to print and sign", "offline", "transcript", "--sheet", "html", "--out", fmt.Sprintf("sheet-%s-%d.html", s.Name, lastReceipt(j)))
		next("where there are more keys", "offline", carry("import", "ID")...)
	}
	return stand
}

// copies is the system's command that copies a file.
func copies() string {
	if runtime.GOOS == "windows" {
		return "copy"
	}
	return "cp"
}

// KEKPackage is where the KEK package is that keys are wrapped for: where it was read, else
// beside the security world.
func (j *Journal) KEKPackage(w *trust.World) string {
	return cmp.Or(j.Package, filepath.Join(j.Stick, "BYOK-KEK-pkg-"+w.Region+"-1"))
}

func lastReceipt(j *Journal) (sequence uint64) {
	for _, r := range j.Receipts {
		sequence = max(sequence, r.Sequence)
	}
	return sequence
}
