// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// SealRequest says where the bundle goes.
type SealRequest struct {
	Out string // directory on the stick
	Access
	Token *hsm.Token // open already, in an import; else nil
}

// SealResult is the bundle that was sealed, or the request for approvals of it.
type SealResult struct {
	Sealed
	Path     string           // on the stick
	Again    bool             // it was sealed before, and is written once more
	Approved []trust.Approver // who has approved it by now
	World    *trust.World
}

// Seal seals the staged keys into one bundle, and copies it to the stick, or the request
// for approvals where the security world asks for them. Where nothing is staged it writes
// the last bundle once more: sticks are lost.
func Seal(ctx context.Context, io *cli.IO, s *state.State, r SealRequest) (*SealResult, error) {
	j, err := ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	w, _, err := PinnedWorld(s)
	if err != nil {
		return nil, err
	}
	if err := clearOutbox(s, j.InBundles()); err != nil { // an earlier run may have been stopped before it did
		return nil, err
	}
	io.WarnOfNewDir(r.Out)
	all := j.At(Staged)
	last := j.LastBundle()
	if last.HeldBack {
		if len(all) > 0 {
			io.Warn("bundle %d goes first; in the next one: %s", last.Sequence, strings.Join(all, ", "))
		}
		return r.again(s, w, last)
	}
	staged, err := fitting(s, all)
	if err != nil {
		return nil, err
	}
	if len(staged) == 0 {
		// A key on its way into the outbox is meant, not the last bundle.
		if stopped := j.At(Begun, Wrapped); len(stopped) > 0 {
			return nil, control.BundleEmpty.Refuse("no key is staged, and %s is not done (%s)", stopped[0], j.Key(stopped[0]).Stage).
				WithHint("`offline next` shows the command that was stopped: run it again")
		}
		if last.Sequence == 0 {
			return nil, control.BundleEmpty.Refuse("no key is staged")
		}
		return r.again(s, w, last)
	}
	out, err := filepath.Abs(r.Out)
	if err != nil {
		return nil, err
	}
	path, done, err := dispatch.Dispatch[Sealed]{
		State: s, Out: r.Out, Sequence: last.Sequence + 1, Event: EventSealed, Withhold: w.Threshold > 0,
		Letter: func() (bundle.Letter, func() error, error) { return r.letter(ctx, io, s, j, staged) },
		Record: func(b *bundle.Sealed) Sealed {
			return Sealed{Bundle: b.Manifest.ID, Sequence: b.Manifest.Sequence, Manifest: b.Digest, Keys: staged, HeldBack: w.Threshold > 0, Out: out}
		},
	}.Send()
	if err != nil {
		return nil, err
	}
	if err := clearOutbox(s, done.Keys); err != nil {
		return nil, err
	}
	left := slices.DeleteFunc(slices.Clone(all), func(id string) bool { return slices.Contains(done.Keys, id) })
	if len(left) > 0 { // it had no room, or was sealed before they were staged by a run that was stopped
		io.Warn("not in this bundle: %s; `offline seal` again makes the next one", strings.Join(left, ", "))
	}
	return &SealResult{Sealed: done, Path: path, World: w}, nil
}

// again hands out the last bundle, from the copy in the state directory: one that
// was held back until it was approved, or one whose stick is lost. It never leaves
// with fewer approvals than the security world asks for; the request does.
func (r SealRequest) again(s *state.State, w *trust.World, last Sealed) (*SealResult, error) {
	self, err := OwnKey(s)
	if err != nil {
		return nil, err
	}
	var approved []trust.Approver
	err = dispatch.Kept(s, last.Sequence, self, func(own *bundle.Own) error {
		approved = w.Who(own.Approvals())
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(approved) < w.Threshold {
		path, err := dispatch.DeliverRequest(s, last.Sequence, r.Out)
		if err != nil {
			return nil, err
		}
		last.HeldBack = true
		return &SealResult{Sealed: last, Path: path, Again: true, Approved: approved, World: w}, nil
	}
	path, err := dispatch.Deliver(s, last.Sequence, r.Out)
	if err != nil {
		return nil, err
	}
	if last.HeldBack {
		if err := s.Ledger.Append(time.Now(), EventReleased, Released{Manifest: last.Manifest, Approved: approved}); err != nil {
			return nil, err
		}
		last.HeldBack = false
	}
	return &SealResult{Sealed: last, Path: path, Again: true, Approved: approved, World: w}, nil
}

// letter gathers what is sealed. release lets the signing key go.
func (r SealRequest) letter(ctx context.Context, io *cli.IO, s *state.State, j *Journal, staged []string) (l bundle.Letter, release func() error, err error) {
	w, _, err := PinnedWorld(s)
	if err != nil {
		return l, nil, err
	}
	recipient, err := w.AgeRecipient()
	if err != nil {
		return l, nil, err
	}
	last := j.LastBundle()
	l = bundle.Letter{
		Purpose: bundle.KeyTransfer, Sender: s.Name, Receiver: w.Signer.Fingerprint(), Recipient: recipient,
		Sequence: last.Sequence + 1, Previous: last.Manifest, Rehearsal: s.Rehearsal, Created: time.Now(),
		Files: []bundle.Content{{Path: bundle.TranscriptName, Data: s.Ledger.Lines()}},
	}
	for _, id := range staged {
		k, err := stagedKey(s, id)
		if err != nil {
			return l, nil, err
		}
		l.Keys = append(l.Keys, k)
	}
	settings, err := ReadTokenSettings(s)
	if err != nil {
		return l, nil, err
	}
	l.Signer, release, err = settings.signer(ctx, io, s, r.Access, r.Token)
	if err == nil && settings.Signer == SignerHSM { // this key is not always at hand
		if err := s.SignHead(l.Signer); err != nil {
			return l, nil, errors.Join(err, release())
		}
	}
	return l, release, err
}
