// SPDX-License-Identifier: Apache-2.0

// Package ceremony carries keys over on the disconnected side: import and wrap
// bring them to the outbox, seal puts them into a bundle, approve attaches
// approvals to it, receipt takes the answer.
//
// Each changes the token, the outbox or a stick, and tells the ledger. The
// journal is what the ledger's events add up to: where each key is on its way.
package ceremony

import (
	"path/filepath"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/trust"
)

// Events of the offline ledger, in the order of the ceremony. "init" is
// package state's.
const (
	EventCard         = "card"          // CardGiven
	EventTrust        = "trust"         // WorldPinned
	EventKEK          = "kek"           // KEKTaken: keys are wrapped for it from now on
	EventSurroundings = "surroundings"  // Surroundings, before the first change of a run
	EventImportBegun  = "import-begun"  // ImportBegun: the token is about to be changed
	EventImportUndone = "import-undone" // ImportBegun: it failed, and nothing is left in the token
	EventImported     = "imported"      // Imported
	EventWrapped      = "wrapped"       // Imported: the same of a key that was in the token already
	EventHardened     = "hardened"      // Hardened: how a wrap ends, unless it retains
	EventSealed       = "sealed"        // Sealed
	EventApproved     = "approved"      // Approved
	EventReleased     = "released"      // Released: a bundle that was held back for approvals has left
	EventReceipt      = "receipt"       // Received
	EventCleaned      = "cleaned"       // Cleaned: what a dress rehearsal stored is taken out of the token
)

// CardGiven tells that init has put this side's card on the stick.
type CardGiven struct {
	Out string `json:"out"` // directory that it was written to
}

// WorldPinned tells whose security world was pinned.
type WorldPinned struct {
	World  fingerprint.Fingerprint `json:"world"`
	Name   string                  `json:"name"`
	Region string                  `json:"region"`
	Vault  string                  `json:"vault"`

	Path      string           `json:"path"` // where the package was read
	Number    int              `json:"number"`
	Approvers []trust.Approver `json:"approvers"`
	Threshold int              `json:"threshold"`
}

// KEKTaken tells which KEK keys are wrapped for from now on. A person has compared its
// fingerprint, in a real ceremony.
type KEKTaken struct {
	KID     string                  `json:"kid"`
	KEK     fingerprint.Fingerprint `json:"kek"` // of its PKIX DER
	Number  int                     `json:"number"`
	Package fingerprint.Fingerprint `json:"package"` // of the package's file
}

// ImportBegun tells that the token is about to be changed for a key.
type ImportBegun struct {
	ID  string                  `json:"id"`
	Key fingerprint.Fingerprint `json:"key"` // of the public key as PKIX DER
}

// Imported tells that a key is in the outbox.
type Imported struct {
	ID          string                  `json:"id"`
	Disposition string                  `json:"disposition"` // bundle.Disposition…
	Key         fingerprint.Fingerprint `json:"key"`
	SLC         string                  `json:"slc"`
	TPD         fingerprint.Fingerprint `json:"tpd"`     // of the export's bytes
	Package     string                  `json:"package"` // where the KEK package was read
	KEK         string                  `json:"kek"`     // its kid; "" for a Microsoft-managed key, as are the next two
	WrappedBy   string                  `json:"wrapped_by"`
	Mechanism   string                  `json:"mechanism"`
	Wrapped     fingerprint.Fingerprint `json:"wrapped"` // of the ciphertext
	Retained    bool                    `json:"retained_extractable"`
	Warnings    []string                `json:"warnings"`           // control IDs
	Accepted    []string                `json:"accepted_templates"` // that do not verify, by GUID

	KEKPrint *fingerprint.Fingerprint `json:"kek_fingerprint"` // of the KEK's PKIX DER; null for a Microsoft-managed key
}

// Hardened tells that a wrapped key was made non-extractable in the token.
type Hardened struct {
	ID       string                  `json:"id"`
	Key      fingerprint.Fingerprint `json:"key"`
	Retained bool                    `json:"retained_extractable"` // the person decided otherwise meanwhile
}

