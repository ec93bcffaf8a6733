// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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

Where the security world asks for approvals, the bundle stays in the state
directory at first, and only a request leaves: keyferry-<name>-<number>.request.json,
the manifest that approvers read and sign. "offline approve" attaches their
signatures. Once there are enough, the same command writes the bundle.

  --out DIR            where to write the bundle, or the request
  --hsm-pin-file PATH  the HSM's PIN, where it signs (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH
                       the secret of its administrator, of an HSM that wants it
                       (or --hsm-so-pin-fd N)

Example: offline seal --out /media/stick
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o sealOptions
		flags.StringVar(&o.out, "out", "", "")
		o.secrets = addTokenSecrets(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(io.NoArguments(args), cli.Require(flags, "out")); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return o.run(ctx, io, s) })
		}
	},
}

type sealOptions struct {
	out     string
	secrets tokenSecrets
	token   *hsm.Token // open already, in an import
}

func (o *sealOptions) run(ctx context.Context, io *cli.IO, s *state.State) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	w, _, err := pinnedWorld(s)
	if err != nil {
		return err
	}
	if err := clearOutbox(s, h.InBundles()); err != nil { // an earlier run may have been stopped before it did
		return err
	}
	io.WarnOfNewDir(o.out)
	all := h.At(ceremony.Staged)
	last := h.LastBundle()
	if last.HeldBack {
		if len(all) > 0 {
			io.Warn("bundle %d goes first; in the next one: %s", last.Sequence, strings.Join(all, ", "))
		}
		return o.again(io, s, w, last)
	}
	staged, err := fitting(s, all)
	if err != nil {
		return err
	}
	if len(staged) == 0 {
		// A key on its way into the outbox is meant, not the last bundle.
		if stopped := h.At(ceremony.Begun, ceremony.Wrapped); len(stopped) > 0 {
			return control.BundleEmpty.Refuse("no key is staged, and %s is not done (%s)", stopped[0], h.Key(stopped[0]).Stage).
				WithHint("run the command that was stopped again: offline import, or offline wrap")
		}
		if last.Sequence == 0 {
			return control.BundleEmpty.Refuse("no key is staged")
		}
		return o.again(io, s, w, last)
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	path, done, err := dispatch.Dispatch[ceremony.Sealed]{
		State: s, Out: o.out, Sequence: last.Sequence + 1, Event: ceremony.EventSealed, Withhold: w.Threshold > 0,
		Letter: func() (bundle.Letter, func() error, error) { return o.letter(ctx, io, s, h, staged) },
		Record: func(b *bundle.Sealed) ceremony.Sealed {
			return ceremony.Sealed{Bundle: b.Manifest.ID, Sequence: b.Manifest.Sequence, Manifest: b.Digest, Keys: staged, HeldBack: w.Threshold > 0, Out: out}
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
	return o.report(io, s, w, path, done, nil, false)
}

// again hands out the last bundle, from the copy in the state directory: one that
// was held back until it was approved, or one whose stick is lost. It never leaves
// with fewer approvals than the security world asks for; the request does.
func (o *sealOptions) again(io *cli.IO, s *state.State, w *trust.World, last ceremony.Sealed) error {
	self, err := ownKey(s)
	if err != nil {
		return err
	}
	var approved []trust.Approver
	err = dispatch.Kept(s, last.Sequence, self, func(own *bundle.Own) error {
		approved = w.Who(own.Approvals())
		return nil
	})
	if err != nil {
		return err
	}
	if len(approved) < w.Threshold {
		path, err := dispatch.DeliverRequest(s, last.Sequence, o.out)
		if err != nil {
			return err
		}
		last.HeldBack = true
		return o.report(io, s, w, path, last, approved, true)
	}
	path, err := dispatch.Deliver(s, last.Sequence, o.out)
	if err != nil {
		return err
	}
	if last.HeldBack {
		if err := s.Ledger.Append(time.Now(), ceremony.EventReleased, ceremony.Released{Manifest: last.Manifest, Approved: approved}); err != nil {
			return err
		}
		last.HeldBack = false
	}
	return o.report(io, s, w, path, last, approved, true)
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
	l.Signer, release, err = settings.signer(ctx, io, s, o.secrets, o.token)
	if err == nil && settings.Signer == signerHSM { // this key is not always at hand
		if err := s.SignHead(l.Signer); err != nil {
			return l, nil, errors.Join(err, release())
		}
	}
	return l, release, err
}

// report says what was sealed, and what has left.
func (o *sealOptions) report(io *cli.IO, s *state.State, w *trust.World, path string, done ceremony.Sealed, approved []trust.Approver, again bool) error {
	doc := map[string]any{
		"id": done.Bundle, "sequence": done.Sequence, "manifest": done.Manifest, "keys": done.Keys, "held_back": done.HeldBack,
		"threshold": w.Threshold, "approved_by": append([]trust.Approver{}, approved...), "again": again,
	}
	keys := strings.Join(done.Keys, ", ")
	var lines []string
	switch {
	case done.HeldBack:
		doc["request"] = path
		lines = []string{fmt.Sprintf("Request for approvals: %s, for the bundle with %s, which stays here until enough have approved it", path, keys)}
	case again:
		doc["bundle"] = path
		lines = []string{fmt.Sprintf("Sealed before, and written now: %s, with %s", path, keys)}
	default:
		doc["bundle"] = path
		lines = []string{fmt.Sprintf("Sealed: %s, with %s", path, keys)}
	}
	lines = append(lines, "The manifest's fingerprint:", done.Manifest.Spoken())
	for _, a := range approved {
		lines = append(lines, "Approved by "+a.String())
	}
	if done.HeldBack {
		lines = append(lines, w.ApprovalRule())
	}
	return result(io, s, doc, strings.Join(append(lines, "The copy was read back and compared. The stick may be pulled."), "\n"))
}
