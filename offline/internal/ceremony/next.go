// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"cmp"
	"fmt"
	"path/filepath"
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
		stand.Carry = []string{card}
		next("", "online", "trust", card)
		next("once the other side's packages are here", "offline", "trust", "BYOK-SecurityWorld-pkg-REGION-1")
		return stand
	}
	kek = cmp.Or(kek, j.Package, on("BYOK-KEK-pkg-"+w.Region+"-1"))
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
			next(fmt.Sprintf("%d of %d approvals are there. Each approver signs the request on a machine of their own:\nssh-keygen -Y sign -f KEY -n %s %s", have, w.Threshold, bundle.Namespace, cli.Quote(filepath.Base(request))),
				"offline", "approve", "--signature", request+".sig")
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
		next("all that was sent has arrived: a page for each key, to print and sign", "offline", "transcript", "--sheet", "html")
		next("where there are more keys", "offline", carry("import", "ID")...)
	}
	return stand
}

func lastReceipt(j *Journal) (sequence uint64) {
	for _, r := range j.Receipts {
		sequence = max(sequence, r.Sequence)
	}
	return sequence
}