// Sealed tells of a bundle.
type Sealed struct {
	Bundle   string                  `json:"bundle"` // its id
	Sequence uint64                  `json:"sequence"`
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Keys     []string                `json:"keys"`
	HeldBack bool                    `json:"held_back"` // only the request for approvals has left
	Out      string                  `json:"out"`       // directory that it was written to

	at time.Time
}

// Released tells that a bundle has left that was held back.
type Released struct {
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Approved []trust.Approver        `json:"approved"`
}

// Cleaned tells what is about to be removed from the token of a dress rehearsal.
type Cleaned struct {
	Objects []string `json:"objects"`
}

// Approved tells of an approver's signature.
type Approved struct {
	Manifest  fingerprint.Fingerprint `json:"manifest"`
	Approver  trust.Approver          `json:"approver"`
	Signature fingerprint.Fingerprint `json:"signature"` // of the file
}

// Received tells of a receipt.
type Received struct {
	Sequence uint64                  `json:"sequence"` // of the receipt
	Manifest fingerprint.Fingerprint `json:"manifest"`
	Previous fingerprint.Fingerprint `json:"previous"` // manifest of the receipt before
	Answers  fingerprint.Fingerprint `json:"answers"`  // manifest of the bundle
	Ledger   ledger.Mark             `json:"ledger"`   // of the connected side's own
	Keys     []bundle.Arrived        `json:"keys"`
}

// Stage is how far a key has come.
type Stage string

const (
	Begun    Stage = "begun"   // a run was stopped while it changed the token
	Wrapped  Stage = "wrapped" // in the outbox, but still extractable in the token
	Staged   Stage = "staged"  // in the outbox, and in the token unless it is Microsoft-managed
	InBundle Stage = "sealed"
	Arrived  Stage = "arrived" // the receipt says where
	Returned Stage = "refused" // the receipt says why not
)

// Key is where a key is on its way, and how it came there.
type Key struct {
	ID          string                  `json:"id"`
	Stage       Stage                   `json:"stage"`
	Disposition string                  `json:"disposition"`
	Key         fingerprint.Fingerprint `json:"key"`
	SLC         string                  `json:"slc"`
	KEK         string                  `json:"kek"` // none for a Microsoft-managed key
	WrappedBy   string                  `json:"wrapped_by"`
	Bundle      uint64                  `json:"bundle"`    // sequence; 0 before it is sealed
	KeyURL      string                  `json:"key_url"`   // none for a Microsoft-managed key
	Tenant      string                  `json:"tenant"`    // Archived or Active
	TenantBy    string                  `json:"tenant_by"` // who says so, as in bundle.Arrived

	BegunAt    time.Time       `json:"-"`
	StagedAt   time.Time       `json:"-"` // zero before it is staged
	SealedAt   time.Time       `json:"-"`
	AnsweredAt time.Time       `json:"-"`
	Stored     bool            `json:"-"` // the key was in the token before: wrapped, not imported
	Record     Imported        `json:"-"` // zero before it is staged
	Sealed     Sealed          `json:"-"` // the newest bundle with the key
	Answer     *bundle.Arrived `json:"-"` // the receipt for that bundle; nil without one
	Theirs     ledger.Mark     `json:"-"` // the connected side's ledger, when it sealed the receipt
}

// Managed reports whether the key stays in its TPD and goes into no HSM.
func (k *Key) Managed() bool { return k.Disposition == bundle.DispositionMicrosoftManaged }

// Approval is when a bundle was approved, and by whom.
type Approval struct {
	At time.Time
	By trust.Approver
}

// Journal is what the events of the ledger add up to.
type Journal struct {
	World     *WorldPinned // nil before it is pinned
	KEKs      []KEKTaken   // oldest first
	Keys      []*Key       // oldest first
	Bundles   []Sealed     // oldest first; the last one may be held back still
	Receipts  []bundle.Taken
	Stick     string                                 // directory that the stick had last; "" if none is known
	Package   string                                 // where the KEK package was read last; "" if none was
	Approvals map[fingerprint.Fingerprint][]Approval // of bundles, by manifest
	Answered  map[fingerprint.Fingerprint]uint64     // number of the last receipt for each bundle, by manifest
}

