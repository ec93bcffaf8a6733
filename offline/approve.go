// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var approveCommand = cli.Command{
	Name:    "approve",
	Summary: "attach an approver's signature to a sealed bundle",
	Usage: `
Usage: offline approve BUNDLE --signature FILE

Attaches an approval to a bundle that this side sealed: to the copy in the state
directory, which counts, then to the one on the stick. Each approver whom the
security world lists counts once; "online verify" wants enough of them.

An approver reads what is to be approved, and signs it, with OpenSSH alone, on a
machine of their own, with any key that "online init --approver" named:

  tar xf BUNDLE manifest.json
  ssh-keygen -Y sign -f KEY -n keyferry-bundle-v2 manifest.json

which writes manifest.json.sig. The fingerprint to compare with what "offline
seal" showed is that of the file: sha256sum manifest.json

  --signature FILE   what ssh-keygen wrote

Example: offline approve /media/stick/keyferry-vault-room-1.kfb --signature manifest.json.sig
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		signature := flags.String("signature", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err := errors.Join(err, cli.Require(flags, "signature")); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return approve(io, s, path, *signature) })
		}
	},
}

func approve(io *cli.IO, s *state.State, path, signature string) error {
	w, _, err := pinnedWorld(s)
	if err != nil {
		return err
	}
	self, err := ownKey(s)
	if err != nil {
		return err
	}
	armored, err := cli.ReadInput(signature)
	if err != nil {
		return err
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	b, err := sealedAt(s, h, path, self)
	if err != nil {
		return err
	}
	a := dispatch.Approval{State: s, Path: path, Sequence: b.Sequence, Sender: self}
	signer, all, err := a.Attach(armored, w.ApproverKeys())
	if err != nil {
		return err
	}
	if err := recordApproval(s, h, ceremony.Approved{Manifest: b.Manifest, Approver: w.Who([]sshsig.PublicKey{signer})[0], Signature: fingerprint.Of(armored)}); err != nil {
		return err
	}
	if err := a.Deliver(); err != nil {
		return err
	}
	return reportApprovals(io, w, path, b, w.Who(all))
}

// sealedAt finds in the ledger the bundle that lies at path, by its manifest. Where
// the stick has lost it, its name will do: the copy in sent/ counts anyway.
func sealedAt(s *state.State, h *ceremony.Journal, path string, self sshsig.PublicKey) (ceremony.Sealed, error) {
	digest, err := dispatch.Digest(path, self)
	is := func(b ceremony.Sealed) bool { return b.Manifest == digest }
	if _, noDir := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) && noDir == nil {
		is = func(b ceremony.Sealed) bool { return dispatch.FileName(s, b.Sequence) == filepath.Base(path) }
	} else if err != nil {
		return ceremony.Sealed{}, err
	}
	i := slices.IndexFunc(h.Bundles, is)
	switch {
	case i >= 0:
		return h.Bundles[i], nil
	case err != nil:
		return ceremony.Sealed{}, err
	}
	return ceremony.Sealed{}, control.ApprovalBundle.Refuse("the ledger does not know a bundle with the manifest %s", digest)
}

// recordApproval tells the ledger, unless a run that was stopped has.
func recordApproval(s *state.State, h *ceremony.Journal, a ceremony.Approved) error {
	if slices.ContainsFunc(h.Approvals[a.Manifest], func(known ceremony.Approval) bool { return known.By.Key.Equal(a.Approver.Key) }) {
		return nil
	}
	return s.Ledger.Append(time.Now(), ceremony.EventApproved, a)
}

func reportApprovals(io *cli.IO, w *trust.World, path string, b ceremony.Sealed, who []trust.Approver) error {
	lines := []string{fmt.Sprintf("Bundle %d: %s", b.Sequence, path)}
	for _, a := range who {
		lines = append(lines, "Approved by "+a.String())
	}
	lines = append(lines, fmt.Sprintf("Approvals: %d of the %d that the security world asks for", len(who), w.Threshold),
		"The copy was read back and compared. The stick may be pulled.")
	doc := map[string]any{"bundle": path, "sequence": b.Sequence, "manifest": b.Manifest, "approved_by": who, "threshold": w.Threshold}
	return io.Result(doc, strings.Join(lines, "\n"))
}
