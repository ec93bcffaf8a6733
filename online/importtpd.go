// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/state"
)

var importTPDCommand = cli.Command{
	Name:    "import-tpd",
	Summary: "import one .byok and keyless TPD, as Import-AadrmTpd did",
	Usage: `
Usage: online import-tpd --tpd-file PATH --hsm-key-file PATH [flags]

Does with one key that "online package" wrote what "online upload" does with a
bundle: the .byok into the vault, compared with the key that the keyless TPD's
certificate names, then the TPD into the tenant. Here nothing tells who made the
files: where there is a bundle, use "online upload".

  --tpd-file PATH                   no_key_tpd_<id>.xml
  --hsm-key-file PATH               KeyTransferPackage-<id>.byok
  --protection-password-file PATH   the export's password (or
                                    --protection-password-fd N, or
                                    --protection-password to be asked)
  --active true|false               make the key the active one
  --vault-key-name NAME             its name in the vault (default: <id>)
  --tenant WAY, --out DIR, --result FILE
                                    as "online upload" takes them
  --dry-run                         show the plan, check what can be read

Example: online import-tpd --tpd-file no_key_tpd_contoso-slc.xml --active true
           --hsm-key-file KeyTransferPackage-contoso-slc.byok
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o importTPDOptions
		flags.StringVar(&o.tpd, "tpd-file", "", "")
		flags.StringVar(&o.blob, "hsm-key-file", "", "")
		flags.StringVar(&o.active, "active", "false", "")
		flags.StringVar(&o.name, "vault-key-name", "", "")
		flags.BoolVar(&o.dryRun, "dry-run", false, "")
		o.addFlags(flags)
		o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		o.signIn = addSignIn(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := cli.NoArguments(args); err != nil {
				return err
			}
			if err := cli.Require(flags, "tpd-file", "hsm-key-file"); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return o.run(ctx, io, s) })
		}
	},
}

type importTPDOptions struct {
	tpd, blob, active, name string
	dryRun                  bool
	tenantFlags
	password *cli.SecretFlags
	signIn   *signIn
}

func (o *importTPDOptions) run(ctx context.Context, io *cli.IO, s *state.State) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	t, err := o.transfer()
	if err != nil {
		return err
	}
	const next = "No receipt is given without a bundle."
	again := fmt.Sprintf("online import-tpd --tpd-file %s --hsm-key-file %s", o.tpd, o.blob)
	u := &upload{io: io, state: s, history: h, signIn: o.signIn, tenantFlags: o.tenantFlags, again: again}
	if o.result != "" {
		return u.takeResult(fingerprint.Fingerprint{}, []transfer{t}, next)
	}
	if u.plan, err = o.plan(ctx, io, t); err != nil {
		return err
	}
	if err := u.run(ctx, o.dryRun); err != nil {
		return err
	}
	return u.report(o.dryRun, next)
}

// transfer reads the two files. The key identifier is in the name of one.
func (o *importTPDOptions) transfer() (t transfer, err error) {
	id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(o.blob), "KeyTransferPackage-"), ".byok")
	if err := keyid.Check("key identifier", id); err != nil {
		return t, err
	}
	t.key = bundle.Key{ID: id, WrappedBy: "unknown"}
	if t.blob, err = cli.ReadInput(o.blob); err != nil {
		return t, err
	}
	if _, _, err := byok.ParseBlob(t.blob); err != nil {
		return t, filetype.Explain(err, t.blob, filetype.Blob)
	}
	t.tpd, err = cli.ReadInput(o.tpd)
	return t, err
}

// plan checks the two files against each other as far as that can be done
// without the vault: the ciphertext only the vault can open.
func (o *importTPDOptions) plan(ctx context.Context, io *cli.IO, t transfer) (*plan, error) {
	active, err := parseBool(o.active)
	if err != nil {
		return nil, err
	}
	password, err := o.password.ReadOne(ctx, io)
	if err != nil {
		return nil, err
	}
	checked, err := checkTPD(t, password)
	if err != nil {
		clear(password)
		return nil, err
	}
	t.key.SLC = checked.GUID()
	one := &step{
		transfer: t, public: checked.Public(), password: password, friendlyName: checked.Report().SLC.ServerName, vaultName: t.key.ID,
		tags: map[string]string{"keyferry-byok": fingerprint.Of(t.blob).Hex(), "keyferry-slc": t.key.SLC},
	}
	if o.name != "" {
		one.vaultName, one.named = o.name, true
	}
	p := &plan{steps: []*step{one}}
	if active {
		p.active = one
	}
	return p, nil
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
