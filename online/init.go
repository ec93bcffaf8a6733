// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/practice"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
	"keyferry/pkg/vault"
)

var initCommand = cli.Command{
	Name:    "init",
	Summary: "make this side's identities, security world and state directory",
	Usage: `
Usage: online init --rehearsal [flags]
       online init --vault-url URL [flags]

Makes the state directory with the identities of the connected side and its
security world, which the offline side pins. A rehearsal gets a practice cloud
(key vault and tenant) inside the state directory.

  --rehearsal           a rehearsal: never mixes with a real ceremony
  --name NAME           heads this side's receipts (default: online)
  --region R            region of the packages' names (default: NA)
  --vault-url URL       the key vault, https://NAME.vault.azure.net
  --classic-recipient   an X25519 age identity instead of the post-quantum
                        hybrid, for stock age before 1.3

Example: online init --rehearsal --name head-office --region EU
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o initOptions
		flags.BoolVar(&o.rehearsal, "rehearsal", false, "")
		flags.StringVar(&o.name, "name", "online", "")
		flags.StringVar(&o.region, "region", "NA", "")
		flags.StringVar(&o.vault, "vault-url", "", "")
		flags.BoolVar(&o.classic, "classic-recipient", false, "")
		return o.run
	},
}

type initOptions struct {
	rehearsal, classic  bool
	name, region, vault string
}

// worldFile is where this side's own security world package is kept.
const worldFile = "security-world"

func (o *initOptions) run(_ context.Context, io *cli.IO, args []string) error {
	if err := cli.NoArguments(args); err != nil {
		return err
	}
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
		"state": dir, "kind": state.KindName(o.rehearsal), "name": o.name, "region": o.region, "vault": world.Vault,
		"signer": world.Signer, "signer_fingerprint": world.Signer.Fingerprint(), "recipient": world.Recipient,
	}
	return io.Result(doc, fmt.Sprintf("The state directory (%s) is %s\nIts vault is %s\nNext: online kek create --out DIR",
		state.KindName(o.rehearsal), dir, world.Vault))
}

// check completes the options, and refuses those that don't go together.
func (o *initOptions) check() error {
	if err := trust.CheckRegion(o.region); err != nil {
		return err
	}
	switch {
	case o.rehearsal && o.vault != "":
		return control.CommandLine.Refuse("a rehearsal has a practice vault of its own: --vault-url does not go with it")
	case o.rehearsal:
		o.vault = practice.URL
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

// fill makes the security world's package.
func (o *initOptions) fill(s *state.State) (*trust.World, error) {
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
		Vault: o.vault, Signer: public, Recipient: recipient,
	}.Seal(signer)
	if err != nil {
		return nil, err
	}
	world, err := trust.OpenWorld(file)
	if err != nil {
		return nil, err
	}
	return world, durable.Create(s.Path(worldFile), file, 0o644)
}
