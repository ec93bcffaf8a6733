// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"crypto/rsa"
	"errors"
	"fmt"
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
	VerdictInHSM            = "in-hsm"            // sound, but its key is in an HSM already: `offline wrap`
	VerdictKeyless          = "keyless"           // sound, and without its key: of [Domain.CheckKeyless]
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
	Accepted         []string        `json:"accepted_templates"` // that do not verify, see [Terms]
	LicensingURLs    []string        `json:"licensing_urls"`     // to which clients may still turn: of the SLC and the templates
	Findings         []Finding       `json:"findings"`
	Verdict          string          `json:"verdict"`
	Reason           string          `json:"reason"`

	refusals []error // the findings that are no warnings
	alike    map[kind]int
}

// kind is what findings that say the same have in common.
type kind struct {
	control string
	warning bool
}

// maxAlike is how many findings of a kind are listed. The rest is counted.
const maxAlike = 10

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

func (r *Report) refuse(refusal *control.Refusal) { r.add(refusal, false) }

func (r *Report) warn(refusal *control.Refusal) { r.add(refusal, true) }

func (r *Report) add(refusal *control.Refusal, warning bool) {
	if r.alike == nil {
		r.alike = map[kind]int{}
	}
	k := kind{refusal.Control.ID, warning}
	if r.alike[k]++; r.alike[k] > maxAlike {
		return
	}
	if !warning {
		r.refusals = append(r.refusals, refusal)
	}
	r.Findings = append(r.Findings, Finding{refusal.Control.ID, warning, refusal.Message, refusal.Hint})
}

// judge ends a report: the fingerprint in words, the counts of findings, and the
// verdict. A key of 1024 bits and one that is in an HSM are told from a refusal
// where nothing else stands in the way.
func (r *Report) judge(keyless bool) {
	r.FingerprintWords = inWords(r.Fingerprint)
	for i := len(r.Findings) - 1; i >= 0; i-- {
		f := &r.Findings[i]
		k := kind{f.Control, f.Warning}
		if more := r.alike[k] - maxAlike; more > 0 {
			f.Message += fmt.Sprintf("; %d more are like it", more)
			r.alike[k] = 0 // said, of the last of them
		}
	}
	r.Verdict = VerdictHSM
	if keyless {
		r.Verdict = VerdictKeyless
	}
	if len(r.refusals) == 0 {
		return
	}
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return !f.Warning })
	r.Verdict, r.Reason = VerdictRefused, r.Findings[i].Control
	if len(r.refusals) > 1 {
		return
	}
	switch r.Reason {
	case control.TPDMode1.ID:
		r.Verdict = VerdictMicrosoftManaged
	case control.TPDKeyInHSM.ID:
		r.Verdict = VerdictInHSM
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

// Terms are what a check depends on beside the export.
type Terms struct {
	Now time.Time
	// PinnedRoots are fingerprints of root keys, see [xrml.Fingerprint], at one of
	// which a chain must end; without any, every root is taken.
	PinnedRoots []fingerprint.Fingerprint
	// AcceptTemplates names the templates, see [ParseTemplateID], that an operator
	// takes though they do not verify; [AnyTemplate] is all of them.
	AcceptTemplates []string
	// FreshPassword says that only a keyless copy leaves, under a password of its own.
	FreshPassword bool
}

// AnyTemplate stands for all templates: on the connected side, where the
// disconnected side accepted some and its signature covers that.
const AnyTemplate = "*"

// ParseTemplateID reads what names a template in [Terms]: its GUID, in any case,
// with or without braces.
func ParseTemplateID(s string) (string, error) { return xrml.GUID(s) }

// Check makes every check of an import, in an importer's order, and reports
// all that it finds. The verdict on a keyless TPD, which has no key to import,
// is no [VerdictHSM].
func (d *Domain) Check(t Terms) *Report { return d.check(t, false).report }

// Checked makes the checks of [Domain.Check]. The error is all refusals, joined.
func (d *Domain) Checked(t Terms) (*Checked, error) {
	id := d.check(t, false)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &Checked{id, d.Key}, nil
}

// CheckedMicrosoftManaged makes the checks of [Domain.Check], of which only
// that of the key's size may and must fail. The error is all other refusals, or
// KF-TPD-NOT-MODE1 for a key that can become an HSM key.
func (d *Domain) CheckedMicrosoftManaged(t Terms) (*CheckedMicrosoftManaged, error) {
	id := d.check(t, false)
	switch id.report.Verdict {
	case VerdictMicrosoftManaged:
		return &CheckedMicrosoftManaged{id}, nil
	case VerdictHSM:
		return nil, control.TPDNotMode1.Refuse("the key has %d bits and can become an HSM key, expected one that can only be Microsoft-managed", id.report.Bits)
	}
	return nil, id.report.Err()
}

// CheckKeyless makes the checks of [Domain.Check] on a keyless TPD: there must be
// no key, and all else must hold.
func (d *Domain) CheckKeyless(t Terms) *Report { return d.check(t, true).report }

// CheckedKeyless makes the checks of [Domain.CheckKeyless]. The error is all refusals, joined.
func (d *Domain) CheckedKeyless(t Terms) (*CheckedKeyless, error) {
	id := d.check(t, true)
	if err := id.report.Err(); err != nil {
		return nil, err
	}
	return &CheckedKeyless{id}, nil
}
