// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// ReceiptResult is the receipt that was sealed.
type ReceiptResult struct {
	Path  string // on the stick
	Keys  []bundle.Arrived
	Again bool // it was sealed before
}

// Receipt seals the answer to a bundle: what became of each key. If the last receipt
// says the same, it is that one again; an older one would be refused where a later
// one was taken.
func Receipt(io *cli.IO, s *state.State, j *Journal, r *Received, out string) (*ReceiptResult, error) {
	if err := takeUp(io, j, r); err != nil {
		return nil, err
	}
	keys := became(j, r)
	var open []string
	for _, k := range keys {
		if k.Tenant == "" && k.Refused == "" {
			open = append(open, k.ID)
		}
	}
	if len(open) > 0 {
		io.Warn("this receipt closes nothing yet: whether the tenant has %s is not known here. A receipt that is made once the tenant is done says it", strings.Join(open, ", "))
	}
	io.WarnOfNewDir(out)
	dir, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	want := Answered{Answers: r.Digest, Keys: keys, Out: dir}
	if n := len(j.Receipts); n > 0 && saysSame(j.Receipts[n-1], want) {
		path, err := dispatch.Deliver(s, j.Receipts[n-1].Sequence, out)
		return &ReceiptResult{path, keys, true}, err
	}
	// A run that was stopped may have sealed another receipt under the next number:
	// that one goes first.
	for {
		path, sent, err := dispatch.Dispatch[Answered]{
			State: s, Out: out, Sequence: uint64(len(j.Receipts)) + 1, Event: EventReceipt,
			Letter: func() (bundle.Letter, func() error, error) { return letter(s, j, r, want) },
			Record: func(b *bundle.Sealed) Answered {
				return Answered{b.Manifest.Sequence, b.Digest, want.Answers, want.Keys, want.Out}
			},
		}.Send()
		if err != nil || saysSame(sent, want) {
			return &ReceiptResult{path, keys, false}, err
		}
		j.Receipts = append(j.Receipts, sent)
		io.Note("%s: a receipt for %s, which a run that was stopped had sealed; the one that was asked for comes after it", path, sent.Answers)
	}
}

func saysSame(a, b Answered) bool {
	return a.Answers == b.Answers && reflect.DeepEqual(a.Keys, b.Keys)
}

// takeUp records that the upload of the bundle was begun, where its keys were
// imported as files: by import-tpd, of which the bundle was not known then.
func takeUp(io *cli.IO, j *Journal, r *Received) error {
	if j.IsAccepted(r.Digest) {
		return nil
	}
	for _, k := range r.Index.Keys {
		if j.arrived(k) != nil {
			return j.Record(EventAccepted, *r.Acceptance())
		}
	}
	return control.ReceiptEarly.Refuse("the upload of this bundle was not begun")
}

// arrived is what became of a bundle's key, under whatever identifier it came in; nil
// if nothing did.
func (j *Journal) arrived(k bundle.Key) *Key {
	print := fingerprint.Of(k.PublicKey)
	var ciphertext fingerprint.Fingerprint
	for _, f := range k.Files {
		if f.Path == bundle.KeyPath(k.ID, bundle.WrappedName) {
			ciphertext = f.SHA256
		}
	}
	if known := j.Key(k.ID); known != nil && known.Arrived.Key == print {
		return known
	}
	if made := j.Made(ciphertext); made != nil && made.Arrived.Key == print {
		return made
	}
	return nil
}

// became says what became of each key of a bundle.
func became(j *Journal, r *Received) []bundle.Arrived {
	var keys []bundle.Arrived
	for _, k := range r.Index.Keys {
		a := bundle.Arrived{ID: k.ID, KEK: k.KEK, WrappedBy: k.WrappedBy, Refused: "not imported into the vault"}
		if k.MicrosoftManaged() {
			a.Refused = "not imported into the tenant"
		}
		if done := j.arrived(k); done != nil {
			a = done.Arrived
			a.ID, a.KEK, a.WrappedBy = k.ID, k.KEK, k.WrappedBy
		} else if kit := j.onItsWay(k); kit != nil && k.MicrosoftManaged() { // by a person's hand
			a.Key, a.Refused = kit.Key, ""
		}
		if reason := j.Refused[k.ID]; reason != "" {
			a.Refused = reason
		}
		a.Warnings = k.Warnings
		if k.MicrosoftManaged() && a.Tenant == StatusActive {
			a.Warnings = append(slices.Clone(k.Warnings), control.RMSActive1024.ID)
		}
		keys = append(keys, a)
	}
	return keys
}

// letter is the receipt, to be sealed.
func letter(s *state.State, j *Journal, r *Received, want Answered) (l bundle.Letter, release func() error, err error) {
	card, _, err := PinnedCard(s)
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
	w, world, err := OwnWorld(s)
	if err != nil {
		return l, nil, err
	}
	text, err := bundle.ReceiptText{
		Answers: want.Answers, World: fingerprint.Of(world), Threshold: w.Threshold, Approved: r.Approved,
		Copy: r.Copy, Ledger: s.Ledger.Mark(), Keys: want.Keys,
	}.Encode()
	if err != nil {
		return l, nil, err
	}
	l = bundle.Letter{
		Purpose: bundle.Receipt, Sender: s.Name, Signer: signer, Receiver: card.Signer.Fingerprint(), Recipient: recipient,
		Sequence: uint64(len(j.Receipts)) + 1, Rehearsal: s.Rehearsal, Created: time.Now(),
		Files: []bundle.Content{{Path: bundle.ReceiptName, Data: text}},
	}
	if n := len(j.Receipts); n > 0 {
		l.Previous = j.Receipts[n-1].Manifest
	}
	return l, func() error { return nil }, nil
}
