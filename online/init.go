// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var initCommand = cli.Command{
	Name:    "init",
	Summary: "make this side's identities and state directory",
	Usage: `
Usage: online init --rehearsal [flags]
       online init [--rehearsal] --vault-url URL [flags]

Makes the state directory with the identities of the connected side and its
security world, which the offline side pins. A rehearsal gets a practice cloud
(key vault and tenant) inside the state directory; a rehearsal in dress names a
throw-away vault, and its hand-over kit imports nothing anywhere.

  --rehearsal           a rehearsal: never mixes with a real ceremony
  --name NAME           heads this side's receipts: lower-case letters, digits,
                        dashes (default: online)
  --region R            region of the packages' names (default: NA)
  --vault-url URL       the key vault, https://NAME.vault.azure.net
  --tenant WAY          how TPDs get into the tenant: powershell, by the
                        AIPService module on this machine (default on Windows),
                        or kit, by a folder that a person takes to a Windows
                        machine (default elsewhere); in a rehearsal practice
                        (default) or kit
  --approver FILE       public SSH key (.pub) of a person who may approve
                        bundles; may be repeated, a key in hardware serves too
  --threshold N         how many of them must (default: all)
  --classic-recipient   an X25519 age identity instead of the post-quantum
                        hybrid, for stock age before 1.3

Example: online init --rehearsal --name head-office --region EU
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o initOptions
		flags.StringVar(&o.name, "name", "online", "")
		flags.StringVar(&o.region, "region", "NA", "")
		flags.StringVar(&o.vault, "vault-url", "", "")
		flags.StringArrayVar(&o.approvers, "approver", nil, "")
		flags.IntVar(&o.threshold, "threshold", 0, "")
		flags.StringVar(&o.tenant, "tenant", "", "")
		flags.BoolVar(&o.classic, "classic-recipient", false, "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			if !flags.Changed("threshold") {
				o.threshold = len(o.approvers)
			} else if o.threshold < 1 {
				return control.CommandLine.Refuse("--threshold is %d: leave --approver away if nobody has to approve", o.threshold)
			}
			o.rehearsal = io.Rehearsal
			return o.run(io)
		}
	},
}

type initOptions struct {
	rehearsal, classic          bool
	name, region, vault, tenant string
	way                         ceremony.Way // into the tenant: tenant, checked
	approvers                   []string     // files
	threshold                   int
	listed                      []trust.Approver
}

func (o *initOptions) run(io *cli.IO) error {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := filepath.Abs(io.State)
	if err != nil {
		return err
	}
	meta := state.Meta{Side: state.Online, Name: o.name, Rehearsal: o.rehearsal, Created: time.Now()}
	var world *trust.World
	err = state.Create(dir, meta, state.Options{ClassicRecipient: o.classic}, func(s *state.State) error {
		world, err = o.fill(s)
		return err
	})
	if err != nil {
		return err
	}
	doc := map[string]any{
		"state": dir, "kind": state.KindName(o.rehearsal), "name": o.name, "region": o.region, "vault": world.Vault, "tenant": o.way,
		"signer": world.Signer, "signer_fingerprint": world.Signer.Fingerprint(), "recipient": world.Recipient,
		"approvers": world.Approvers, "threshold": world.Threshold,
	}
	var stand cli.Standing
	stand.Next("DIR is where the stick is", "online", "kek", "create", "--out", "DIR")
	return io.ResultNext(doc, fmt.Sprintf("The state directory (%s) is %s\nIts vault is %s\n%s\n%s",
		state.KindName(o.rehearsal), dir, world.Vault, world.ApprovalRule(), cli.ClockLine()), &stand)
}

// check completes the options, and refuses those that don't go together.
func (o *initOptions) check() error {
	if err := errors.Join(trust.CheckRegion(o.region), o.readApprovers()); err != nil {
		return err
	}
	var err error
	if o.way, err = ceremony.ChooseWay(o.tenant, o.rehearsal); err != nil {
		return err
	}
	switch {
	case o.rehearsal && o.vault == "":
		o.vault = practice.URL
	case o.rehearsal && o.tenant == "":
		o.way = ceremony.ByKit
	case o.rehearsal && o.way == ceremony.ByPractice:
		return control.CommandLine.Refuse("the practice tenant goes with the practice vault: with --vault-url a rehearsal has --tenant kit")
	case o.vault == "":
		return control.CommandLine.Refuse("a real ceremony needs its vault: --vault-url").
			WithHint("for a rehearsal, which needs none, add --rehearsal")
	}
	url, err := vault.CleanURL(o.vault)
	if err != nil {
		return err
	}
	if !o.rehearsal && url == practice.URL {
		return control.TrustRehearsal.Refuse("the practice vault is for rehearsals only")
	}
	o.vault = url
	return nil
}

func (o *initOptions) readApprovers() error {
	for _, path := range o.approvers {
		file, err := cli.ReadInput(path)
		if err != nil {
			return err
		}
		a, err := trust.ReadApprover(path, file)
		if err != nil {
			return err
		}
		o.listed = append(o.listed, a)
	}
	if err := (&trust.World{Approvers: o.listed, Threshold: o.threshold}).CheckApprovers(); err != nil {
		return control.TrustApprover.Refuse("%w", err)
	}
	return nil
}

// fill notes the way into the tenant, and makes the security world's package.
func (o *initOptions) fill(s *state.State) (*trust.World, error) {
	if err := ceremony.KeepWay(s, o.way); err != nil {
		return nil, err
	}
	signer, err := s.Signer()
	if err != nil {
		return nil, err
	}
	public, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	recipient, err := s.Recipient()
	if err != nil {
		return nil, err
	}
	file, err := trust.World{
		Name: s.Name, Region: o.region, Number: 1, Created: s.Created, Rehearsal: s.Rehearsal,
		Vault: o.vault, Signer: public, Recipient: recipient, Approvers: o.listed, Threshold: o.threshold,
	}.Seal(signer)
	if err != nil {
		return nil, err
	}
	world, err := trust.OpenWorld(file)
	if err != nil {
		return nil, err
	}
	if err := durable.Create(s.Path(ceremony.WorldFile), file, 0o644); err != nil {
		return nil, err
	}
	made := ceremony.WorldMade{World: fingerprint.Of(file), Vault: world.Vault, Approvers: world.Approvers, Threshold: world.Threshold}
	return world, s.Begin(signer, state.Fact{Event: ceremony.EventWorld, Data: made})
}