// ReadJournal adds the ledger's events up.
func ReadJournal(l *ledger.Ledger) (*Journal, error) {
	j := &Journal{Approvals: map[fingerprint.Fingerprint][]Approval{}, Answered: map[fingerprint.Fingerprint]uint64{}}
	return j, l.Each(j.take)
}

func (j *Journal) take(e ledger.Entry) error {
	switch e.Event {
	case EventCard:
		var d CardGiven
		err := e.Read(&d)
		j.Stick = d.Out
		return err

	case EventTrust:
		j.World = &WorldPinned{}
		err := e.Read(j.World)
		j.Stick = filepath.Dir(j.World.Path)
		return err

	case EventKEK:
		var d KEKTaken
		if err := e.Read(&d); err != nil {
			return err
		}
		j.KEKs = append(j.KEKs, d)

	case EventImportBegun:
		var d ImportBegun
		if err := e.Read(&d); err != nil {
			return err
		}
		if j.Key(d.ID) == nil {
			j.Keys = append(j.Keys, &Key{ID: d.ID, Key: d.Key, Stage: Begun, BegunAt: e.Time})
		}

	case EventImportUndone:
		var d ImportBegun
		if err := e.Read(&d); err != nil {
			return err
		}
		j.Keys = slices.DeleteFunc(j.Keys, func(k *Key) bool { return k.ID == d.ID && k.Stage == Begun })

	case EventImported, EventWrapped:
		var d Imported
		if err := e.Read(&d); err != nil {
			return err
		}
		j.Package = d.Package
		k := j.Key(d.ID)
		if k == nil {
			k = &Key{}
			j.Keys = append(j.Keys, k)
		}
		// A wrapped key begins anew: it may have been on its way before.
		*k = Key{
			ID: d.ID, Stage: Staged, Disposition: d.Disposition, Key: d.Key, SLC: d.SLC, KEK: d.KEK, WrappedBy: d.WrappedBy,
			StagedAt: e.Time, Stored: e.Event == EventWrapped, Record: d,
		}
		if k.Stored && !d.Retained {
			k.Stage = Wrapped
		}

	case EventHardened:
		var d Hardened
		if err := e.Read(&d); err != nil {
			return err
		}
		if k := j.Key(d.ID); k != nil {
			k.Stage, k.Record.Retained = Staged, d.Retained
		}

	case EventSealed:
		var d Sealed
		if err := e.Read(&d); err != nil {
			return err
		}
		d.at = e.Time
		j.Bundles, j.Stick = append(j.Bundles, d), d.Out
		for _, id := range d.Keys {
			if k := j.Key(id); k != nil {
				k.Stage, k.Bundle, k.Sealed, k.SealedAt = InBundle, d.Sequence, d, e.Time
			}
		}

	case EventApproved:
		var d Approved
		if err := e.Read(&d); err != nil {
			return err
		}
		j.Approvals[d.Manifest] = append(j.Approvals[d.Manifest], Approval{e.Time, d.Approver})

	case EventReleased:
		var d Released
		if err := e.Read(&d); err != nil {
			return err
		}
		for i := range j.Bundles {
			if j.Bundles[i].Manifest == d.Manifest {
				j.Bundles[i].HeldBack = false
			}
		}

	case EventReceipt:
		var d Received
		if err := e.Read(&d); err != nil {
			return err
		}
		j.Receipts = append(j.Receipts, bundle.Taken{Sequence: d.Sequence, Manifest: d.Manifest, Previous: d.Previous})
		j.Answered[d.Answers] = d.Sequence
		answered := slices.IndexFunc(j.Bundles, func(b Sealed) bool { return b.Manifest == d.Answers })
		for _, a := range d.Keys {
			k := j.Key(a.ID)
			if k == nil || answered < 0 || k.Bundle != j.Bundles[answered].Sequence {
				continue // it was wrapped again since, and is on its way again
			}
			k.Stage, k.KeyURL, k.Tenant, k.TenantBy = Arrived, a.KeyURL, a.Tenant, a.TenantBy
			k.Answer, k.AnsweredAt, k.Theirs = &a, e.Time, d.Ledger
			switch {
			case a.Refused != "":
				k.Stage = Returned
			case a.KeyURL == "" && a.Tenant == "": // handed over, and not known to have arrived
				k.Stage = InBundle
			}
		}
	}
	return nil
}

