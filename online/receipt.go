// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

var receiptCommand = cli.Command{
	Name:    "receipt",
	Summary: "seal the answer: what became of each key",
	Usage: `
Usage: online receipt BUNDLE --out DIR

Seals a receipt for a bundle whose upload was begun: what became of each key,
signed by this side, encrypted to the offline side. Asked again, it writes the
same receipt again, unless something has changed or another one was sealed since.

  --out DIR         where to write the receipt

Example: online receipt keyferry-vault-room-1.kfb --out /media/stick
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		out := flags.String("out", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			if err := cli.Require(flags, "out"); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(io, s, path, false, func(h *ceremony.Journal, r received) error { return answer(io, s, h, r, *out) })
			})
		}
	},
}

// answer sends the receipt. If the last one says the same, it is that one again;
// an older one would be refused where a later one was taken.
func answer(io *cli.IO, s *state.State, h *ceremony.Journal, r received, out string) error {
	keys, err := became(h, r.Verified)
	if err != nil {
		return err
	}
	io.WarnOfNewDir(out)
	want := ceremony.Answered{Answers: r.Digest, Keys: keys}
	var path string
	if n := len(h.Receipts); n > 0 && saysSame(h.Receipts[n-1], want) {
		path, err = dispatch.Deliver(s, h.Receipts[n-1].Sequence, out)
	} else {
		path, err = sendReceipt(io, s, h, r, want, out)
	}
	if err != nil {
		return err
	}
	return io.Result(map[string]any{"receipt": path, "answers": r.Digest, "keys": keys},
		fmt.Sprintf("Receipt: %s\nThe copy was read back and compared. The stick may be pulled.", path))
}

func saysSame(a, b ceremony.Answered) bool {
	return a.Answers == b.Answers && reflect.DeepEqual(a.Keys, b.Keys)
}

// sendReceipt seals the receipt and sends it: behind one that says something
// else, where a run that was stopped has sealed that under the next number.
func sendReceipt(io *cli.IO, s *state.State, h *ceremony.Journal, r received, want ceremony.Answered, out string) (path string, err error) {
	for {
		var sent ceremony.Answered
		path, sent, err = dispatch.Dispatch[ceremony.Answered]{
			State: s, Out: out, Sequence: uint64(len(h.Receipts)) + 1, Event: ceremony.EventReceipt,
			Letter: func() (bundle.Letter, func() error, error) { return receiptLetter(s, h, r, want) },
			Record: func(b *bundle.Sealed) ceremony.Answered {
				return ceremony.Answered{Sequence: b.Manifest.Sequence, Manifest: b.Digest, Answers: want.Answers, Keys: want.Keys}
			},
		}.Send()
		if err != nil || saysSame(sent, want) {
			return path, err
		}
		h.Receipts = append(h.Receipts, sent)
		io.Note("%s: a receipt for %s, which a run that was stopped had sealed; the one that was asked for comes after it", path, sent.Answers)
	}
}

// became says what became of each key of a bundle whose upload was begun.
func became(h *ceremony.Journal, v *bundle.Verified) ([]bundle.Arrived, error) {
	if !v.Again {
		return nil, control.ReceiptEarly.Refuse("the upload of this bundle was not begun")
	}
	var keys []bundle.Arrived
	for _, k := range v.Index.Keys {
		arrived := bundle.Arrived{ID: k.ID, WrappedBy: k.WrappedBy, Refused: "not imported into the vault"}
		if k.MicrosoftManaged() {
			arrived.Refused = "not imported into the tenant"
		}
		if done := h.Key(k.ID); done != nil {
			arrived = *done
		} else if kit := h.LastKit(v.Digest, k.ID); kit != nil && k.MicrosoftManaged() { // on its way, by a person's hand
			arrived.Key, arrived.Refused = kit.PublicKey(k.ID), ""
		}
		if reason := h.Refused[k.ID]; reason != "" {
			arrived.Refused = reason
		}
		arrived.Warnings, arrived.WrappedBy = k.Warnings, k.WrappedBy // who imported the files by hand knew neither
		if k.MicrosoftManaged() && arrived.Tenant == ceremony.StatusActive {
			arrived.Warnings = append(slices.Clone(k.Warnings), control.RMSActive1024.ID)
		}
		keys = append(keys, arrived)
	}
	return keys, nil
}

func receiptLetter(s *state.State, h *ceremony.Journal, r received, want ceremony.Answered) (l bundle.Letter, release func() error, err error) {
	card, _, err := pinnedCard(s)
	if err != nil {
		return l, nil, err
	}
	recipient, err := card.AgeRecipient()
	if err != nil {
		return l, nil, err
	}
	signer, err := s.Signer()
	if err != nil {
		return l, nil, err
	}
	w, world, err := ownWorld(s)
	if err != nil {
		return l, nil, err
	}
	text, err := bundle.ReceiptText{
		Answers: want.Answers, World: fingerprint.Of(world), Threshold: w.Threshold, Approved: r.approved,
		Copy: r.copy, Ledger: s.Ledger.Mark(), Keys: want.Keys,
	}.Encode()
	if err != nil {
		return l, nil, err
	}
	l = bundle.Letter{
		Purpose: bundle.Receipt, Sender: s.Name, Signer: signer, Receiver: card.Signer.Fingerprint(), Recipient: recipient,
		Sequence: uint64(len(h.Receipts)) + 1, Rehearsal: s.Rehearsal, Created: time.Now(),
		Files: []bundle.Content{bundle.Bytes(bundle.ReceiptName, text)},
	}
	if n := len(h.Receipts); n > 0 {
		l.Previous = h.Receipts[n-1].Manifest
	}
	return l, func() error { return nil }, nil
}
