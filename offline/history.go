// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/trust"
)

// Events of the offline ledger, in the order of the ceremony. "init" is
// package state's.
const (
	eventTrust        = "trust"         // worldPinned
	eventSurroundings = "surroundings"  // surroundings, before the first change of a run
	eventImportBegun  = "import-begun"  // importBegun: the token is about to be changed
	eventImportUndone = "import-undone" // importBegun: it failed, and nothing is left in the token
	eventImported     = "imported"      // imported
	eventWrapped      = "wrapped"       // imported: the same of a key that was in the token already
	eventHardened     = "hardened"      // hardened: how a wrap ends, unless it retains
	eventSealed       = "sealed"        // sealed
	eventApproved     = "approved"      // approved
	eventReceipt      = "receipt"       // received
)

type worldPinned struct {
	World  fingerprint.Fingerprint `json:"world"`
	Name   string                  `json:"name"`
	Region string                  `json:"region"`
	Vault  string                  `json:"vault"`
}

type importBegun struct {
	ID  string                  `json:"id"`
	Key fingerprint.Fingerprint `json:"key"` // of the public key as PKIX DER
}

type imported struct {
	ID          string                  `json:"id"`
	Disposition string                  `json:"disposition"` // bundle.Disposition…
	Key         fingerprint.Fingerprint `json:"key"`
	SLC         string                  `json:"slc"`
	TPD         fingerprint.Fingerprint `json:"tpd"` // of the export's bytes
	KEK         string                  `json:"kek"` // "" for a Microsoft-managed key, as are the next two
	WrappedBy   string                  `json:"wrapped_by"`
	Mechanism   string                  `json:"mechanism"`
	Wrapped     fingerprint.Fingerprint `json:"wrapped"` // of the ciphertext
	Retained    bool                    `json:"retained_extractable"`
	Warnings    []string                `json:"warnings"` // control IDs
}

type hardened struct {
	ID       string                  `json:"id"`
	Key      fingerprint.Fingerprint `json:"key"`
	Retained bool                    `json:"retained_extractable"` // the person decided otherwise meanwhile
}

type sealed struct {
	Bundle   string                  `json:"bundle"` // its id
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Keys     []string                `json:"keys"`
}

type approved struct {
	Manifest  fingerprint.Fingerprint `json:"manifest"`
	Approver  trust.Approver          `json:"approver"`
	Signature fingerprint.Fingerprint `json:"signature"` // of the file
}

type received struct {
	Sequence uint64                  `json:"sequence"` // of the receipt
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Answers  fingerprint.Fingerprint `json:"answers"` // manifest of the bundle
	Ledger   ledger.Mark             `json:"ledger"`  // of the connected side's own
	Keys     []bundle.Arrived        `json:"keys"`
}

// Stages of a key on its way.
const (
	stageBegun    = "begun"   // a run was stopped while it changed the token
	stageWrapped  = "wrapped" // in the outbox, but still extractable in the token
	stageStaged   = "staged"  // in the outbox, and in the token unless it is Microsoft-managed
	stageSealed   = "sealed"  // on the stick
	stageArrived  = "arrived" // the receipt says where
	stageReturned = "refused" // the receipt says why not
)

// keyState is what the ledger says of a key.
type keyState struct {
	ID          string                  `json:"id"`
	Stage       string                  `json:"stage"`
	Disposition string                  `json:"disposition"`
	Key         fingerprint.Fingerprint `json:"key"`
	SLC         string                  `json:"slc"`
	KEK         string                  `json:"kek"` // none for a Microsoft-managed key
	WrappedBy   string                  `json:"wrapped_by"`
	Bundle      uint64                  `json:"bundle"`    // sequence; 0 before it is sealed
	KeyURL      string                  `json:"key_url"`   // none for a Microsoft-managed key
	Tenant      string                  `json:"tenant"`    // Archived or Active
	TenantBy    string                  `json:"tenant_by"` // who says so, as in bundle.Arrived

	paper paper
}

// paper is what else the key's page says.
type paper struct {
	began     time.Time
	stored    bool     // the key was in the token before: wrapped, not imported
	record    imported // zero before the key is staged
	at        time.Time
	bundle    sealed // the newest with the key; zero before it is sealed
	sealedAt  time.Time
	arrived   *bundle.Arrived // nil without a receipt for that bundle
	arrivedAt time.Time
	theirs    ledger.Mark // the connected side's ledger, when it sealed the receipt
}

// approval is when a bundle was approved, and by whom.
type approval struct {
	at time.Time
	by trust.Approver
}

// history is what the events of the ledger add up to.
type history struct {
	keys     []*keyState
	bundles  []sealed
	receipts []bundle.Taken

	approvals map[fingerprint.Fingerprint][]approval // of bundles, by manifest
}

func readHistory(l *ledger.Ledger) (*history, error) {
	h := &history{approvals: map[fingerprint.Fingerprint][]approval{}}
	return h, l.Each(h.take)
}

