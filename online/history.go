// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"slices"

	"keyferry/bundle"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/trust"
)

// Events of the online ledger, in the order of the ceremony. "init" is package
// state's.
const (
	eventKEK         = "kek"          // kekPackaged
	eventTrust       = "trust"        // cardPinned
	eventAccepted    = "accepted"     // accepted: an upload began
	eventKeyImported = "key-imported" // keyImported
	eventKeyRefused  = "key-refused"  // keyRefused
	eventHandedOver  = "handed-over"  // kitRecord: a kit was written
	eventTPDImported = "tpd-imported" // tpdImported
	eventActivated   = "activated"    // activated
	eventReceipt     = "receipt"      // answered
)

type kekPackaged struct {
	KID     string                  `json:"kid"`
	Number  int                     `json:"number"`
	Package fingerprint.Fingerprint `json:"package"`
}

type cardPinned struct {
	Card fingerprint.Fingerprint `json:"card"`
	Name string                  `json:"name"`
}

type accepted struct {
	Bundle   string                  `json:"bundle"` // its id
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Copy     ledger.Mark             `json:"copy"` // of the ledger that came with it
	Approved []trust.Approver        `json:"approved"`
	Keys     []string                `json:"keys"`
}

type keyImported struct {
	Manifest    fingerprint.Fingerprint `json:"manifest"`
	ID          string                  `json:"id"`
	Key         fingerprint.Fingerprint `json:"key"` // of the vault's public key as PKIX DER
	KeyURL      string                  `json:"key_url"`
	HSMPlatform string                  `json:"hsm_platform"`
	WrappedBy   string                  `json:"wrapped_by"`
}

type keyRefused struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // control ID and message
}

// kitRecord is what a hand-over kit was made of, beside the TPDs.
type kitRecord struct {
	Manifest  fingerprint.Fingerprint `json:"manifest"` // of the bundle; zero without one
	Kit       string                  `json:"kit"`
	Cloud     string                  `json:"cloud"` // of Azure
	Rehearsal bool                    `json:"rehearsal"`
	Active    string                  `json:"active"` // SLC; empty: none
	Keys      []handedKey             `json:"keys"`
}

type handedKey struct {
	ID           string                  `json:"id"`
	File         string                  `json:"file"`
	SLC          string                  `json:"slc"`
	Key          fingerprint.Fingerprint `json:"key"`     // of the TPD's public key as PKIX DER
	KeyURL       string                  `json:"key_url"` // empty: Microsoft-managed
	FriendlyName string                  `json:"friendly_name"`
}

// tpdImported says what the tenant lists, and who says so.
type tpdImported struct {
	ID     string                  `json:"id"`
	SLC    string                  `json:"slc"`
	Key    fingerprint.Fingerprint `json:"key"` // of the TPD's public key as PKIX DER
	Status string                  `json:"status"`
	By     way                     `json:"by"`
}

// activated says which key the tenant lists as the active one. A ledger of an
// earlier version has the identifier alone.
type activated struct {
	ID       string   `json:"id"`
	By       way      `json:"by"`
	Warnings []string `json:"warnings"` // control IDs: what was overruled
}

type answered struct {
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"` // the receipt's
	Answers  fingerprint.Fingerprint `json:"answers"`
	Keys     []bundle.Arrived        `json:"keys"`
}

// history is what the events of the ledger add up to.
type history struct {
	keks     []kekPackaged
	accepted []accepted
	keys     []*bundle.Arrived // what became of each key, oldest first
	refused  map[string]string // why a key's import or its TPD's stopped last, by ID
	kits     []kitRecord
	answers  []answered
}

func readHistory(l *ledger.Ledger) (*history, error) {
	h := &history{refused: map[string]string{}}
	return h, l.Each(h.take)
}

