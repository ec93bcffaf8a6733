// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
)

var wrapCommand = cli.Command{
	Name:    "wrap",
	Summary: "wrap keys that are in the HSM already, for their TPDs",
	Usage: `
Usage: offline wrap --tpd-file-path PATH --key-identifier ID
                    --exchange-key-package PATH [flags]

Does what an import does with a key that is in the HSM already, under the label
ID (or that of --hsm-label or --hsm-key-id) and extractable: imported earlier with --retain-extractable, or made or
brought there by the HSM's own tools. The checks, the proof, the packages and
the outbox are those of an import. The TPD may hold its key or be without. The
HSM must wrap: software never sees such a key.

Once it is staged the key is made non-extractable for good. A run that is
stopped before that is finished by the same command. A token that can't do so is
refused at once: --retain-extractable leaves the key as it is.

  --tpd-file-path PATH               the TPD of the key; with --key-identifier,
  --key-identifier ID                may be repeated: the key's label in the HSM
  --hsm-label LABEL                  the key's label, where the HSM's own tools, or
                                     KeyTransferRemote, gave it another; of
                                     several TPDs one each, in their order
  --hsm-key-id HEX                   the key's CKA_ID, instead or besides
  --protection-password-file PATH    the TPD's password: one for all, or one each
                                     (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --exchange-key-package PATH        BYOK-KEK-pkg-…
  --kek-fingerprint SHA256:…         the KEK's, as a second person read it from the
                                     vault: hex or words. Without it a real ceremony
                                     asks for three of its words, once for each KEK
  --new-security-world-package PATH  BYOK-SecurityWorld-pkg-…, the pinned one
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --accept-template GUID             take this rights policy template though it
                                     does not verify, recorded; may be repeated
  --retain-extractable               leave the key in the HSM extractable
  --keyless-element omit|empty       what the keyless TPD has in the key's place
  --keyless-password keep|fresh      its password: the export's, or (recommended)
                                     a one-time password that travels in the
                                     bundle: offline help import has more
  --hsm-pin-file PATH                the HSM's PIN (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH             the secret of its administrator, of an HSM that
                                     wants it to change keys (or --hsm-so-pin-fd N)
  --out DIR                          seal the bundle to DIR at once
  --dry-run                          make every check, change nothing

Example: offline wrap --tpd-file-path contoso.xml --key-identifier contoso-slc
           --protection-password-file pw --exchange-key-package BYOK-KEK-pkg-NA-1
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		o := &importOptions{stored: true}
		flags.StringArrayVar(&o.labels, "hsm-label", nil, "")
		flags.StringArrayVar(&o.keyIDs, "hsm-key-id", nil, "")
		return o.setup(flags)
	},
}

// nameKeys fills in how each key is named in the HSM: by what was given, else by its
// identifier.
func (o *importOptions) nameKeys() error {
	for flag, given := range map[string][]string{"hsm-label": o.labels, "hsm-key-id": o.keyIDs} {
		if len(given) != 0 && len(given) != len(o.ids) {
			return control.CommandLine.Refuse("%d TPDs and %d times --%s were given: want one each, or none", len(o.ids), len(given), flag)
		}
	}
	o.names = map[string]hsm.Name{}
	for i, id := range o.ids {
		name := hsm.Name{Label: id}
		if len(o.labels)+len(o.keyIDs) > 0 {
			name.Label = ""
		}
		if len(o.labels) > 0 {
			name.Label = o.labels[i]
		}
		if len(o.keyIDs) > 0 {
			var err error
			if name.ID, err = hex.DecodeString(strings.TrimPrefix(strings.ReplaceAll(o.keyIDs[i], ":", ""), "0x")); err != nil {
				return control.CommandLine.Refuse("--hsm-key-id %s is no CKA_ID in hex", control.Quote(o.keyIDs[i]))
			}
		}
		if name.Label == "" && len(name.ID) == 0 {
			return control.CommandLine.Refuse("an empty --hsm-label or --hsm-key-id names no key")
		}
		o.names[id] = name
	}
	return nil
}

// checkKeyless makes the checks of a TPD without its key.
func (o *importOptions) checkKeyless(e *export) error {
	checked, err := e.domain.CheckedKeyless(o.terms())
	if err != nil {
		return err
	}
	e.Identity = checked.Identity
	return o.takeKeyAway(e)
}

// wrapAll is carryAll for keys that are in the token already. Until all are
// wrapped, nothing is changed.
func (o *importOptions) wrapAll(c *carrier, todo []*export) (err error) {
	if c.wrap, c.verdicts, err = c.token.ProveWrap(); err != nil {
		var refusal *control.Refusal
		if control.Is(err, control.HSMWrapUnproven) && errors.As(err, &refusal) {
			return refusal.WithHint("use a token that wraps exactly; or, where the TPD holds the key too, remove the one in the HSM with the HSM's own tools and import it with --wrap software")
		}
		return err
	}
	if !c.retain {
		if err := c.token.ProveHarden(); err != nil {
			return err
		}
	}
	for _, e := range todo {
		if err := c.wrapStored(e, o.names[e.id]); err != nil {
			return err
		}
	}
	if o.dryRun {
		return nil
	}
	for _, e := range todo {
		if err := c.release(e); err != nil {
			return err
		}
	}
	return nil
}

// wrapStored finds the key in the token, proves it and wraps it. Of one that is
// staged already, only the record is read.
func (c *carrier) wrapStored(e *export, name hsm.Name) (err error) {
	if e.stored, err = c.token.Stored(name, e.Public()); err != nil {
		return err
	}
	if e.resume {
		path := filepath.Join("outbox", e.id, bundle.RecordName)
		if err := c.state.ReadJSON(path, &e.record); err != nil {
			return control.StateDamaged.Refuse("%s can't be read: %w", c.state.Path(path), err)
		}
		return nil
	}
	proven, err := e.stored.Prove(e.Public())
	if err != nil {
		return err
	}
	e.record = e.newRecord()
	e.record.Warnings = append(e.record.Warnings, c.around.Warnings...)
	e.record.Attributes = e.stored.Attributes
	if e.ciphertext, err = c.wrapped(e, proven); err != nil {
		return err
	}
	c.io.Note("%s: in the token already; it signs and decrypts as its certificate says; wrapped in token", e.id)
	return nil
}

// release stages a key that is wrapped, and only then makes it non-extractable:
// a key that can't be wrapped again must not be lost on the way.
func (c *carrier) release(e *export) error {
	if err := c.first(e); err != nil {
		return err
	}
	if !e.resume {
		if err := c.stage(e); err != nil || c.retain {
			return err
		}
	}
	if !c.retain {
		if err := e.stored.Harden(); err != nil {
			return control.HSMHarden.Refuse("the key %s is staged, but still extractable in the token: %w", e.id, err)
		}
	}
	return c.state.Ledger.Append(time.Now(), ceremony.EventHardened, ceremony.Hardened{ID: e.id, Key: e.fingerprint, Retained: c.retain})
}
