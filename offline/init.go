// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
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
Usage: offline init --rehearsal [flags]
       offline init [--rehearsal] --hsm-module PATH --hsm-token LABEL [flags]

Makes the state directory with the identities of the disconnected side, and the
offline card, which the connected side pins with "online trust". A rehearsal
gets a private SoftHSM 2 token; a real ceremony names the token of its HSM, and a
rehearsal in dress a spare one, with the real prompts and refusals; "offline
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
		var o initOptions
		flags.StringVar(&o.name, "name", "offline", "")
		flags.StringVar(&o.out, "out", "", "")
		o.token = addTokenFlags(flags)
		flags.StringVar(&o.signer, "signer", "", "")
		flags.BoolVar(&o.classic, "classic-recipient", false, "")
		return o.run
	},
}

type initOptions struct {
	rehearsal, classic bool
	name, out, signer  string
	token              *tokenFlags
}

// practice reports whether the token is a rehearsal's own.
func (o *initOptions) practice() bool { return o.rehearsal && o.token.onlyModule() }

func (o *initOptions) run(ctx context.Context, io *cli.IO, args []string) error {
	o.rehearsal = io.Rehearsal
	if err := io.NoArguments(args); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	dir, err := filepath.Abs(io.State)
	if err != nil {
		return err
	}
	warnOfSandbox(io)
	r := &initRun{initOptions: o, io: io, dir: dir}
	card, err := r.run(ctx)
	if err != nil {
		return err
	}
	return o.report(io, dir, card)
}

// check completes the options, and refuses those that don't go together.
func (o *initOptions) check() error {
	if o.signer == "" {
		o.signer = signerHSM
		if o.practice() {
			o.signer = signerFile
		}
	}
	if err := o.token.check(); err != nil {
		return err
	}
	switch {
	case o.signer != signerFile && o.signer != signerHSM:
		return control.CommandLine.Refuse("--signer is file or hsm, not %s", control.Quote(o.signer))
	case !o.practice() && (!o.token.choose() || o.token.chosen.Module == ""):
		return control.CommandLine.Refuse("a real ceremony, or a rehearsal with a real token, needs its HSM: --hsm-module, and --hsm-token, --hsm-serial or --hsm-uri").
			WithHint("a rehearsal that has a token and a PIN of its own needs --rehearsal alone")
	case o.out != "":
		return durable.CheckDir(o.out)
	}
	return nil
}

// fill makes the token's settings, in a rehearsal the token too, and the card.
func (r *initRun) fill(ctx context.Context, s *state.State) (err error) {
	if r.out != "" { // before a key is made in the HSM
		if err := durable.CheckAbsent(r.cardOut()); err != nil {
			return err
		}
	}
	settings, signer, release, err := r.settleToken(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := s.WriteJSON(tokenFile, settings); err != nil {
		return err
	}
	public, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		return err
	}
	recipient, err := s.Recipient()
	if err != nil {
		return err
	}
	card, err := trust.Card{Name: s.Name, Created: s.Created, Rehearsal: s.Rehearsal, Signer: public, Recipient: recipient}.Encode()
	if err != nil {
		return err
	}
	if err := durable.Create(s.Path(trust.CardName(s.Name)), card, 0o644); err != nil {
		return err
	}
	if settings.Practice {
		if err := writeSoftHSMConf(s.Dir, r.dir); err != nil {
			return err
		}
	}
	return s.Begin(signer)
}

// cardOut is where the card goes on the stick.
func (o *initOptions) cardOut() string { return filepath.Join(o.out, trust.CardName(o.name)) }

func (o *initOptions) report(io *cli.IO, dir string, file []byte) error {
	card, err := trust.OpenCard(file)
	if err != nil {
		return err
	}
	print := fingerprint.Of(file)
	path := filepath.Join(dir, trust.CardName(o.name))
	if o.out != "" {
		path = o.cardOut()
	}
	doc := map[string]any{
		"state": dir, "kind": state.KindName(o.rehearsal), "name": o.name, "card": path, "fingerprint": print,
		"signer": card.Signer, "signer_fingerprint": card.Signer.Fingerprint(), "recipient": card.Recipient,
	}
	return io.ResultNext(doc, fmt.Sprintf(`The state directory (%s) is %s
The offline card is %s
Its fingerprint, to be read aloud at "online trust":
%s
%s`, state.KindName(o.rehearsal), dir, path, print, print.Spoken()), ceremony.Stand(nil, &ceremony.Journal{}, nil, path, ""))
}
