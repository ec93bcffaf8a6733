// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd/xrml"
)

// Verdicts of a check.
const (
	VerdictHSM              = "hsm"               // the key can become an HSM key in the cloud
	VerdictMicrosoftManaged = "microsoft-managed" // sound, but its key is too small for any cloud HSM
	VerdictRefused          = "refused"
)

// Report is what a check found: nothing in it is secret. It is made to be
// written as JSON. Its names there are stable; docs/inspect.md says what each
// means and holds.
type Report struct {
	KeyGUID          string          `json:"key_guid"`
	Fingerprint      string          `json:"fingerprint"`
	FingerprintWords string          `json:"fingerprint_words"`
	ModulusBase64    string          `json:"modulus_base64"`
	Bits             int             `json:"bits"`
	Mode             int             `json:"mode"`
	HasKey           bool            `json:"has_key"`
	Derivation       Derivations     `json:"derivation"`
	CSPType          int             `json:"csp_type"`
	CSPName          string          `json:"csp_name"`
	KeyContainer     string          `json:"key_container"`
	KeyNumber        int             `json:"key_number"`
	SLC              *xrml.SLC       `json:"slc"`
	Templates        []xrml.Template `json:"templates"`
	Findings         []Finding       `json:"findings"`
	Verdict          string          `json:"verdict"`
	Reason           string          `json:"reason"`

	refusals []error // the findings that are no warnings
}

// Derivations says how each field was decrypted; "" where it was not.
type Derivations struct {
	Document Derivation `json:"document"`
	Key      Derivation `json:"key"`
}

// Finding is one thing that a check found wrong.
type Finding struct {
	Control string `json:"control"`
	Warning bool   `json:"warning"` // it does not stand in the way
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Err returns all refusals of the report, joined in the order of the checks; nil
// if there is none.
func (r *Report) Err() error { return errors.Join(r.refusals...) }

func (r *Report) refuse(refusal *control.Refusal) {
	r.refusals = append(r.refusals, refusal)
	r.Findings = append(r.Findings, Finding{refusal.Control.ID, false, refusal.Message, refusal.Hint})
}

func (r *Report) warn(refusal *control.Refusal) {
	r.Findings = append(r.Findings, Finding{refusal.Control.ID, true, refusal.Message, refusal.Hint})
}

// judge ends a report: the fingerprint in words, and the verdict. Mode 1 is found last, so that it
// comes first only where nothing else is wrong.
func (r *Report) judge() {
	r.FingerprintWords = inWords(r.Fingerprint)
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return !f.Warning })
	if i < 0 {
		r.Verdict = VerdictHSM
		return
	}
	r.Verdict, r.Reason = VerdictRefused, r.Findings[i].Control
	if r.Reason == control.TPDMode1.ID {
		r.Verdict = VerdictMicrosoftManaged
	}
}

// inWords says a fingerprint in hex in its 32 words, on one line; an absent one in none.
func inWords(hex string) string {
	print, err := fingerprint.Parse(hex)
	if err != nil {
		return ""
	}
	return strings.Join(print.Words(), " ")
}

// Identity is what every passed check has proven: the key's GUID and public
// key, as the SLC says them.
type Identity struct {
	guid   string
	public *rsa.PublicKey
	report *Report
}

// GUID returns the key's identity, in lower case without braces.
func (i Identity) GUID() string { return i.guid }

// Public returns the key of the SLC.
func (i Identity) Public() *rsa.PublicKey { return i.public }

// Report returns the report of the check, which may have warnings.
func (i Identity) Report() *Report { return i.report }

// Checked is a domain that passed every check and whose key can become an HSM
// key. Only [Domain.Checked] makes one.
type Checked struct {
	Identity
	key *rsa.PrivateKey
}

// Key returns the private key, which is the key of the SLC. [Domain.Clear]
// wipes it.
func (c *Checked) Key() *rsa.PrivateKey { return c.key }

// CheckedKeyless is a keyless TPD that passed every check that does not need
// the key. Only [Domain.CheckedKeyless] makes one.
type CheckedKeyless struct{ Identity }

// CheckedMicrosoftManaged is a domain that passed every check but that of the
// key's size: whole and genuine, with a key of 1024 bits that no cloud HSM
// takes. Only [Domain.CheckedMicrosoftManaged] makes one. It has no way to the
// private key: such a TPD travels as it is.
type CheckedMicrosoftManaged struct{ Identity }

// Check makes every check of an import, in an importer's order, and reports
// all that it finds. The verdict is "refused" for a keyless TPD, which has no
// key to import.
//
// The pinned roots are fingerprints of root keys, see [xrml.Fingerprint], at
// one of which a chain must end; without any, every root is taken.
func (d *Domain) Check(now time.Time, pinnedRoots ...fingerprint.Fingerprint) *Report {
	return d.check(now, pinnedRoots, false).report
}

// Checked makes the checks of [Domain.Check]. The error is all refusals, joined.
func (d *Domain) Checked(now time.Time, pinnedRoots ...fingerprint.Fingerprint) (*Checked, error) {
	id := d.check(now, pinnedRoots, false)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &Checked{id, d.Key}, nil
}

// CheckedMicrosoftManaged makes the checks of [Domain.Check], of which only
// that of the key's size may and must fail. The error is all other refusals, or
// KF-TPD-NOT-MODE1 for a key that can become an HSM key.
func (d *Domain) CheckedMicrosoftManaged(now time.Time, pinnedRoots ...fingerprint.Fingerprint) (*CheckedMicrosoftManaged, error) {
	id := d.check(now, pinnedRoots, false)
	switch id.report.Verdict {
	case VerdictMicrosoftManaged:
		return &CheckedMicrosoftManaged{id}, nil
	case VerdictHSM:
		return nil, control.TPDNotMode1.Refuse("the key has %d bits and can become an HSM key, expected one that can only be Microsoft-managed", id.report.Bits)
	}
	return nil, id.report.Err()
}

// CheckedKeyless makes the checks of [Domain.Check] on a keyless TPD: there
// must be no key, and all else must hold. The error is all refusals, joined.
func (d *Domain) CheckedKeyless(now time.Time, pinnedRoots ...fingerprint.Fingerprint) (*CheckedKeyless, error) {
	id := d.check(now, pinnedRoots, true)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &CheckedKeyless{id}, nil
}
