// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// This file has the ends of an import and of a wrap, which are the same: by either, keys
// are carried into the outbox.

// carrying is an import or a wrap on its way.
type carrying struct {
	io       *cli.IO
	state    *state.State
	journal  *Journal
	kek      *trust.VerifiedKEK
	kekPath  string // absolute
	kekKnown bool   // to the ledger
	retain   bool
	around   *surroundings
}

// begin checks what does not depend on the TPDs.
func (r CarryRequest) begin(io *cli.IO, s *state.State) (*carrying, error) {
	around, err := preflight(io, s, r.Process)
	if err != nil {
		return nil, err
	}
	j, err := ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	kek, known, err := VerifyPackages(io, s, j, r.KEK, r.World)
	if err != nil {
		return nil, err
	}
	io.Note("packages: the KEK %s holds under the pinned security world", kek.KID())
	if err := compareKEK(io, s, kek, known, r.KEKPrint, r.DryRun); err != nil {
		return nil, err
	}
	if r.Out != "" {
		if err := dispatch.Check(s, j.LastBundle().Sequence+1, r.Out); err != nil {
			return nil, err
		}
	}
	path, err := filepath.Abs(r.KEK)
	return &carrying{io: io, state: s, journal: j, kek: kek, kekPath: path, kekKnown: known, retain: r.Retain, around: around}, err
}

// check refuses keys that the ledger knows otherwise, and wants room for the TPDs that
// leave and, with much to spare, for the rest of what is written: SoftHSM, whose token
// is in the state directory, loses keys without a word when its disk is full.
func (c *carrying) check(exports []*export) error {
	room := 1 << 20
	for _, e := range exports {
		room += len(e.leaves)
	}
	if err := c.journal.checkOthers(exports); err != nil {
		return err
	}
	return durable.CheckRoom(c.state.Dir, uint64(room))
}

// done notes a key that an earlier run of the same command has carried.
func (c *carrying) done(result *CarryResult, k *Key) {
	result.Done = append(result.Done, k)
	c.io.Note("%s: %s by an earlier run", k.ID, k.Stage)
}

// first tells the ledger, before the first change, in what surroundings a key is carried
// and for which KEK.
func (c *carrying) first(e *export) error {
	if err := c.around.record(c.state); err != nil || c.kekKnown || e.managed {
		return err
	}
	c.kekKnown = true
	return c.state.Ledger.Append(time.Now(), EventKEK, KEKTaken{
		KID: c.kek.KID(), KEK: c.kek.Fingerprint(), Number: c.kek.Number(), Package: c.kek.Package(),
	})
}

// finish says what was carried, and seals the bundle where --out asks for it and a key
// of the command is to go into one, or is in the last one.
func (c *carrying) finish(ctx context.Context, r CarryRequest, result *CarryResult, exports []*export, token *hsm.Token) (err error) {
	result.Keys = []Carried{}
	for _, e := range exports {
		result.Keys = append(result.Keys, Carried{e.record, e.Public().N.BitLen(), e.GUID()})
	}
	if r.Out == "" || r.DryRun || len(exports) == 0 && !slices.ContainsFunc(result.Done, func(k *Key) bool { return k.Stage == Staged || c.journal.SealedLast(k) }) {
		return nil
	}
	result.Sealed, err = Seal(ctx, c.io, c.state, SealRequest{Out: r.Out, Access: r.Access, Token: token})
	return err
}
