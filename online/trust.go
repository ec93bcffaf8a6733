// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
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

  --fingerprint SHA256:…   the expected fingerprint; without it you are asked.
                           --yes answers for you in a rehearsal only

Example: online trust /media/stick/offline-card-vault-room.json
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		expected := flags.String("fingerprint", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "offline card")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return pinCard(io, s, path, *expected) })
		}
	},
}

// cardFile is where the pinned card is kept.
const cardFile = "offline-card"

func pinCard(io *cli.IO, s *state.State, path, expected string) error {
	file, err := cli.ReadInput(path)
	if err != nil {
		return err
	}
	card, err := trust.OpenCard(file)
	if err != nil {
		return err
	}
	pin := cli.Pin{
		What: "offline card", Path: path, File: file, Rehearsal: card.Rehearsal, Keep: cardFile,
		Event: eventTrust, Data: cardPinned{trust.Fingerprint(file), card.Name},
	}
	if err := io.Pin(s, pin, expected); err != nil {
		return err
	}
	return io.Result(cardDoc(card, pin.Fingerprint()), fmt.Sprintf("Pinned: the offline side named %s, which signs with %s", card.Name, card.Signer.Fingerprint()))
}

func cardDoc(c *trust.Card, print fingerprint.Fingerprint) map[string]any {
	return map[string]any{"fingerprint": print, "name": c.Name, "signer": c.Signer, "recipient": c.Recipient, "kind": state.KindName(c.Rehearsal)}
}

// pinnedCard returns the pinned card.
func pinnedCard(s *state.State) (*trust.Card, error) {
	file, err := os.ReadFile(s.Path(cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, control.TrustNone.Refuse("no offline card is pinned")
	}
	if err != nil {
		return nil, err
	}
	return trust.OpenCard(file)
}
