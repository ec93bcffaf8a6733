// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

func initCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "init",
		Summary: "make this side's identities and state directory",
		Usage: `
Usage: offline init --rehearsal [flags]
       offline init [--rehearsal] --hsm-module PATH --hsm-token LABEL [flags]

Makes the state directory with the identities of the disconnected side, and the
offline card, which the connected side pins with "online trust". A rehearsal
gets a private SoftHSM 2 token; a real ceremony names the token of its HSM, and
a rehearsal in dress a spare one, with the real prompts and refusals; "offline
rehearsal clean" removes then what it stored there.

  --rehearsal            a rehearsal: never mixes with a real ceremony
  --name NAME            heads this side's bundles: lower-case letters, digits,
                         dashes (default: offline)
  --out DIR              write the offline card to DIR as well
` + tokenUsage + `  --signer file|hsm      where the key that signs bundles lives (default: hsm;
                         in a rehearsal with a token of its own: file)
  --classic-recipient    an X25519 age identity instead of the post-quantum
                         hybrid, for stock age before 1.3

Example: offline init --rehearsal --name vault-room --out /media/stick
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			o := &initOptions{token: addTokenFlags(flags, p)}
			flags.StringVar(&o.Name, "name", "offline", "")
			flags.StringVar(&o.Out, "out", "", "")
			flags.StringVar(&o.token.chosen.Signer, "signer", "", "")
			flags.BoolVar(&o.Classic, "classic-recipient", false, "")
			return func(ctx context.Context, io *cli.IO, args []string) (err error) {
				if err := io.NoArguments(args); err != nil {
					return err
				}
				o.Rehearsal = io.Rehearsal
				if err := o.check(); err != nil {
					return err
				}
				if o.Dir, err = filepath.Abs(io.State); err != nil {
					return err
				}
				if p.Needs.Network { // what else is open, doctor and import say
					p.WarnOfSandbox(io)
				}
				if !o.token.chosen.Practice {
					ceremony.WarnOfNetwork(io)
				}
				o.Token, o.Access = o.token.chosen, o.token.Access
				card, err := ceremony.Init(ctx, io, o.InitRequest)
				if err != nil {
					return err
				}
				return o.report(io, card)
			}
		},
	}
}

type initOptions struct {
	ceremony.InitRequest
	token *tokenFlags
}

// check completes the options, and refuses those that don't go together.
func (o *initOptions) check() error {
	o.token.chosen.Practice = o.Rehearsal && o.token.onlyModule()
	if o.token.chosen.Signer == "" {
		o.token.chosen.Signer = ceremony.SignerHSM
		if o.token.chosen.Practice {
			o.token.chosen.Signer = ceremony.SignerFile
		}
	}
	if err := o.token.check(); err != nil {
		return err
	}
	switch {
	case o.token.chosen.Signer != ceremony.SignerFile && o.token.chosen.Signer != ceremony.SignerHSM:
		return control.CommandLine.Refuse("--signer is file or hsm, not %s", control.Quote(o.token.chosen.Signer))
	case !o.token.chosen.Practice && (!o.token.choose() || o.token.chosen.Module == ""):
		return control.CommandLine.Refuse("a real ceremony, or a rehearsal with a real token, needs its HSM: --hsm-module, and --hsm-token, --hsm-serial or --hsm-uri").
			WithHint("a rehearsal that has a token and a PIN of its own needs --rehearsal alone")
	case o.Out != "":
		return durable.CheckDir(o.Out)
	}
	return nil
}

func (o *initOptions) report(io *cli.IO, file []byte) error {
	card, err := trust.OpenCard(file)
	if err != nil {
		return err
	}
	print := fingerprint.Of(file)
	path := filepath.Join(o.Dir, trust.CardName(o.Name))
	var j ceremony.Journal
	if o.Out != "" {
		if j.Stick, err = filepath.Abs(o.Out); err != nil {
			return err
		}
		path = filepath.Join(o.Out, trust.CardName(o.Name))
	}
	doc := map[string]any{
		"state": o.Dir, "kind": state.KindName(o.Rehearsal), "name": o.Name, "card": path, "fingerprint": print,
		"signer": card.Signer, "signer_fingerprint": card.Signer.Fingerprint(), "recipient": card.Recipient,
	}
	return io.ResultNext(doc, fmt.Sprintf(`The state directory (%s) is %s
The offline card is %s
Its fingerprint, to be read aloud at "online trust":
%s
%s
%s`, state.KindName(o.Rehearsal), o.Dir, path, print, print.Spoken(), cli.ClockLine()), ceremony.Stand(nil, &j, nil, path, ""))
}
