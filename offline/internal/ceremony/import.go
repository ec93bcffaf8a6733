// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// incoming is a key on its way into the token.
type incoming struct {
	*export
	resume bool      // the token may have it, from an earlier run
	kept   *hsm.Kept // the key in the token, once it is there
}

// Import takes keys out of TPD exports into the HSM, has them wrapped for the
// vault's KEK, and puts them into the outbox. Nothing is changed before
// everything was checked; the ledger knows of a change before the token does, so
// that a run that is killed is taken up by the same command.
func Import(ctx context.Context, io *cli.IO, s *state.State, r ImportRequest) (result *CarryResult, err error) {
	// The program computes rightly, no network is near, and the packages are those of
	// the pinned security world.
	c, err := r.begin(io, s)
	if err != nil {
		return nil, err
	}

	// The TPDs are read, opened, and pass every check. A key of 1024 bits, which no
	// cloud HSM takes, stays in its TPD by leave, which travels as it is: no token has
	// a part in it, and the connected side, the tenant and Microsoft see the key.
	exports, err := r.read(ctx, io, func(e *export, file []byte) (err error) {
		if e.withKey, err = e.domain.Checked(r.terms()); err == nil {
			e.Identity = e.withKey.Identity
			return r.takeKeyAway(e)
		}
		if r.MicrosoftManaged && control.Is(err, control.TPDMode1) {
			checked, err := e.domain.CheckedMicrosoftManaged(r.terms())
			if err == nil {
				e.Identity, e.managed, e.leaves = checked.Identity, true, file
			}
			return err
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer clearAll(exports)

	// What an earlier run of the same command has done is left out.
	result = &CarryResult{}
	var todo []*incoming
	for _, e := range exports {
		k := c.journal.Key(e.id)
		again := slices.Contains(r.Again, e.id)
		switch {
		case k == nil:
			todo = append(todo, &incoming{export: e})
		case k.Key != e.fingerprint:
			return nil, control.ImportExists.Refuse("the key identifier %s is taken by an earlier import (%s)", e.id, k.Stage)
		case k.Stage == Begun, again && (k.Stage == Staged || k.Stage == InBundle || k.Stage == Returned):
			todo = append(todo, &incoming{export: e, resume: true})
		case again:
			return nil, control.ImportExists.Refuse("the key %s can't be carried again: it is %s", e.id, k.Stage)
		case k.Stage == Wrapped:
			return nil, control.ImportExists.Refuse("the key identifier %s is taken by an earlier wrap (%s)", e.id, k.Stage)
		case k.KEK != c.kek.KID() && !e.managed:
			return nil, control.ImportExists.Refuse("an earlier import has wrapped the key %s for another KEK (%s)", e.id, k.Stage).
				WithHint("if it has not arrived, wrap it for this one with --again %s", e.id)
		default:
			c.done(result, k)
		}
	}
	carry := make([]*export, len(todo))
	for i, in := range todo {
		carry[i] = in.export
	}
	if err := c.check(carry); err != nil {
		return nil, err
	}

	// The token has room for them under their names, and is proven to wrap.
	var token *hsm.Token
	var wrap *hsm.ProvenWrap // nil: software wraps
	var verdicts []hsm.Verdict
	keeps := false // the token keeps all it is given
	if slices.ContainsFunc(carry, func(e *export) bool { return !e.managed }) {
		if token, err = openToken(ctx, io, s, r.Access); err != nil {
			return nil, err
		}
		defer func() { SignHead(io, s, token); err = errors.Join(err, token.Close()) }()
		for _, in := range todo {
			if in.managed {
				continue
			}
			if err := token.CheckFree(in.id, in.Public(), in.resume); err != nil {
				return nil, err
			}
		}
		if wrap, verdicts, err = chooseWrap(io, token, r.Wrap, IsPractice(s)); err != nil {
			return nil, err
		}
		if keeps, err = token.Keeps(); err != nil {
			return nil, err
		}
		if r.DryRun && (keeps || r.TryStore) {
			if err := tryStored(io, token, r.TryStore); err != nil {
				return nil, err
			}
		}
	}

	wrapped := func(in *incoming, key *hsm.ProvenKey) (err error) {
		if wrap != nil {
			c.recordWrap(in.export, token.Info(), bundle.WrappedByToken, wrap.Mechanism(), verdicts)
			in.ciphertext, err = wrap.Wrap(key, c.kek.Public())
			return err
		}
		c.recordWrap(in.export, token.Info(), bundle.WrappedBySoftware, SoftwareWrap, verdicts)
		in.record.Warnings = append(in.record.Warnings, control.HSMWrapUnproven.ID)
		in.ciphertext, err = byok.Wrap(rand.Reader, in.withKey.Key(), c.kek.Public())
		return err
	}
	begin := func(in *incoming) error {
		if err := c.first(in.export); err != nil || in.resume {
			return err
		}
		return s.Ledger.Append(time.Now(), EventImportBegun, ImportBegun{ID: in.id, Key: in.fingerprint})
	}
	// takeBack undoes what was begun, after a failure. If something of the key may be
	// left in the token, it stays begun.
	takeBack := func(in *incoming, failure error) error {
		left := control.Is(failure, control.HSMLeftover)
		if in.kept != nil {
			undo := in.kept.Remove()
			failure, left = errors.Join(failure, undo), undo != nil
		}
		if in.resume || left {
			return failure
		}
		return errors.Join(failure, s.Ledger.Append(time.Now(), EventImportUndone, ImportBegun{ID: in.id, Key: in.fingerprint}))
	}

	// Each key goes into the token for the time of this session, is proven there
	// to be the certificate's, is wrapped, and only then stored. A token that keeps all
	// it is given has it under its own name at once; there software wraps. A dry run
	// stops before the first change: what it made in the token ends with the session.
	one := func(in *incoming) (err error) {
		in.record = in.newRecord(r.Tool, c.around)
		options := hsm.KeepOptions{Label: in.id, RetainExtractable: r.Retain, Resume: in.resume}
		if in.managed {
			io.Warn("%s: the key itself travels, in its TPD, inside the encrypted bundle: the connected side, the tenant and Microsoft see it [%s]", in.id, control.TPDMode1.ID)
			if r.DryRun {
				return nil
			}
			return begin(in)
		}
		if keeps {
			if err := wrapped(in, nil); err != nil || r.DryRun {
				return err
			}
			if err := begin(in); err != nil {
				return err
			}
			if in.kept, err = token.Store(in.withKey.Key(), in.Public(), options); err != nil {
				return takeBack(in, err)
			}
			in.record.Attributes, in.record.Import = in.kept.Attributes, hsm.StoredWay
			io.Note("%s: in the token by %s; it signs and decrypts as its certificate says; wrapped in software", in.id, hsm.StoredWay)
			return nil
		}
		session, err := token.Import(in.withKey.Key())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Destroy()) }()
		proven, err := session.Prove(in.Public())
		if err != nil {
			return err
		}
		if err := wrapped(in, proven); err != nil {
			return err
		}
		in.record.Import = session.Way
		io.Note("%s: in the token by %s; it signs and decrypts as its certificate says; wrapped in %s", in.id, session.Way, in.record.WrappedBy)
		if r.DryRun {
			return proven.RehearseKeep(r.Retain)
		}
		if err := begin(in); err != nil {
			return err
		}
		if in.kept, err = proven.Keep(options); err != nil {
			return takeBack(in, err)
		}
		in.record.Attributes = in.kept.Attributes
		return nil
	}
	var stored []*incoming
	var kept []*hsm.Kept
	var failure error
	for _, in := range todo {
		if failure = one(in); failure != nil { // the keys before it have come through
			break
		}
		if !r.DryRun {
			stored = append(stored, in)
		}
		if in.kept != nil {
			kept = append(kept, in.kept)
		}
	}

	// They are staged, unless another program has stored one of them meanwhile.
	// A key that can't be staged is taken out of the token again.
	var unstaged error
	if len(kept) > 0 {
		unstaged = token.CheckAlone(kept...)
	}
	for _, in := range stored {
		if unstaged == nil {
			unstaged = c.stage(in.export, EventImported)
		}
		if unstaged != nil {
			unstaged = takeBack(in, unstaged)
		}
	}
	if err := errors.Join(failure, unstaged); err != nil {
		return nil, err
	}
	if token != nil {
		err := token.CheckUnchanged(kept...)
		if err != nil && r.DryRun {
			return nil, err
		}
		if err != nil { // the keys are where they should be
			io.Warn("%v", err)
		}
	}
	clearAll(exports)
	return result, c.finish(ctx, r.CarryRequest, result, carry, token)
}
