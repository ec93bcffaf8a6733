// SPDX-License-Identifier: Apache-2.0

// Package ceremony is what the connected side does, in the order of the day:
// it receives a bundle, plans and carries out its upload into the vault and the
// tenant, hands the tenant's part over where a person must do it, and answers
// with a receipt.
//
// What happened is in the side's ledger alone. A [Journal] is what its events
// add up to.
package ceremony

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/trust"
)

// Events of the online ledger, in the order of the ceremony. "init" is package
// state's.
const (
	EventWorld       = "world"        // WorldMade: with init, and when other approvers were named
	EventKEK         = "kek"          // KEKPackaged
	EventTrust       = "trust"        // CardPinned
	EventPackaged    = "packaged"     // Packaged: a .byok and a TPD of each key were written
	EventAccepted    = "accepted"     // Accepted: an upload began
	EventKeyImported = "key-imported" // KeyImported
	EventKeyStray    = "key-stray"    // KeyStray: the vault made another key of a .byok than its TPD has
	EventKeyRefused  = "key-refused"  // KeyRefused
	EventHandedOver  = "handed-over"  // HandedOver: a kit was written
	EventTPDsBegun   = "tpds-begun"   // TPDsBegun: the import of TPDs began
	EventTPDImported = "tpd-imported" // TPDImported
	EventActivated   = "activated"    // Activated
	EventReceipt     = "receipt"      // Answered
)

// Statuses of a key in the tenant, as receipts have them.
const (
	StatusActive   = string(tenant.Active)
	StatusArchived = string(tenant.Archived)
)

// WorldMade says which security world is this side's from now on.
type WorldMade struct {
	World     fingerprint.Fingerprint `json:"world"`
	Vault     string                  `json:"vault"`
	Approvers []trust.Approver        `json:"approvers"`
	Threshold int                     `json:"threshold"`
}

// KEKPackaged says that a KEK's package was written.
type KEKPackaged struct {
	KID     string                  `json:"kid"`
	KEK     fingerprint.Fingerprint `json:"kek"` // of its PKIX DER
	Number  int                     `json:"number"`
	Package fingerprint.Fingerprint `json:"package"`
	Out     string                  `json:"out"` // directory that it was written to

	at time.Time
}

// CardPinned says that the offline side's card was pinned.
type CardPinned struct {
	Card fingerprint.Fingerprint `json:"card"`
	Name string                  `json:"name"`
}

// Accepted says that the upload of a bundle began.
type Accepted struct {
	Bundle   string                  `json:"bundle"` // its id
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Previous fingerprint.Fingerprint `json:"previous"` // manifest before it, as it says
	Copy     ledger.Mark             `json:"copy"`     // of the ledger that came with it
	Approved []trust.Approver        `json:"approved"`
	Keys     []string                `json:"keys"`
	Path     string                  `json:"path"`   // where the bundle was read
	Active   string                  `json:"active"` // the key to make active; empty: none

	OutOfOrder bool `json:"out_of_order"` // after a newer one, by a flag
}

// Packaged says that the keys of a bundle were written as files for other tools.
type Packaged struct {
	Of    Accepted      `json:"of"` // the bundle, as it is accepted once one of the files is imported here
	Files []PackagedKey `json:"files"`
}

// PackagedKey has the digests by which the files of a key are known again.
type PackagedKey struct {
	ID         string                   `json:"id"`
	SLC        string                   `json:"slc"`
	Key        fingerprint.Fingerprint  `json:"key"`        // of the public key as PKIX DER
	Ciphertext fingerprint.Fingerprint  `json:"ciphertext"` // in the .byok; zero where there is none
	BYOK       fingerprint.Fingerprint  `json:"byok"`       // of the whole file; zero where there is none
	TPD        fingerprint.Fingerprint  `json:"tpd"`
	KEK        *fingerprint.Fingerprint `json:"kek"` // of its PKIX DER, as in the bundle's index
	WrappedBy  string                   `json:"wrapped_by"`
}

