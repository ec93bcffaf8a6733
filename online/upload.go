// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

var uploadCommand = cli.Command{
	Name:    "upload",
	Summary: "import keys into the vault and TPDs into the tenant",
	Usage: `
Usage: online upload BUNDLE [--active ID] [flags]

Checks a bundle as "online verify" does, then imports each key into the vault's
HSM, compares what the vault has with what travelled, imports each keyless TPD
into the tenant with the versioned key URL, and makes one key active. A key of
1024 bits, which no vault takes, goes into the tenant inside its TPD, without a
key URL, to be Microsoft-managed. Stopped at any step, the same command goes on;
nothing is imported twice.

The tenant takes TPDs from Windows PowerShell alone. Where it cannot be driven
from here, a folder with the TPDs and one script is written, the hand-over kit,
and the command ends with exit code 4: a person runs the script on a Windows
machine, and brings back what it wrote, for --result.

A TPD goes into one tenant only, ever: make sure that it is the right one.

  --active ID                       the key to make active; the others stay
                                    archived, and without it all do
  --unsafe-activate-1024            let --active name a key of 1024 bits
  --protection-password-file PATH   the exports' password: one for all, or one
                                    each, in the bundle's order, for keys whose
                                    TPD brings no one-time password (or
                                    --protection-password-fd N, or
                                    --protection-password to be asked)
  --vault-key-name ID=NAME          the key's name in the vault (default: its
                                    identifier); may be repeated
  --friendly-name ID=NAME           the key's name in the tenant (default: that
                                    of the AD RMS cluster, which Office 2013 and
                                    2016 need); may be repeated
  --tenant WAY                      how TPDs get into the tenant, powershell or
                                    kit (default: as chosen at init)
  --key-expires DAYS                for how long the vault gives the keys out,
                                    where a policy demands an expiry (default:
                                    for ever); Azure RMS cannot use a key that
                                    has expired
  --key-tag NAME=VALUE              a tag of the keys in the vault, where a
                                    policy demands it; may be repeated
  --out DIR                         where to write the hand-over kit, a new
                                    folder (default: in the state directory)
  --result FILE                     keyferry-result.json, which the kit's script
                                    wrote on the Windows machine: ends what was
                                    handed over, without a password or a sign-in
  --result-digest DIGEST            of the result, as the script showed it
                                    there; without it you are asked for some of
                                    its digits, which --yes answers in a
                                    rehearsal only
  --out-of-order                    take a bundle that is older than one that
                                    was taken, if its own number never was;
                                    recorded
  --dry-run                         show the plan, check what can be read

Example: online upload keyferry-vault-room-1.kfb --active contoso-slc
           --protection-password-file pw
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o uploadOptions
		unsafe1024 := flags.Bool("unsafe-activate-1024", false, "")
		active := flags.String("active", "", "")
		vaultNames := flags.StringToString("vault-key-name", nil, "")
		friendlyNames := addNames(flags, "friendly-name")
		outOfOrder := addOutOfOrder(flags)
		o.addFlags(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := o.password.CheckPaths(args); err != nil {
				return err
			}
			path, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withBundle(io, path, *outOfOrder, func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error {
				transfers, err := r.Transfers()
				if err != nil {
					return err
				}
				r.Active, o.hand = *active, r
				return o.run(ctx, io, s, j, ceremony.UploadRequest{
					Transfers: transfers, Accept: r.Acceptance(),
					Active: *active, UnsafeActive1024: *unsafe1024, VaultNames: *vaultNames, FriendlyNames: friendlyNames.byID,
					Again: ceremony.Again{Command: "upload", Files: []ceremony.FileFlag{{Path: path}}},
				})
			})
		}
	},
}

// uploadOptions are the flags that upload and import-tpd share.
type uploadOptions struct {
	tenant, out    string
	result, digest string
	dryRun         bool
	keyExpires     uint16
	keyTags        map[string]string
	hand           *ceremony.Received // nil without a bundle
	password       *cli.SecretFlags
	signIn         *signIn
}

func (o *uploadOptions) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.tenant, "tenant", "", "")
	flags.StringVar(&o.out, "out", "", "")
	flags.StringVar(&o.result, "result", "", "")
	flags.StringVar(&o.digest, "result-digest", "", "")
	flags.BoolVar(&o.dryRun, "dry-run", false, "")
	flags.Uint16Var(&o.keyExpires, "key-expires", 0, "")
	flags.StringToStringVar(&o.keyTags, "key-tag", nil, "")
	o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
	o.signIn = addSignIn(flags)
}

// run carries the upload out, or takes a kit's result, and prints what became of
// the keys.
func (o *uploadOptions) run(ctx context.Context, io *cli.IO, s *state.State, j *ceremony.Journal, r ceremony.UploadRequest) error {
	done, err := o.carryOut(ctx, io, s, j, r)
	if err != nil {
		return err
	}
	if o.dryRun {
		return result(io, s, o.hand, map[string]any{"dry_run": true, "plan": done.Plan}, "Dry run: nothing was changed")
	}
	var text strings.Builder
	for _, k := range done.Keys {
		fmt.Fprintf(&text, "%s: %s, same key as travelled, %s in the tenant\n", k.ID, cmp.Or(k.KeyURL, "Microsoft-managed"), strings.ToLower(k.Tenant))
	}
	if !done.Changed {
		text.WriteString("All of this was done before: nothing was changed.\n")
	}
	return result(io, s, nil, map[string]any{"dry_run": false, "keys": done.Keys}, text.String())
}

func (o *uploadOptions) carryOut(ctx context.Context, io *cli.IO, s *state.State, j *ceremony.Journal, r ceremony.UploadRequest) (*ceremony.UploadResult, error) {
	if o.digest != "" && o.result == "" {
		return nil, control.CommandLine.Refuse("--result-digest goes with --result")
	}
	if o.result != "" {
		if o.dryRun {
			return nil, control.CommandLine.Refuse("--dry-run does not go with --result, which only takes down what was done")
		}
		data, err := cli.ReadInput(o.result)
		if err != nil {
			return nil, err
		}
		return ceremony.TakeResult(io, j, r.Transfers, data, cli.Compared{
			What: "result " + control.Plain(filepath.Base(o.result)), Heard: "as the kit's script showed them on the Windows machine",
			Flag: "result-digest", Given: o.digest, Rehearsal: s.Rehearsal,
		})
	}
	way, err := ceremony.WayInto(s, o.tenant)
	if err != nil {
		return nil, err
	}
	r.Way, r.Out, r.DryRun = way, o.out, o.dryRun
	r.KeyExpires, r.KeyTags = expiry(time.Now(), o.keyExpires), o.keyTags
	r.Passwords = func(files []string, check func(int, []byte) error) ([][]byte, error) {
		return o.password.ReadEach(ctx, io, files, check)
	}
	r.Connect = func(f func(ceremony.Cloud) error) error {
		return withCloud(ctx, io, s, o.signIn, func(c ceremony.Cloud) error { return withTenant(ctx, io, s, way, c, f) })
	}
	return ceremony.Upload(ctx, io, s, j, r)
}

// names is a flag ID=NAME, which may be repeated. Unlike pflag's own it takes any
// text as the name, also with commas and quotes.
type names struct{ byID map[string]string }

func addNames(flags *pflag.FlagSet, name string) *names {
	n := &names{byID: map[string]string{}}
	flags.Var(n, name, "")
	return n
}

func (n *names) Set(text string) error {
	id, name, ok := strings.Cut(text, "=")
	if !ok || id == "" || name == "" {
		return fmt.Errorf("it wants ID=NAME")
	}
	n.byID[id] = name
	return nil
}

func (n *names) String() string { return "" }
func (n *names) Type() string   { return "names" }
