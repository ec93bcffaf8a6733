// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// outgoing is a key that was in the token before.
type outgoing struct {
	*export
	name   hsm.Name
	staged bool // by an earlier run, which was stopped before the key was hardened
	stored *hsm.StoredKey
}

// Wrap has keys wrapped for the vault's KEK that are in the HSM already, and puts
// them into the outbox. Until all are wrapped nothing is changed; only once a key
// is staged is it made non-extractable, since it can't be wrapped again.
func Wrap(ctx context.Context, io *cli.IO, s *state.State, r WrapRequest) (result *CarryResult, err error) {
	c, err := r.begin(io, s)
	if err != nil {
		return nil, err
	}

	// The TPDs, with their key or without it, pass every check.
	exports, err := r.read(ctx, io, func(e *export, _ []byte) error {
		checked, err := e.domain.Checked(r.terms())
		if err == nil {
			e.Identity = checked.Identity
		} else if control.Is(err, control.TPDKeyAbsent) || control.Is(err, control.TPDKeyInHSM) {
			keyless, err := e.domain.CheckedKeyless(r.terms())
			if err != nil {
				return err
			}
			e.Identity = keyless.Identity
		} else {
			return err
		}
		return r.takeKeyAway(e)
	})
	if err != nil {
		return nil, err
	}
	defer clearAll(exports)

	// What an earlier run of the same command has done is left out. A key that
	// has left before and was left extractable may leave again, for this KEK or another.
	result = &CarryResult{}
	var todo []*outgoing
	var carry []*export
	for i, e := range exports {
		k := c.journal.Key(e.id)
		same := k != nil && k.Key == e.fingerprint && k.KEK == c.kek.KID() && k.Stored
		switch {
		case same && !k.Record.Retained && (k.Stage == InBundle || k.Stage == Arrived):
			c.done(result, k)
			continue
		case k == nil, k.Key == e.fingerprint && k.Bundle > 0:
			todo = append(todo, &outgoing{export: e, name: r.Names[i]})
		case k.Key == e.fingerprint && k.Stage == Wrapped:
			todo = append(todo, &outgoing{export: e, name: r.Names[i], staged: true})
		case k.Key == e.fingerprint && k.KEK == c.kek.KID() && k.Stage == Staged && (k.Stored || r.Out != ""):
			c.done(result, k)
			continue
		default:
			return nil, control.ImportExists.Refuse("the key identifier %s is taken by an earlier import (%s)", e.id, k.Stage)
		}
		carry = append(carry, e)
	}
	if err := c.check(carry); err != nil {
		return nil, err
	}

	var token *hsm.Token
	if len(todo) > 0 {
		// The token is proven to wrap, and to harden; software never sees these keys.
		if token, err = openToken(ctx, io, s, r.Access); err != nil {
			return nil, err
		}
		defer func() { SignHead(io, s, token); err = errors.Join(err, token.Close()) }()
		wrap, verdicts, err := token.ProveWrap()
		if err != nil {
			var refusal *control.Refusal
			if control.Is(err, control.HSMWrapUnproven) && errors.As(err, &refusal) {
				return nil, refusal.WithHint("use a token that wraps exactly; or, where the TPD holds the key too, remove the one in the HSM with the HSM's own tools and import it with --wrap software")
			}
			return nil, err
		}
		if !r.Retain {
			if err := token.ProveHarden(); err != nil {
				return nil, err
			}
		}

		// Each key is found, proven to be the certificate's, and wrapped.
		for _, out := range todo {
			if out.stored, err = token.Stored(out.name, out.Public()); err != nil {
				return nil, err
			}
			if out.staged {
				path := filepath.Join("outbox", out.id, bundle.RecordName)
				if err := s.ReadJSON(path, &out.record); err != nil {
					return nil, control.StateDamaged.Refuse("%s can't be read: %w", s.Path(path), err)
				}
				continue
			}
			proven, err := out.stored.Prove(out.Public())
			if err != nil {
				return nil, err
			}
			out.record = out.newRecord(r.Tool, c.around)
			out.record.Attributes = out.stored.Attributes
			c.recordWrap(out.export, token.Info(), bundle.WrappedByToken, wrap.Mechanism(), verdicts)
			if out.ciphertext, err = wrap.Wrap(proven, c.kek.Public()); err != nil {
				return nil, err
			}
			io.Note("%s: in the token already; it signs and decrypts as its certificate says; wrapped in token", out.id)
		}
	}

	// Each is staged, then made non-extractable.
	for _, out := range todo {
		if r.DryRun {
			break
		}
		if err := c.first(out.export); err != nil {
			return nil, err
		}
		if !out.staged {
			if err := c.stage(out.export, EventWrapped); err != nil {
				return nil, err
			}
		}
		if r.Retain && !out.staged { // the record of the wrap says so
			continue
		}
		if !r.Retain {
			if err := out.stored.Harden(); err != nil {
				return nil, control.HSMHarden.Refuse("the key %s is staged, but still extractable in the token: %w", out.id, err)
			}
		}
		if err := s.Ledger.Append(time.Now(), EventHardened, Hardened{ID: out.id, Key: out.fingerprint, Retained: r.Retain}); err != nil {
			return nil, err
		}
	}
	clearAll(exports)
	return result, c.finish(ctx, r.CarryRequest, result, carry, token)
}