// KeyImported says which key the vault has, after it was compared with the key
// that travelled.
type KeyImported struct {
	Manifest    fingerprint.Fingerprint  `json:"manifest"` // of the bundle; zero where none is known
	ID          string                   `json:"id"`
	Key         fingerprint.Fingerprint  `json:"key"`        // of the vault's public key as PKIX DER
	Ciphertext  fingerprint.Fingerprint  `json:"ciphertext"` // of which the vault made it
	KeyURL      string                   `json:"key_url"`
	HSMPlatform string                   `json:"hsm_platform"`
	KEK         *fingerprint.Fingerprint `json:"kek"` // of its PKIX DER; null of files without a bundle
	WrappedBy   string                   `json:"wrapped_by"`
}

// KeyStray says that the vault holds a key that belongs to no TPD it was imported
// with.
type KeyStray struct {
	Ciphertext fingerprint.Fingerprint `json:"ciphertext"`
	Key        fingerprint.Fingerprint `json:"key"` // of the vault's public key as PKIX DER
	KeyURL     string                  `json:"key_url"`
}

// KeyRefused says why the import of a key or its TPD stopped.
type KeyRefused struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // control ID and message
}

// HandedOver says of what a hand-over kit was made, except for the TPDs.
type HandedOver struct {
	Manifest  fingerprint.Fingerprint `json:"manifest"` // of the bundle; zero without one
	Kit       string                  `json:"kit"`
	Script    fingerprint.Fingerprint `json:"script"` // of the kit, as a person compares it before it runs
	Dir       string                  `json:"dir"`    // that it was written to
	Again     []string                `json:"again"`  // the command that takes its result, without --result
	Cloud     string                  `json:"cloud"`  // of Azure
	Rehearsal bool                    `json:"rehearsal"`
	Active    string                  `json:"active"` // SLC; empty: none
	Keys      []HandedKey             `json:"keys"`
}

// HandedKey is a key of a hand-over kit.
type HandedKey struct {
	ID           string                  `json:"id"`
	File         string                  `json:"file"`
	SLC          string                  `json:"slc"`
	Key          fingerprint.Fingerprint `json:"key"`     // of the TPD's public key as PKIX DER
	Public       []byte                  `json:"public"`  // the key itself, PKIX DER, by which a result is judged
	KeyURL       string                  `json:"key_url"` // empty: Microsoft-managed
	FriendlyName string                  `json:"friendly_name"`
	Licensing    []string                `json:"licensing"` // as in TPDImported
}

// TPDsBegun lists the TPDs that the tenant did not have when their import began:
// of a Microsoft-managed key it shows nothing else by which it is known again.
type TPDsBegun struct {
	SLCs []string `json:"slcs"`
}

// TPDImported says what the tenant lists, and who says so.
type TPDImported struct {
	ID     string                  `json:"id"`
	SLC    string                  `json:"slc"`
	Key    fingerprint.Fingerprint `json:"key"` // of the TPD's public key as PKIX DER
	Status string                  `json:"status"`
	By     Way                     `json:"by"`

	Result    *fingerprint.Fingerprint `json:"result"`    // digest of the kit's, as a person compared it; null without a kit
	Licensing []string                 `json:"licensing"` // URLs of the AD RMS cluster, which its clients know
}

// Activated says which key the tenant lists as the active one.
type Activated struct {
	ID       string   `json:"id"`
	By       Way      `json:"by"`
	Warnings []string `json:"warnings"` // control IDs: what was overruled
}

// Answered says that a receipt was sealed.
type Answered struct {
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"` // the receipt's
	Answers  fingerprint.Fingerprint `json:"answers"`
	Keys     []bundle.Arrived        `json:"keys"`
	Out      string                  `json:"out"` // directory that it was written to
}

// Key is what became of a key.
type Key struct {
	bundle.Arrived
	Ciphertext fingerprint.Fingerprint // of which the vault made it; zero of a Microsoft-managed key
	Licensing  []string                // URLs of the AD RMS cluster
}