func (h *history) take(e ledger.Entry) error {
	switch e.Event {
	case eventImportBegun:
		var d importBegun
		if err := e.Read(&d); err != nil {
			return err
		}
		if h.key(d.ID) == nil {
			h.keys = append(h.keys, &keyState{ID: d.ID, Key: d.Key, Stage: stageBegun, paper: paper{began: e.Time}})
		}
	case eventImportUndone:
		var d importBegun
		if err := e.Read(&d); err != nil {
			return err
		}
		h.keys = slices.DeleteFunc(h.keys, func(k *keyState) bool { return k.ID == d.ID && k.Stage == stageBegun })
	case eventImported:
		var d imported
		if err := e.Read(&d); err != nil {
			return err
		}
		if k := h.key(d.ID); k != nil {
			k.Stage, k.Disposition, k.SLC, k.KEK, k.WrappedBy = stageStaged, d.Disposition, d.SLC, d.KEK, d.WrappedBy
			k.paper = paper{record: d, at: e.Time}
		}
	case eventWrapped:
		return h.takeWrapped(e)
	case eventHardened:
		var d hardened
		if err := e.Read(&d); err != nil {
			return err
		}
		if k := h.key(d.ID); k != nil {
			k.Stage, k.paper.record.Retained = stageStaged, d.Retained
		}
	case eventSealed:
		return h.takeSealed(e)
	case eventApproved:
		return h.takeApproved(e)
	case eventReceipt:
		return h.takeReceipt(e)
	}
	return nil
}

// takeWrapped begins anew with a key that may have been on its way before.
func (h *history) takeWrapped(e ledger.Entry) error {
	var d imported
	if err := e.Read(&d); err != nil {
		return err
	}
	k := h.key(d.ID)
	if k == nil {
		k = &keyState{}
		h.keys = append(h.keys, k)
	}
	*k = keyState{ID: d.ID, Disposition: d.Disposition, Key: d.Key, SLC: d.SLC, KEK: d.KEK, WrappedBy: d.WrappedBy, Stage: stageWrapped}
	k.paper = paper{stored: true, record: d, at: e.Time}
	if d.Retained {
		k.Stage = stageStaged
	}
	return nil
}

func (h *history) takeSealed(e ledger.Entry) error {
	var d sealed
	if err := e.Read(&d); err != nil {
		return err
	}
	h.bundles = append(h.bundles, d)
	for _, id := range d.Keys {
		if k := h.key(id); k != nil {
			k.Stage, k.Bundle = stageSealed, d.Sequence
			k.paper.bundle, k.paper.sealedAt = d, e.Time
		}
	}
	return nil
}

func (h *history) takeApproved(e ledger.Entry) error {
	var d approved
	if err := e.Read(&d); err != nil {
		return err
	}
	h.approvals[d.Manifest] = append(h.approvals[d.Manifest], approval{e.Time, d.Approver})
	return nil
}

func (h *history) takeReceipt(e ledger.Entry) error {
	var d received
	if err := e.Read(&d); err != nil {
		return err
	}
	h.receipts = append(h.receipts, bundle.Taken{Sequence: d.Sequence, Manifest: d.Manifest})
	i := slices.IndexFunc(h.bundles, func(b sealed) bool { return b.Manifest == d.Answers })
	for _, a := range d.Keys {
		// A key that was wrapped again since is on its way again.
		if k := h.key(a.ID); k != nil && i >= 0 && k.Bundle == h.bundles[i].Sequence {
			k.Stage, k.KeyURL, k.Tenant, k.TenantBy = stageArrived, a.KeyURL, a.Tenant, a.TenantBy
			k.paper.arrived, k.paper.arrivedAt, k.paper.theirs = &a, e.Time, d.Ledger
			switch {
			case a.Refused != "":
				k.Stage = stageReturned
			case a.KeyURL == "" && a.Tenant == "": // handed over, and not known to have arrived
				k.Stage = stageSealed
			}
		}
	}
	return nil
}

// key returns the state of a key, nil if the ledger does not know it.
func (h *history) key(id string) *keyState {
	i := slices.IndexFunc(h.keys, func(k *keyState) bool { return k.ID == id })
	if i < 0 {
		return nil
	}
	return h.keys[i]
}

// staged lists the keys that wait to be sealed, oldest first.
func (h *history) staged() []string {
	var ids []string
	for _, k := range h.keys {
		if k.Stage == stageStaged {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// inBundles lists the keys that are in a bundle, and not staged again since.
func (h *history) inBundles() []string {
	var ids []string
	for _, k := range h.keys {
		if k.Bundle > 0 {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// lastBundle is the newest bundle sealed; zero if there is none.
func (h *history) lastBundle() sealed {
	if len(h.bundles) == 0 {
		return sealed{}
	}
	return h.bundles[len(h.bundles)-1]
}

// sealedLast reports whether the key is in the newest bundle and nothing is known
// of what became of it.
func (h *history) sealedLast(k *keyState) bool {
	return k.Stage == stageSealed && k.Bundle == h.lastBundle().Sequence
}

// approvers are those who have approved a bundle; none is not nil.
func (h *history) approvers(b sealed) []trust.Approver {
	who := []trust.Approver{}
	for _, a := range h.approvals[b.Manifest] {
		who = append(who, a.by)
	}
	return who
}
