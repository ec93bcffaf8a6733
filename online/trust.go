// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var trustCommand = cli.Command{
	Name:    "trust",
	Summary: "pin the offline side's card",
	Usage: `
Usage: online trust OFFLINE-CARD [--fingerprint SHA256:…]

Pins the offline side: the key that signs its bundles, and to whom receipts are
encrypted. Compare the words with those that "offline init" showed, read aloud
by a person you know.

  --fingerprint SHA256:…   the fingerprint that was read aloud, as hex or as the
                           32 words; without it you are asked for three of
                           its words, which --yes answers in a rehearsal only
` + cli.BothScreensHelp + `
Example: online trust /media/stick/offline-card-vault-room.json
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		given, bothScreens := flags.String("fingerprint", "", ""), cli.AddBothScreens(flags)
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "offline card")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return pinCard(io, s, path, *given, *bothScreens) })
		}
	},
}

func pinCard(io *cli.IO, s *state.State, path, given string, bothScreens bool) error {
	file, err := cli.ReadInput(path)
	if err != nil {
		return err
	}
	card, err := trust.OpenCard(file)
	if err != nil {
		return err
	}
	pin := cli.Pin{
		What: "offline card", Path: path, Created: card.Created, File: file, Rehearsal: card.Rehearsal, Keep: ceremony.CardFile,
		Given: given, BothScreens: bothScreens, Event: ceremony.EventTrust, Data: ceremony.CardPinned{Card: fingerprint.Of(file), Name: card.Name},
	}
	if err := io.Pin(s, pin); err != nil {
		return err
	}
	return result(io, s, nil, cardDoc(card, pin.Fingerprint()), fmt.Sprintf("Pinned: the offline side named %s, which signs with %s", card.Name, card.Signer.Fingerprint()))
}

func cardDoc(c *trust.Card, print fingerprint.Fingerprint) map[string]any {
	return map[string]any{"fingerprint": print, "name": c.Name, "signer": c.Signer, "recipient": c.Recipient, "kind": state.KindName(c.Rehearsal)}
}
