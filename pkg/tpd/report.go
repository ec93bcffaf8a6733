// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"crypto/rsa"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/xrml"
)

// Verdicts of a check.
const (
	VerdictHSM              = "hsm"               // the key can become an HSM key in the cloud
	VerdictMicrosoftManaged = "microsoft-managed" // sound, but its key is too small for any cloud HSM
	VerdictRefused          = "refused"
)

// Report is what a check found: nothing in it is secret. It is made to be
// written as JSON.
type Report struct {
	KeyGUID       string          `json:"key_guid"`    // lower case, no braces; "" if unreadable
	Fingerprint   string          `json:"fingerprint"` // of the SLC's key, see [xrml.Fingerprint]
	ModulusBase64 string          `json:"modulus_base64"`
	Bits          int             `json:"bits"`
	Mode          int             `json:"mode"` // cryptographic mode of AD RMS, 1 or 2; 0 is neither
	HasKey        bool            `json:"has_key"`
	Derivation    Derivations     `json:"derivation"`
	CSPType       int             `json:"csp_type"`
	CSPName       string          `json:"csp_name"`
	KeyContainer  string          `json:"key_container"`
	KeyNumber     int             `json:"key_number"`
	SLC           *xrml.SLC       `json:"slc"` // null if the chain is unreadable
	Templates     []xrml.Template `json:"templates"`
	Findings      []Finding       `json:"findings"` // in the order of the checks
	Verdict       string          `json:"verdict"`
	Reason        string          `json:"reason"` // the control that decided it; "" for hsm

	err *control.Refusal // the first finding that is no warning
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

// Err returns the first refusal of the report, nil if there is none.
func (r *Report) Err() error {
	if r.err == nil {
		return nil
	}
	return r.err
}

func (r *Report) refuse(refusal *control.Refusal) {
	if r.err == nil {
		r.err = refusal
	}
	r.Findings = append(r.Findings, Finding{refusal.Control.ID, false, refusal.Message, refusal.Hint})
}

func (r *Report) warn(refusal *control.Refusal) {
	r.Findings = append(r.Findings, Finding{refusal.Control.ID, true, refusal.Message, refusal.Hint})
}

// judge draws the verdict from the findings. Mode 1 is found last, so that it
// comes first only where nothing else is wrong.
func (r *Report) judge() {
	switch {
	case r.err == nil:
		r.Verdict = VerdictHSM
		return
	case r.err.Control.ID == control.TPDMode1.ID:
		r.Verdict = VerdictMicrosoftManaged
	default:
		r.Verdict = VerdictRefused
	}
	r.Reason = r.err.Control.ID
}

// identity is what every passed check has proven: the key's GUID and public
// key, as the SLC says them.
type identity struct {
	guid   string
	public *rsa.PublicKey
	report *Report
}

// GUID returns the key's identity, in lower case without braces.
func (i identity) GUID() string { return i.guid }

// Public returns the key of the SLC.
func (i identity) Public() *rsa.PublicKey { return i.public }

// Report returns the report of the check, which may have warnings.
func (i identity) Report() *Report { return i.report }

// Checked is a domain that passed every check and whose key can become an HSM
// key. Only [Domain.Checked] makes one.
type Checked struct {
	identity
	key *rsa.PrivateKey
}

// Key returns the private key, which is the key of the SLC. [Domain.Clear]
// wipes it.
func (c *Checked) Key() *rsa.PrivateKey { return c.key }

// CheckedKeyless is a keyless TPD that passed every check that does not need
// the key. Only [Domain.CheckedKeyless] makes one.
type CheckedKeyless struct{ identity }

// Check makes every check of an import, in an importer's order, and reports
// all that it finds. The verdict is "refused" for a keyless TPD, which has no
// key to import.
func (d *Domain) Check(now time.Time) *Report {
	return d.check(now, false).report
}

// Checked makes the checks of [Domain.Check]. The error is the first refusal.
func (d *Domain) Checked(now time.Time) (*Checked, error) {
	id := d.check(now, false)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &Checked{id, d.Key}, nil
}

// CheckedKeyless makes the checks of [Domain.Check] on a keyless TPD: there
// must be no key, and all else must hold. The error is the first refusal.
func (d *Domain) CheckedKeyless(now time.Time) (*CheckedKeyless, error) {
	id := d.check(now, true)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &CheckedKeyless{id}, nil
}
