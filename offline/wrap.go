// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

func wrapCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "wrap",
		Summary: "wrap keys that are in the HSM already, for their TPDs",
		Usage: `
Usage: offline wrap --tpd-file-path PATH --key-identifier ID
                    --exchange-key-package PATH [flags]

Does what an import does with a key that is in the HSM already, under the label
ID (or that of --hsm-label or --hsm-key-id) and extractable: imported earlier
with --retain-extractable, or made or brought there by the HSM's own tools. The
checks, the proof, the packages and the outbox are those of an import. The TPD
may hold its key or be without. The HSM must wrap: software never sees such a
key.

Once it is staged the key is made non-extractable for good. A run that is
stopped before that is finished by the same command. A token that can't do so is
refused at once: --retain-extractable leaves the key as it is.

  --tpd-file-path PATH               the TPD of the key; with --key-identifier,
  --key-identifier ID                may be repeated: the key's label in the HSM
  --hsm-label LABEL                  the key's label, where the HSM's own tools,
                                     or KeyTransferRemote, gave it another; of
                                     several TPDs one each, in their order
  --hsm-key-id HEX                   the key's CKA_ID, instead or besides
  --protection-password-file PATH    the TPD's password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --exchange-key-package PATH        BYOK-KEK-pkg-…
  --kek-fingerprint SHA256:…         the KEK's, as a second person read it from
                                     the vault: hex or words. Without it a real
                                     ceremony asks for three of its words, once
                                     for each KEK
  --new-security-world-package PATH  BYOK-SecurityWorld-pkg-…, the pinned one
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --accept-template GUID             take this rights policy template though it
                                     does not verify, recorded; may be repeated
  --retain-extractable               leave the key in the HSM extractable
  --keyless-element omit|empty       what the keyless TPD has in the key's place
  --keyless-password keep|fresh      its password: the export's, or
                                     (recommended) a one-time password that
                                     travels in the bundle: offline help import
                                     has more
  --hsm-pin-file PATH                the HSM's PIN (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH             the secret of its administrator, of an HSM
                                     that wants it to change keys (or
                                     --hsm-so-pin-fd N)
  --out DIR                          seal the bundle to DIR at once
  --dry-run                          make every check, change nothing

Example: offline wrap --tpd-file-path contoso.xml --key-identifier contoso-slc
           --protection-password-file pw
           --exchange-key-package BYOK-KEK-pkg-NA-1
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			var r ceremony.WrapRequest
			complete := addCarryFlags(flags, &r.CarryRequest, p)
			labels := flags.StringArray("hsm-label", nil, "")
			keyIDs := flags.StringArray("hsm-key-id", nil, "")
			return func(ctx context.Context, io *cli.IO, args []string) (err error) {
				if err := complete(io, args); err != nil {
					return err
				}
				if err := r.Check(); err != nil {
					return err
				}
				if r.Names, err = nameKeys(r.IDs, *labels, *keyIDs); err != nil {
					return err
				}
				return withState(io, func(s *state.State) error {
					done, err := ceremony.Wrap(ctx, io, s, r)
					if err != nil {
						return err
					}
					return reportCarried(io, s, done, r.DryRun)
				})
			}
		},
	}
}

// nameKeys says how each key is named in the HSM: by what was given, else by its
// identifier.
func nameKeys(ids, labels, keyIDs []string) (names []hsm.Name, err error) {
	for flag, given := range map[string][]string{"hsm-label": labels, "hsm-key-id": keyIDs} {
		if len(given) != 0 && len(given) != len(ids) {
			return nil, control.CommandLine.Refuse("%d TPDs and %d times --%s were given: want one each, or none", len(ids), len(given), flag)
		}
	}
	for i, id := range ids {
		name := hsm.Name{Label: id}
		if len(labels)+len(keyIDs) > 0 {
			name.Label = ""
		}
		if len(labels) > 0 {
			name.Label = labels[i]
		}
		if len(keyIDs) > 0 {
			if name.ID, err = hex.DecodeString(strings.TrimPrefix(strings.NewReplacer(":", "", " ", "").Replace(keyIDs[i]), "0x")); err != nil {
				return nil, control.CommandLine.Refuse("--hsm-key-id %s is no CKA_ID in hex", control.Quote(keyIDs[i]))
			}
		}
		if name.Label == "" && len(name.ID) == 0 {
			return nil, control.CommandLine.Refuse("an empty --hsm-label or --hsm-key-id names no key")
		}
		names = append(names, name)
	}
	return names, nil
}
