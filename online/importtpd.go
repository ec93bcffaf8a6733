// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

var importTPDCommand = cli.Command{
	Name:    "import-tpd",
	Summary: "import one .byok and keyless TPD, as Import-AadrmTpd did",
	Usage: `
Usage: online import-tpd --tpd-file PATH --hsm-key-file PATH [flags]

Does with one key that "online package" wrote what "online upload" does with a
bundle: the .byok into the vault, compared with the key that the keyless TPD's
certificate names, then the TPD into the tenant. Both are one ceremony: what was
brought in this way, upload, status and receipt know. Of files that were written
elsewhere nothing tells who made them: where there is a bundle, use "online
upload".

  --tpd-file PATH                   no_key_tpd_<id>.xml
  --hsm-key-file PATH               KeyTransferPackage-<id>.byok
  --protection-password-file PATH   the export's password (or
                                    --protection-password-fd N, or
                                    --protection-password to be asked)
  --active true|false               make the key the active one
  --key-identifier ID               the key's identifier (default: as "online
                                    package" recorded it, else the <id> of the
                                    file's name)
  --vault-key-name NAME             its name in the vault (default: <id>)
  --friendly-name NAME              its name in the tenant (default: that of the
                                    AD RMS cluster)
  --tenant WAY, --out DIR, --result FILE, --result-digest DIGEST,
  --key-expires DAYS, --key-tag NAME=VALUE
                                    as "online upload" takes them
  --dry-run                         show the plan, check what can be read

Example: online import-tpd --tpd-file no_key_tpd_contoso-slc.xml --active true
           --hsm-key-file KeyTransferPackage-contoso-slc.byok
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o uploadOptions
		tpd := flags.String("tpd-file", "", "")
		byok := flags.String("hsm-key-file", "", "")
		id := flags.String("key-identifier", "", "")
		activeText := flags.String("active", "false", "")
		vaultName := flags.String("vault-key-name", "", "")
		friendlyName := flags.String("friendly-name", "", "")
		o.addFlags(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			if err := cli.Require(flags, "tpd-file", "hsm-key-file"); err != nil {
				return err
			}
			active, err := parseBool(*activeText)
			if err != nil {
				return err
			}
			return withJournal(io, func(s *state.State, j *ceremony.Journal) error {
				t, accept, err := ceremony.ReadPair(io, j, *byok, *tpd, *id)
				if err != nil {
					return err
				}
				r := ceremony.UploadRequest{
					Transfers: []*ceremony.Transfer{t}, Accept: accept, FriendlyNames: friendlyNames(t.Key.ID, *friendlyName),
					Again: ceremony.Again{Command: "import-tpd", Files: []ceremony.FileFlag{{Flag: "--tpd-file", Path: *tpd}, {Flag: "--hsm-key-file", Path: *byok}}},
				}
				if active {
					r.Active = t.Key.ID
				}
				if *vaultName != "" {
					r.VaultNames = map[string]string{t.Key.ID: *vaultName}
				}
				return o.run(ctx, io, s, j, r)
			})
		}
	},
}

// friendlyNames takes NAME, as the cmdlet does, and ID=NAME.
func friendlyNames(id, given string) map[string]string {
	if given == "" {
		return nil
	}
	return map[string]string{id: strings.TrimPrefix(given, id+"=")}
}

// parseBool reads true and false, also as PowerShell writes them.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimPrefix(s, "$")) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, control.CommandLine.Refuse("%s is neither true nor false", control.Quote(s))
}