// Journal is what the events of the ledger add up to.
type Journal struct {
	KEKs     []KEKPackaged
	Packages []Packaged
	Bundles  []Accepted        // whose upload was begun
	Keys     []*Key            // oldest first
	Refused  map[string]string // why a key's import or its TPD's stopped last, by ID
	Strays   []KeyStray
	Begun    map[string]bool // SLCs that the tenant did not have when the import of their TPDs began
	Kits     []HandedOver
	Receipts []Answered

	Activated []string // identifiers of the keys that were the active one at some time

	OldKEKs int    // packages of KEKs that belong to a former security world
	Stick   string // directory that the stick had last; empty: none is known

	ledger *ledger.Ledger
}

// ReadJournal adds up the events of a ledger.
func ReadJournal(l *ledger.Ledger) (*Journal, error) {
	j := newJournal(l)
	return j, l.Each(j.take)
}

func newJournal(l *ledger.Ledger) *Journal {
	return &Journal{Refused: map[string]string{}, Begun: map[string]bool{}, ledger: l}
}

// Record appends an event to the ledger and to the journal.
func (j *Journal) Record(event string, data any) error {
	if err := j.ledger.Append(time.Now(), event, data); err != nil {
		return err
	}
	entries := j.ledger.Entries()
	return j.take(entries[len(entries)-1])
}

func (j *Journal) take(e ledger.Entry) error {
	switch e.Event {
	case EventWorld:
		j.OldKEKs = len(j.KEKs)
	case EventKEK:
		err := collect(e, &j.KEKs)
		if err == nil {
			j.KEKs[len(j.KEKs)-1].at, j.Stick = e.Time, last(j.KEKs).Out
		}
		return err
	case EventPackaged:
		err := collect(e, &j.Packages)
		j.Stick = filepath.Dir(last(j.Packages).Of.Path)
		return err
	case EventAccepted:
		err := collect(e, &j.Bundles)
		j.Stick = filepath.Dir(last(j.Bundles).Path)
		return err
	case EventKeyStray:
		return collect(e, &j.Strays)
	case EventHandedOver:
		return collect(e, &j.Kits)
	case EventReceipt:
		err := collect(e, &j.Receipts)
		j.Stick = last(j.Receipts).Out
		return err
	case EventKeyRefused:
		var d KeyRefused
		if err := e.Read(&d); err != nil {
			return err
		}
		j.Refused[d.ID] = d.Reason
	case EventKeyImported:
		var d KeyImported
		if err := e.Read(&d); err != nil {
			return err
		}
		k := &Key{bundle.Arrived{ID: d.ID, Key: d.Key, KeyURL: d.KeyURL, HSMPlatform: d.HSMPlatform, KEK: d.KEK, WrappedBy: d.WrappedBy, Warnings: []string{}}, d.Ciphertext, nil}
		// A key of the vault is one key of the ceremony, under its last name: what
		// the tenant has of it stays true.
		for _, old := range j.Keys {
			if old.KeyURL == d.KeyURL {
				k.Tenant, k.TenantBy, k.Warnings, k.Licensing = old.Tenant, old.TenantBy, old.Warnings, old.Licensing
			}
		}
		delete(j.Refused, d.ID)
		j.Keys = append(slices.DeleteFunc(j.Keys, func(old *Key) bool { return old.ID == d.ID || old.KeyURL == d.KeyURL }), k)
		j.Strays = slices.DeleteFunc(j.Strays, func(stray KeyStray) bool { return stray.KeyURL == d.KeyURL })
	case EventTPDsBegun:
		var d TPDsBegun
		if err := e.Read(&d); err != nil {
			return err
		}
		for _, slc := range d.SLCs {
			j.Begun[slc] = true
		}
	case EventTPDImported:
		var d TPDImported
		if err := e.Read(&d); err != nil {
			return err
		}
		delete(j.Refused, d.ID)
		k := j.Key(d.ID)
		if k == nil { // it is in no vault: Microsoft-managed
			k = &Key{Arrived: bundle.Arrived{ID: d.ID, Key: d.Key, Warnings: []string{}}}
			j.Keys = append(j.Keys, k)
		}
		k.Tenant, k.TenantBy, k.Licensing = d.Status, string(d.By), d.Licensing
	case EventActivated:
		var d Activated
		if err := e.Read(&d); err != nil {
			return err
		}
		j.activate(d)
		j.Activated = append(j.Activated, d.ID)
	}
	return nil
}

