// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
)

func importCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "import",
		Summary: "take keys from TPD exports into the HSM, and wrap them",
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
  --kek-fingerprint SHA256:…         the KEK's, as a second person read it from
                                     the vault: hex or words. Without it a real
                                     ceremony asks for three of its words, once
                                     for each KEK
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
  --again ID                         once more, for a new bundle: the key was
                                     sealed and never arrived; may be repeated
  --wrap hsm|software                default: hsm; a rehearsal takes software
                                     where its token is not proven to wrap
                                     exactly, and says so
  --retain-extractable               leave the key in the HSM extractable
  --keyless-element omit|empty       what the keyless TPD has in the key's place
  --keyless-password keep|fresh      its password: the export's, or
                                     (recommended) a one-time password that
                                     travels in the bundle, so that the export's
                                     stays on this side and the upload asks for
                                     none; it is encrypted anew then, so not
                                     byte for byte as exported; not with
                                     --microsoft-managed
  --hsm-pin-file PATH                the HSM's PIN (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH             the secret of its administrator, of an HSM
                                     that wants it to make keys (or
                                     --hsm-so-pin-fd N)
  --out DIR                          seal the bundle to DIR at once
  --dry-run                          make every check, change nothing
  --hsm-try-store                    with --dry-run, store one throw-away key in
                                     the token, to prove that it can be stored,
                                     and remove it

Example: offline import --tpd-file-path contoso.xml --key-identifier contoso-slc
           --keyless-password fresh --exchange-key-package BYOK-KEK-pkg-NA-1
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			var r ceremony.ImportRequest
			complete := addCarryFlags(flags, &r.CarryRequest, p)
			flags.StringVar(&r.Wrap, "wrap", "", "")
			flags.StringArrayVar(&r.Again, "again", nil, "")
			flags.BoolVar(&r.MicrosoftManaged, "microsoft-managed", false, "")
			flags.StringArrayVar(&r.PEMs, "key-pem", nil, "")
			flags.BoolVar(&r.TryStore, "hsm-try-store", false, "")
			return func(ctx context.Context, io *cli.IO, args []string) error {
				if err := complete(io, args); err != nil {
					return err
				}
				if err := r.Check(); err != nil {
					return err
				}
				return withState(io, func(s *state.State) error {
					done, err := ceremony.Import(ctx, io, s, r)
					if err != nil {
						return err
					}
					return reportCarried(io, s, done, r.DryRun)
				})
			}
		},
	}
}

// addCarryFlags declares the flags that import and wrap share. The function that it
// returns completes the request when they are parsed.
func addCarryFlags(flags *pflag.FlagSet, r *ceremony.CarryRequest, p *process) func(*cli.IO, []string) error {
	flags.StringArrayVar(&r.Paths, "tpd-file-path", nil, "")
	flags.StringArrayVar(&r.IDs, "key-identifier", nil, "")
	flags.StringVar(&r.KEK, "exchange-key-package", "", "")
	flags.StringVar(&r.KEKPrint, "kek-fingerprint", "", "")
	flags.StringVar(&r.World, "new-security-world-package", "", "")
	flags.BoolVar(&r.Retain, "retain-extractable", false, "")
	flags.StringVar((*string)(&r.Element), "keyless-element", string(tpd.OmitElement), "")
	flags.StringVar(&r.KeylessPassword, "keyless-password", ceremony.KeepPassword, "")
	flags.StringVar(&r.Out, "out", "", "")
	flags.BoolVar(&r.DryRun, "dry-run", false, "")
	pinned := flags.StringArray("pinned-root", nil, "")
	accept := flags.StringArray("accept-template", nil, "")
	r.Password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
	r.Access, r.Tool = addAccess(flags, p), "keyferry offline, "+version
	return func(io *cli.IO, args []string) (err error) {
		if err := io.NoArguments(args); err != nil {
			return err
		}
		if err := cli.Require(flags, "tpd-file-path", "key-identifier", "exchange-key-package"); err != nil {
			return err
		}
		if r.Roots, err = parseRoots(*pinned); err != nil {
			return err
		}
		r.AcceptTemplates, err = parseTemplates(*accept)
		return err
	}
}

// reportCarried says what was carried, or sealed at once.
func reportCarried(io *cli.IO, s *state.State, done *ceremony.CarryResult, dryRun bool) error {
	if done.Sealed != nil {
		return reportSealed(io, s, done.Sealed)
	}
	var text strings.Builder
	for _, k := range done.Keys {
		way := fmt.Sprintf("wrapped in %s by %s", k.WrappedBy, k.Mechanism)
		if k.Disposition == bundle.DispositionMicrosoftManaged {
			way = "in its TPD, to be Microsoft-managed"
		}
		fmt.Fprintf(&text, "%s: RSA-%d key of SLC %s, %s\n", k.ID, k.Bits, k.SLC, way)
	}
	switch {
	case dryRun:
		text.WriteString("Dry run: every check holds, nothing was changed")
	case len(done.Keys) == 0:
		text.WriteString("An earlier run has done it: nothing is left to do")
	default:
		text.WriteString("Staged in the outbox")
	}
	stand, err := standing(s, "")
	if err != nil {
		return err
	}
	if dryRun {
		io.InEarnest(stand)
	}
	return io.ResultNext(map[string]any{"dry_run": dryRun, "keys": done.Keys}, text.String(), stand)
}
