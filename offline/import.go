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

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
)

var importCommand = cli.Command{
	Name:    "import",
	Summary: "take keys from TPD exports into the HSM, wrap them for the vault",
	Usage: `
Usage: offline import --tpd-file-path PATH --key-identifier ID
                      --exchange-key-package PATH [flags]

Checks the TPD and the packages, imports the key into the HSM, proves that the
HSM has it, wraps it for the vault's KEK, writes the keyless TPD, and stages all
of it in the outbox. Nothing is changed before everything was checked.

  --tpd-file-path PATH               the TPD export; with --key-identifier, may
  --key-identifier ID                be repeated: lower-case letters, digits, -
  --protection-password-file PATH    the export's password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --key-pem PATH                     the key of a keyless TPD, one each, as
                                     TpdUtil wrote both: PKCS#8 or PKCS#1
  --exchange-key-package PATH        BYOK-KEK-pkg-…
  --kek-fingerprint SHA256:…         the KEK's, as a second person read it from the
                                     vault: hex or words. Without it a real ceremony
                                     asks for three of its words, once for each KEK
  --new-security-world-package PATH  BYOK-SecurityWorld-pkg-…, the pinned one
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --accept-template GUID             take this rights policy template though it
                                     does not verify, recorded; may be repeated
  --microsoft-managed                take keys of 1024 bits too, which no vault
                                     takes: they go into no HSM but travel in
                                     their TPD, under its password, to become
                                     Microsoft-managed; who opens the bundle
                                     and has that password has the key
  --wrap hsm|software                default: hsm; a rehearsal takes software
                                     where its token is not proven to wrap
                                     exactly, and says so
  --retain-extractable               leave the key in the HSM extractable
  --keyless-element omit|empty       what the keyless TPD has in the key's place
  --keyless-password keep|fresh      its password: the export's, or (recommended)
                                     a one-time password that travels in the
                                     bundle, so that the export's stays on this
                                     side and the upload asks for none; it is
                                     encrypted anew then, so not byte for byte
                                     as exported; not with --microsoft-managed
  --hsm-pin-file PATH                the HSM's PIN (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH             the secret of its administrator, of an HSM that
                                     wants it to make keys (or --hsm-so-pin-fd N)
  --out DIR                          seal the bundle to DIR at once
  --dry-run                          make every check, change nothing
  --hsm-try-store                    with --dry-run, store one throw-away key in a
                                     token that keeps all it gets, and remove it

Example: offline import --tpd-file-path contoso.xml --key-identifier contoso-slc
           --keyless-password fresh --exchange-key-package BYOK-KEK-pkg-NA-1
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		o := &importOptions{}
		flags.StringVar(&o.wrap, "wrap", "", "")
		flags.StringArrayVar(&o.again, "again", nil, "")
		flags.BoolVar(&o.microsoftManaged, "microsoft-managed", false, "")
		flags.StringArrayVar(&o.pems, "key-pem", nil, "")
		return o.setup(flags)
	},
}

// setup declares the flags that import and wrap share, and returns what runs
// either.
func (o *importOptions) setup(flags *pflag.FlagSet) cli.Run {
	flags.StringArrayVar(&o.tpds, "tpd-file-path", nil, "")
	flags.StringArrayVar(&o.ids, "key-identifier", nil, "")
	flags.StringVar(&o.kek, "exchange-key-package", "", "")
	flags.StringVar(&o.kekPrint, "kek-fingerprint", "", "")
	flags.StringVar(&o.world, "new-security-world-package", "", "")
	flags.BoolVar(&o.retain, "retain-extractable", false, "")
	flags.StringVar((*string)(&o.element), "keyless-element", string(tpd.OmitElement), "")
	flags.StringVar(&o.keylessPassword, "keyless-password", keylessKeep, "")
	flags.StringVar(&o.out, "out", "", "")
	flags.BoolVar(&o.dryRun, "dry-run", false, "")
	pinned := flags.StringArray("pinned-root", nil, "")
	accept := flags.StringArray("accept-template", nil, "")
	o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
	o.secrets = addTokenSecrets(flags)
	flags.BoolVar(&o.tryStore, "hsm-try-store", false, "")
	return func(ctx context.Context, io *cli.IO, args []string) error {
		if err := io.NoArguments(args); err != nil {
			return err
		}
		if err := cli.Require(flags, "tpd-file-path", "key-identifier", "exchange-key-package"); err != nil {
			return err
		}
		if err := o.check(); err != nil {
			return err
		}
		var err error
		if o.roots, err = parseRoots(*pinned); err != nil {
			return err
		}
		if o.accept, err = parseTemplates(*accept); err != nil {
			return err
		}
		return withState(io, func(s *state.State) error { return o.run(ctx, io, s) })
	}
}

type importOptions struct {
	stored                bool // wrap: the keys are in the token already
	again                 []string
	tpds, ids, pems       []string
	labels, keyIDs        []string            // wrap: how the HSM names the keys
	names                 map[string]hsm.Name // the same, by key identifier
	kek, world, wrap, out string
	kekPrint              string // --kek-fingerprint
	roots                 []fingerprint.Fingerprint
	accept                []string // templates
	element               tpd.KeylessElement
	keylessPassword       string
	retain, dryRun        bool
	microsoftManaged      bool
	password              *cli.SecretFlags
	secrets               tokenSecrets
	tryStore              bool // a dry run may store a throw-away key
}

// Values of --keyless-password.
const (
	keylessKeep  = "keep"
	keylessFresh = "fresh"
)

// Values of --wrap.
const (
	wrapHSM      = "hsm"
	wrapSoftware = "software"
)

func (o *importOptions) check() error {
	if len(o.tpds) != len(o.ids) {
		return control.CommandLine.Refuse("%d TPDs and %d key identifiers were given: want one each", len(o.tpds), len(o.ids))
	}
	if len(o.pems) > 0 && len(o.pems) != len(o.tpds) {
		return control.CommandLine.Refuse("%d TPDs and %d files for --key-pem were given: want one each", len(o.tpds), len(o.pems)).
			WithHint("import the exports that carry their key in a command of their own")
	}
	seen := map[string]bool{}
	for _, id := range o.ids {
		if err := keyid.Check("key identifier", id); err != nil {
			return err
		}
		if seen[id] || id == signerLabel {
			return control.CommandLine.Refuse("the key identifier %s is taken", id)
		}
		seen[id] = true
	}
	for _, id := range o.again {
		if !seen[id] || id == signerLabel {
			return control.CommandLine.Refuse("--again %s names no key of this import", control.Quote(id)).
				WithHint("give its TPD too: --tpd-file-path TPD --key-identifier %s", control.Plain(id))
		}
	}
	if o.wrap != "" && o.wrap != wrapHSM && o.wrap != wrapSoftware {
		return control.CommandLine.Refuse("--wrap is hsm or software, not %s", control.Quote(o.wrap))
	}
	if o.keylessPassword != keylessKeep && o.keylessPassword != keylessFresh {
		return control.CommandLine.Refuse("--keyless-password is keep or fresh, not %s", control.Quote(o.keylessPassword))
	}
	if o.keylessPassword == keylessFresh && o.microsoftManaged {
		return control.CommandLine.Refuse("--keyless-password fresh does not go with --microsoft-managed").
			WithHint("a TPD that holds its key never travels with its password: import these keys apart, or export their domains again under a password of their own")
	}
	if _, err := tpd.ParseKeylessElement(string(o.element)); err != nil {
		return control.CommandLine.Refuse("--keyless-element: %w", err)
	}
	return o.nameKeys()
}

// run checks everything, then changes the token and the outbox key by key.
func (o *importOptions) run(ctx context.Context, io *cli.IO, s *state.State) (err error) {
	around, err := preflight(io, s)
	if err != nil {
		return err
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	kek, known, err := verifyPackages(s, h, o.kek, o.world)
	if err != nil {
		return err
	}
	io.Note("packages: the KEK %s holds under the pinned security world", kek.KID())
	if err := o.compareKEK(io, s, kek, known); err != nil {
		return err
	}
	if o.out != "" {
		if err := dispatch.Check(s, h.LastBundle().Sequence+1, o.out); err != nil {
			return err
		}
	}
	exports, err := o.readExports(ctx, io)
	if err != nil {
		return err
	}
	defer clearAll(exports)
	todo, err := o.remaining(h, exports, kek.KID())
	if err != nil {
		return err
	}
	for _, e := range exports {
		if !slices.Contains(todo, e) {
			io.Note("%s: %s by an earlier run", e.id, h.Key(e.id).Stage)
		}
	}
	if err := checkRoom(s, todo); err != nil {
		return err
	}
	kekPath, err := filepath.Abs(o.kek)
	if err != nil {
		return err
	}
	c := &carrier{io: io, state: s, kek: kek, kekPath: kekPath, kekKnown: known, retain: o.retain, around: around}
	if slices.ContainsFunc(todo, func(e *export) bool { return !e.managed }) {
		if err := o.openToken(ctx, c); err != nil {
			return err
		}
		defer func() { signHead(io, s, c.token); err = errors.Join(err, c.token.Close()) }()
	}
	if err := o.carryAll(c, todo); err != nil {
		return err
	}
	clearAll(exports)
	return o.finish(ctx, c, todo)
}

func (o *importOptions) openToken(ctx context.Context, c *carrier) error {
	settings, err := readTokenSettings(c.state)
	if err != nil {
		return err
	}
	c.token, err = settings.open(ctx, c.io, c.state, o.secrets)
	return err
}

// checkRoom wants room for the TPDs that leave, and for the rest of what an import
// writes with much to spare: SoftHSM, whose token is in the state directory,
// loses keys without a word when its disk is full.
func checkRoom(s *state.State, exports []*export) error {
	room := 1 << 20
	for _, e := range exports {
		room += len(e.leaves)
	}
	return durable.CheckRoom(s.Dir, uint64(room))
}

func (o *importOptions) carryAll(c *carrier, todo []*export) error {
	if len(todo) == 0 {
		return nil
	}
	if o.stored {
		return o.wrapAll(c, todo)
	}
	for _, e := range todo {
		if e.managed {
			continue
		}
		if err := c.token.CheckFree(e.id, e.Public(), e.resume); err != nil {
			return err
		}
	}
	if c.token != nil {
		if err := c.chooseWrap(o.wrap); err != nil {
			return err
		}
	}
	if o.dryRun && c.token != nil {
		if err := o.tryStored(c); err != nil {
			return err
		}
	}
	var carried []*export
	for _, e := range todo {
		if err := c.carry(e, o.dryRun); err != nil { // those before it have come through
			return errors.Join(err, c.settle(carried))
		}
		if !o.dryRun {
			carried = append(carried, e)
		}
	}
	if err := c.settle(carried); err != nil || c.token == nil {
		return err
	}
	var kept []*hsm.Kept
	for _, e := range carried {
		if e.kept != nil {
			kept = append(kept, e.kept)
		}
	}
	err := c.token.CheckUnchanged(kept...)
	if err != nil && !o.dryRun { // the keys are where they should be
		c.io.Warn("%v", err)
		return nil
	}
	return err
}

// tryStored proves, by leave, what a dry run can't on a token that keeps all it is
// given; without leave it says so.
func (o *importOptions) tryStored(c *carrier) error {
	keeps, err := c.token.Keeps()
	if err != nil || !keeps {
		return err
	}
	if !o.tryStore {
		c.io.Warn("this token keeps all it is given, so that nothing was stored and this is not proven: that a key comes in, is named and protected, signs and decrypts, and can be removed; --hsm-try-store proves it with one throw-away key")
		return nil
	}
	c.io.Note("one throw-away key is stored in the token, and removed again; a run that is killed leaves it, and the next run removes it")
	verdict, err := c.token.TryStore()
	if err == nil && verdict.Result != hsm.Exact {
		err = control.HSMImport.Refuse("the token does not take a key in by %s: %s", verdict.Mechanism, verdict.Reason)
	}
	if err == nil {
		c.io.Note("the throw-away key came in, was named, signed, decrypted, and is gone")
	}
	return err
}

// finish reports, and seals if asked to.
func (o *importOptions) finish(ctx context.Context, c *carrier, done []*export) error {
	h, err := ceremony.ReadJournal(c.state.Ledger)
	if err != nil {
		return err
	}
	toSeal := slices.ContainsFunc(o.ids, func(id string) bool { // one of them waits for it, or for its bundle to be written again
		k := h.Key(id)
		return k != nil && (k.Stage == ceremony.Staged || h.SealedLast(k))
	})
	if o.out != "" && !o.dryRun && toSeal {
		return (&sealOptions{out: o.out, secrets: o.secrets, token: c.token}).run(ctx, c.io, c.state)
	}
	records := []keyRecord{}
	var text strings.Builder
	for _, e := range done {
		records = append(records, e.record)
		way := fmt.Sprintf("wrapped in %s by %s", e.record.WrappedBy, e.record.Mechanism)
		if e.managed {
			way = "in its TPD, to be Microsoft-managed"
		}
		fmt.Fprintf(&text, "%s: RSA-%d key of SLC %s, %s\n", e.id, e.Public().N.BitLen(), e.GUID(), way)
	}
	switch {
	case o.dryRun:
		text.WriteString("Dry run: every check holds, nothing was changed")
	case len(done) == 0:
		text.WriteString("An earlier run has done it: nothing is left to do")
	default:
		text.WriteString("Staged in the outbox")
	}
	return result(c.io, c.state, map[string]any{"dry_run": o.dryRun, "keys": records}, text.String())
}

// remaining leaves out what an earlier run of the same command has done, and
// refuses what the ledger knows otherwise.
func (o *importOptions) remaining(h *ceremony.Journal, exports []*export, kek string) ([]*export, error) {
	var todo []*export
	open := ceremony.Begun
	if o.stored {
		open = ceremony.Wrapped
	}
	for _, e := range exports {
		k := h.Key(e.id)
		again := slices.Contains(o.again, e.id)
		switch {
		case k == nil, o.stored && k.Key == e.fingerprint && k.Bundle > 0: // it has left before, for this KEK or another
			todo = append(todo, e)
		case k.Key != e.fingerprint:
			return nil, control.ImportExists.Refuse("the key identifier %s is taken by an earlier import (%s)", e.id, k.Stage)
		case k.Stage == open, again && (k.Stage == ceremony.Staged || k.Stage == ceremony.InBundle || k.Stage == ceremony.Returned):
			e.resume = true // an earlier run has brought it into the token
			todo = append(todo, e)
		case again:
			return nil, control.ImportExists.Refuse("the key %s can't be carried again: it is %s", e.id, k.Stage)
		case (k.Stage == ceremony.Begun || k.Stage == ceremony.Wrapped), o.stored && !k.Stored:
			return nil, control.ImportExists.Refuse("the key identifier %s is taken by an earlier import (%s)", e.id, k.Stage)
		case k.KEK != kek && !e.managed:
			return nil, control.ImportExists.Refuse("an earlier import has wrapped the key %s for another KEK (%s)", e.id, k.Stage).
				WithHint("if it has not arrived, wrap it for this one with --again %s", e.id)
		}
	}
	return todo, checkOthers(h, todo)
}

// checkOthers refuses keys that the ledger knows under another identifier, and
// GUIDs that it knows of another key.
func checkOthers(h *ceremony.Journal, exports []*export) error {
	for _, k := range h.Keys {
		for _, e := range exports {
			switch {
			case k.Key == e.fingerprint && k.ID != e.id:
				return control.ImportExists.Refuse("this key was imported already, as %s", k.ID)
			case k.Key != e.fingerprint && k.SLC == e.GUID():
				return control.TPDGUIDUnique.Refuse("%s and %s, which was imported before, are different keys with one GUID, %s", e.id, k.ID, k.SLC)
			}
		}
	}
	return nil
}

// keyRecord is key.json: what was found and done, for the record. Nothing in
// it is secret.
type keyRecord struct {
	Format      string         `json:"format"`
	Tool        string         `json:"tool"` // and its version
	ID          string         `json:"id"`
	Disposition string         `json:"disposition"` // a Microsoft-managed key has neither token nor KEK
	Time        time.Time      `json:"time"`
	Report      any            `json:"tpd"`
	Token       hsm.Info       `json:"token"`
	Import      string         `json:"imported_by"` // the PKCS#11 call; empty of a key that was in the token
	Attributes  hsm.Attributes `json:"attributes"`  // as the token reports them
	KID         string         `json:"kid"`         // of the KEK
	WrappedBy   string         `json:"wrapped_by"`  // token or software
	Mechanism   string         `json:"mechanism"`
	Verdicts    []hsm.Verdict  `json:"wrap_verdicts"`
	Warnings    []string       `json:"warnings"` // IDs of controls that hold only weakly, or were overridden

	KEK             *fingerprint.Fingerprint `json:"kek"`               // of its PKIX DER; null for a Microsoft-managed key
	OneTimePassword bool                     `json:"one_time_password"` // of the keyless TPD
}