// last is the last element of a list, the zero value if it is empty.
func last[T any](list []T) (e T) {
	if n := len(list); n > 0 {
		e = list[n-1]
	}
	return e
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
func (j *Journal) activate(a Activated) {
	for _, k := range j.Keys {
		switch {
		case k.ID == a.ID:
			k.Tenant, k.Warnings = StatusActive, append([]string{}, a.Warnings...)
		case k.Tenant == StatusActive:
			k.Tenant, k.Warnings = StatusArchived, []string{}
		default:
			continue
		}
		k.TenantBy = cmp.Or(string(a.By), k.TenantBy)
	}
}

// All says what became of each key that the ledger knows, also of those that did
// not arrive.
func (j *Journal) All() []bundle.Arrived {
	all := []bundle.Arrived{}
	known := map[string]bool{}
	for _, k := range j.Keys {
		all, known[k.ID] = append(all, k.Arrived), true
	}
	ids := slices.Sorted(maps.Keys(j.Refused))
	for _, a := range slices.Backward(j.Bundles) {
		ids = slices.Concat(a.Keys, ids)
	}
	for _, id := range ids {
		if !known[id] {
			all, known[id] = append(all, bundle.Arrived{ID: id, Warnings: []string{}}), true
		}
	}
	for i := range all {
		all[i].Refused = j.Refused[all[i].ID]
	}
	return all
}

// Key returns what became of a key, nil if it is neither in the vault nor in the
// tenant yet.
func (j *Journal) Key(id string) *Key {
	return j.find(func(k *Key) bool { return k.ID == id })
}

// Made returns the key that the vault made of a ciphertext, nil if there is none.
func (j *Journal) Made(ciphertext fingerprint.Fingerprint) *Key {
	return j.find(func(k *Key) bool { return k.Ciphertext == ciphertext && k.KeyURL != "" })
}

func (j *Journal) find(is func(*Key) bool) *Key {
	if i := slices.IndexFunc(j.Keys, is); i >= 0 {
		return j.Keys[i]
	}
	return nil
}

// Packaged looks for a file that `online package` wrote, newest first: its key, and
// the bundle that held it; nil if there is none.
func (j *Journal) Packaged(is func(PackagedKey) bool) (*PackagedKey, *Accepted) {
	for _, p := range slices.Backward(j.Packages) {
		if i := slices.IndexFunc(p.Files, is); i >= 0 {
			return &p.Files[i], &p.Of
		}
	}
	return nil, nil
}

// IsAccepted reports whether the upload of a bundle was begun.
func (j *Journal) IsAccepted(manifest fingerprint.Fingerprint) bool {
	return slices.ContainsFunc(j.Bundles, func(a Accepted) bool { return a.Manifest == manifest })
}

// LastReceipt is the newest receipt for a bundle, nil if there is none.
func (j *Journal) LastReceipt(bundle fingerprint.Fingerprint) *Answered {
	for _, a := range slices.Backward(j.Receipts) {
		if a.Answers == bundle {
			return &a
		}
	}
	return nil
}

// Taken lists the bundles that this side goes on with when they come again: those
// whose upload began, and those that were packaged before a later one was taken.
func (j *Journal) Taken() []bundle.Taken {
	var taken []bundle.Taken
	for _, a := range j.Bundles {
		taken = append(taken, bundle.Taken{Sequence: a.Sequence, Manifest: a.Manifest, Previous: a.Previous})
	}
	for _, p := range j.Packages {
		if p.Of.Sequence < j.LastAccepted() && !j.IsAccepted(p.Of.Manifest) {
			taken = append(taken, bundle.Taken{Sequence: p.Of.Sequence, Manifest: p.Of.Manifest, Previous: p.Of.Previous})
		}
	}
	return taken
}

// LastAccepted is the number of the newest bundle whose upload was begun, 0 if
// there is none.
func (j *Journal) LastAccepted() uint64 {
	last := uint64(0)
	for _, a := range j.Bundles {
		last = max(last, a.Sequence)
	}
	return last
}
