// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var sealCommand = cli.Command{
	Name:    "seal",
	Summary: "seal the outbox into one bundle on the stick",
	Usage: `
Usage: offline seal --out DIR [flags]

Seals all staged keys into the bundle keyferry-<name>-<number>.kfb in DIR:
signed by this side, encrypted to the pinned connected side. The copy on the
stick is read back and compared. The outbox is empty afterwards; a copy of the
bundle stays in the state directory. Where nothing is staged, the last bundle is
written once more, byte for byte.

  --out DIR            where to write the bundle
  --hsm-pin-file PATH  the HSM's PIN, where it signs (or --hsm-pin-fd N)

Example: offline seal --out /media/stick
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o sealOptions
		flags.StringVar(&o.out, "out", "", "")
		o.pin = cli.AddSecretFlags(flags, "hsm-pin", "PIN", false)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(cli.NoArguments(args), cli.Require(flags, "out")); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return o.run(ctx, io, s) })
		}
	},
}

type sealOptions struct {
	out   string
	pin   *cli.SecretFlags
	token *hsm.Token // open already, in an import
}

func (o *sealOptions) run(ctx context.Context, io *cli.IO, s *state.State) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	if err := clearOutbox(s, h.InBundles()); err != nil { // an earlier run may have been stopped before it did
		return err
	}
	io.WarnOfNewDir(o.out)
	all := h.At(ceremony.Staged)
	staged, err := fitting(s, all)
	if err != nil {
		return err
	}
	if len(staged) == 0 {
		return o.again(io, s, h)
	}
	path, done, err := dispatch.Dispatch[ceremony.Sealed]{
		State: s, Out: o.out, Sequence: h.LastBundle().Sequence + 1, Event: ceremony.EventSealed,
		Letter: func() (bundle.Letter, func() error, error) { return o.letter(ctx, io, s, h, staged) },
		Record: func(b *bundle.Sealed) ceremony.Sealed {
			return ceremony.Sealed{Bundle: b.Manifest.ID, Sequence: b.Manifest.Sequence, Manifest: b.Digest, Keys: staged}
		},
	}.Send()
	if err != nil {
		return err
	}
	if err := clearOutbox(s, done.Keys); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(done.Keys, id) })
	if len(left) > 0 { // it had no room, or was sealed before they were staged by a run that was stopped
		io.Warn("not in this bundle: %s; run offline seal again", strings.Join(left, ", "))
	}
	return o.report(io, s, path, done, nil)
}

// again writes the last bundle once more, from the copy in the state directory:
// sticks are lost. It does not where a key is on its way into the outbox: that one
// is what was meant.
func (o *sealOptions) again(io *cli.IO, s *state.State, h *ceremony.Journal) error {
	for _, k := range h.Keys {
		if k.Stage == ceremony.Begun || k.Stage == ceremony.Wrapped {
			return control.BundleEmpty.Refuse("no key is staged, and %s is not done (%s)", k.ID, k.Stage).
				WithHint("run the command that was stopped again: offline import, or offline wrap")
		}
	}
	last := h.LastBundle()
	if last.Sequence == 0 {
		return control.BundleEmpty.Refuse("no key is staged")
	}
	path, err := dispatch.Deliver(s, last.Sequence, o.out)
	if err != nil {
		return err
	}
	return o.report(io, s, path, last, h.Approvers(last))
}

// letter gathers what is sealed. release lets the signing key go.
func (o *sealOptions) letter(ctx context.Context, io *cli.IO, s *state.State, h *ceremony.Journal, staged []string) (l bundle.Letter, release func() error, err error) {
	w, _, err := pinnedWorld(s)
	if err != nil {
		return l, nil, err
	}
	recipient, err := w.AgeRecipient()
	if err != nil {
		return l, nil, err
	}
	last := h.LastBundle()
	l = bundle.Letter{
		Purpose: bundle.KeyTransfer, Sender: s.Name, Receiver: w.Signer.Fingerprint(), Recipient: recipient,
		Sequence: last.Sequence + 1, Previous: last.Manifest, Rehearsal: s.Rehearsal, Created: time.Now(),
		Files: []bundle.Content{bundle.Bytes(bundle.TranscriptName, s.Ledger.Lines())},
	}
	for _, id := range staged {
		k, err := stagedKey(s, id)
		if err != nil {
			return l, nil, err
		}
		l.Keys = append(l.Keys, k)
	}
	settings, err := readTokenSettings(s)
	if err != nil {
		return l, nil, err
	}
	l.Signer, release, err = settings.signer(ctx, io, s, o.pin, o.token)
	if err == nil && settings.Signer == signerHSM { // this key is not always at hand
		if err := s.SignHead(l.Signer); err != nil {
			return l, nil, errors.Join(err, release())
		}
	}
	return l, release, err
}

// report says what was sealed. approved, not nil, are those who have approved
// what was sealed before.
func (o *sealOptions) report(io *cli.IO, s *state.State, path string, done ceremony.Sealed, approved []trust.Approver) error {
	w, _, err := pinnedWorld(s)
	if err != nil {
		return err
	}
	doc := map[string]any{
		"bundle": path, "id": done.Bundle, "sequence": done.Sequence, "manifest": done.Manifest, "keys": done.Keys,
		"threshold": w.Threshold, "again": approved != nil,
	}
	what := "Sealed"
	if approved != nil {
		what = "Sealed before, and written again"
	}
	lines := []string{
		fmt.Sprintf("%s: %s, with %s", what, path, strings.Join(done.Keys, ", ")),
		"The manifest's fingerprint:", done.Manifest.Spoken(),
	}
	for _, a := range approved {
		lines = append(lines, "Approved by "+a.String())
	}
	if len(approved) < w.Threshold {
		lines = append(lines, w.ApprovalRule(), "Next: offline approve, for each of them who has not yet")
	}
	return io.Result(doc, strings.Join(append(lines, "The copy was read back and compared. The stick may be pulled."), "\n"))
}