func (h *history) take(e ledger.Entry) error {
	switch e.Event {
	case eventKEK:
		return collect(e, &h.keks)
	case eventAccepted:
		return collect(e, &h.accepted)
	case eventHandedOver:
		return collect(e, &h.kits)
	case eventReceipt:
		return collect(e, &h.answers)
	case eventKeyRefused:
		var d keyRefused
		if err := e.Read(&d); err != nil {
			return err
		}
		h.refused[d.ID] = d.Reason
	case eventKeyImported:
		var d keyImported
		if err := e.Read(&d); err != nil {
			return err
		}
		delete(h.refused, d.ID)
		h.keys = slices.DeleteFunc(h.keys, func(k *bundle.Arrived) bool { return k.ID == d.ID })
		h.keys = append(h.keys, &bundle.Arrived{ID: d.ID, Key: d.Key, KeyURL: d.KeyURL, HSMPlatform: d.HSMPlatform, WrappedBy: d.WrappedBy, Warnings: []string{}})
	case eventTPDImported:
		var d tpdImported
		if err := e.Read(&d); err != nil {
			return err
		}
		if h.key(d.ID) == nil { // it is in no vault: Microsoft-managed
			h.keys = append(h.keys, &bundle.Arrived{ID: d.ID, Key: d.Key, Warnings: []string{}})
		}
		delete(h.refused, d.ID)
		k := h.key(d.ID)
		k.Tenant, k.TenantBy = d.Status, string(d.By)
	case eventActivated:
		var d activated
		if err := e.Read(&d); err != nil {
			return err
		}
		h.activate(d)
	}
	return nil
}

// collect appends an event's data to a list of its kind.
func collect[T any](e ledger.Entry, list *[]T) error {
	var d T
	if err := e.Read(&d); err != nil {
		return err
	}
	*list = append(*list, d)
	return nil
}

// activate makes one key active and archives the former, by the same word.
func (h *history) activate(a activated) {
	for _, k := range h.keys {
		switch {
		case k.ID == a.ID:
			k.Tenant, k.Warnings = statusActive, append([]string{}, a.Warnings...)
		case k.Tenant == statusActive:
			k.Tenant, k.Warnings = statusArchived, []string{}
		default:
			continue
		}
		k.TenantBy = cmp.Or(string(a.By), k.TenantBy)
	}
}

// all says what became of each key that the ledger knows, those too that did not
// arrive.
func (h *history) all() []bundle.Arrived {
	all := []bundle.Arrived{}
	for _, k := range h.keys {
		all = append(all, *k)
	}
	ids := slices.Sorted(maps.Keys(h.refused))
	for _, a := range slices.Backward(h.accepted) {
		ids = slices.Concat(a.Keys, ids)
	}
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(k bundle.Arrived) bool { return k.ID == id }) {
			all = append(all, bundle.Arrived{ID: id, Warnings: []string{}})
		}
	}
	for i := range all {
		all[i].Refused = h.refused[all[i].ID]
	}
	return all
}

// key returns what became of a key, nil if it is neither in the vault nor the
// tenant yet.
func (h *history) key(id string) *bundle.Arrived {
	i := slices.IndexFunc(h.keys, func(k *bundle.Arrived) bool { return k.ID == id })
	if i < 0 {
		return nil
	}
	return h.keys[i]
}

// lastKit is the last kit with a key that came in a bundle, nil if there is
// none.
func (h *history) lastKit(manifest fingerprint.Fingerprint, id string) *kitRecord {
	for _, o := range slices.Backward(h.kits) {
		if o.Manifest == manifest && slices.ContainsFunc(o.Keys, func(k handedKey) bool { return k.ID == id }) {
			return &o
		}
	}
	return nil
}

// taken lists the bundles whose upload began.
func (h *history) taken() []bundle.Taken {
	var taken []bundle.Taken
	for _, a := range h.accepted {
		taken = append(taken, bundle.Taken{Sequence: a.Sequence, Manifest: a.Manifest})
	}
	return taken
}

// lastAccepted is the number of the newest bundle whose upload was begun; 0 of none.
func (h *history) lastAccepted() uint64 {
	last := uint64(0)
	for _, a := range h.accepted {
		last = max(last, a.Sequence)
	}
	return last
}