// Key returns the state of a key, nil if the ledger does not know it.
func (j *Journal) Key(id string) *Key {
	i := slices.IndexFunc(j.Keys, func(k *Key) bool { return k.ID == id })
	if i < 0 {
		return nil
	}
	return j.Keys[i]
}

// checkOthers refuses keys that the ledger knows under another identifier, and
// GUIDs that it knows of another key.
func (j *Journal) checkOthers(exports []*export) error {
	for _, k := range j.Keys {
		for _, e := range exports {
			switch {
			case k.Key == e.fingerprint && k.ID != e.id:
				return control.ImportExists.Refuse("this key was imported already, as %s", k.ID)
			case k.Key != e.fingerprint && k.SLC == e.GUID():
				return control.TPDGUIDUnique.Refuse("%s and %s, which was imported before, are different keys with one GUID, %s", e.id, k.ID, k.SLC)
			}
		}
	}
	return nil
}

// LastKEK is the KEK that keys are wrapped for; zero if there is none yet.
func (j *Journal) LastKEK() KEKTaken {
	if len(j.KEKs) == 0 {
		return KEKTaken{}
	}
	return j.KEKs[len(j.KEKs)-1]
}

// HasKEK reports whether the package is the one whose KEK was taken last. One that is
// older is refused, and another one of the same number, since the connected side
// numbers its packages upwards (KF-PACKAGE-NUMBER).
func (j *Journal) HasKEK(v *trust.VerifiedKEK) (bool, error) {
	last := j.LastKEK()
	switch {
	case v.Package() == last.Package:
		return true, nil
	case v.Number() < last.Number:
		return false, control.PackageNumber.Refuse("this is the KEK package number %d, and number %d was taken before", v.Number(), last.Number)
	case v.Number() == last.Number:
		return false, control.PackageNumber.Refuse("this is another KEK package of number %d than the one that was taken", v.Number())
	}
	return false, nil
}

// At lists the keys at one of the stages, oldest first.
func (j *Journal) At(stages ...Stage) []string {
	var ids []string
	for _, k := range j.Keys {
		if slices.Contains(stages, k.Stage) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// InBundles lists the keys that are in a bundle, and not staged again since.
func (j *Journal) InBundles() []string {
	var ids []string
	for _, k := range j.Keys {
		if k.Bundle > 0 {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// LastBundle is the newest bundle sealed; zero if there is none.
func (j *Journal) LastBundle() Sealed {
	if len(j.Bundles) == 0 {
		return Sealed{}
	}
	return j.Bundles[len(j.Bundles)-1]
}

// SealedLast reports whether the key is in the newest bundle and nothing is known
// of what became of it.
func (j *Journal) SealedLast(k *Key) bool {
	return k.Stage == InBundle && k.Bundle == j.LastBundle().Sequence
}

// Approvers are those who have approved a bundle; none is not nil.
func (j *Journal) Approvers(b Sealed) []trust.Approver {
	who := []trust.Approver{}
	for _, a := range j.Approvals[b.Manifest] {
		who = append(who, a.By)
	}
	return who
}

// ApproverKeys are the keys of approvers, each once.
func ApproverKeys(approvers []trust.Approver) (keys []sshsig.PublicKey) {
	for _, a := range approvers {
		if !slices.ContainsFunc(keys, a.Key.Equal) {
			keys = append(keys, a.Key)
		}
	}
	return keys
}
