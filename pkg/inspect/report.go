// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/pkg/tpd/xrml"
)

// Verdicts of a report.
const (
	VerdictHSM              = "hsm"               // the key can become an HSM key in the cloud
	VerdictMicrosoftManaged = "microsoft-managed" // sound, but its key is too small for any cloud HSM
	VerdictInHSM            = "in-hsm"            // sound, but its key is in an HSM already: `offline wrap`
	VerdictKeyless          = "keyless"           // sound, and without its key: of [tpd.Domain.CheckKeyless]
	VerdictRefused          = "refused"
)

// Report says what a check found, and what else there is to know of an export:
// nothing in it is secret. It is made to be written as JSON. Its names there are
// stable; docs/inspect.md says what each means and holds.
type Report struct {
	KeyGUID          string      `json:"key_guid"`
	Fingerprint      string      `json:"fingerprint"`
	FingerprintWords string      `json:"fingerprint_words"`
	ModulusBase64    string      `json:"modulus_base64"`
	Bits             int         `json:"bits"`
	Mode             int         `json:"mode"`
	HasKey           bool        `json:"has_key"`
	Derivation       Derivations `json:"derivation"`
	CSPType          int         `json:"csp_type"`
	CSPName          string      `json:"csp_name"`
	KeyContainer     string      `json:"key_container"`
	KeyNumber        int         `json:"key_number"`
	SLC              *SLC        `json:"slc"`
	Templates        []Template  `json:"templates"`
	Accepted         []string    `json:"accepted_templates"` // that do not verify, see [tpd.Terms]
	LicensingURLs    []string    `json:"licensing_urls"`     // to which clients may still turn: of the SLC and the templates
	Findings         []Finding   `json:"findings"`           // refusals first
	Verdict          string      `json:"verdict"`
	Reason           string      `json:"reason"`
}

// Derivations says how each field was decrypted; "" where it was not.
type Derivations struct {
	Document tpd.Derivation `json:"document"`
	Key      tpd.Derivation `json:"key"`
}

// Finding is one thing that a check found wrong, or worth knowing.
type Finding struct {
	Control string `json:"control"`
	Warning bool   `json:"warning"` // it does not stand in the way
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Hierarchies: which of Microsoft's roots a chain names. Anybody can name a
// root; only its fingerprint tells.
const (
	Production    = "production"
	PreProduction = "pre-production"
	UnknownRoot   = "unknown"
)

// hierarchies are known by the IDs of their roots.
var hierarchies = map[string]string{"Microsoft DRM Production Root": Production, "Microsoft DRM ISV Root": PreProduction}

// SLC is what a report says about a server licensor certificate and its chain.
type SLC struct {
	ServerName      string    `json:"server_name"`
	ServerURL       string    `json:"server_url"`
	Issued          time.Time `json:"issued,omitzero"`
	ValidFrom       time.Time `json:"valid_from,omitzero"`
	ValidUntil      time.Time `json:"valid_until,omitzero"`
	IssuingFrom     time.Time `json:"issuing_from,omitzero"`
	IssuingUntil    time.Time `json:"issuing_until,omitzero"`
	DigestAlgorithm string    `json:"digest_algorithm"` // SHA-1 or SHA-256
	IssuerName      string    `json:"issuer_name"`
	SelfEnrolled    bool      `json:"self_enrolled"` // such servers share one enrolment key: the issuer's signature says little
	ChainLength     int       `json:"chain_length"`
	Hierarchy       string    `json:"hierarchy"`        // production, pre-production or unknown
	RootFingerprint string    `json:"root_fingerprint"` // of the last certificate's issuer key: SHA-256 of its PKIX DER
	RootPinned      bool      `json:"root_pinned"`      // the operator pinned that key
}

// selfEnrollment is the name of the issuer of every self-enrolled SLC (MS-RMPR
// 2.2.9.3).
const selfEnrollment = "Microsoft DRM Server Self Enrollment Service"

// maxURLs bounds the addresses that are listed. A cluster has a few.
const maxURLs = 32

// NewReport reports on a check. What it finds itself are warnings: what is refused,
// the check has refused.
func NewReport(checked *tpd.Result) *Report {
	now, key := checked.Terms.Now, checked.Public
	r := &Report{
		KeyGUID: checked.GUID, Mode: checked.Mode, HasKey: checked.HasKey, Derivation: Derivations{checked.DocumentDerivation, checked.KeyDerivation},
		Templates: []Template{}, Accepted: append([]string{}, checked.AcceptedTemplates...), LicensingURLs: []string{}, Findings: []Finding{},
	}
	if info := checked.Info; info != nil {
		r.CSPType, r.CSPName, r.KeyContainer, r.KeyNumber = info.CSPType, info.CSPName, info.ContainerName, info.KeyNumber
	}
	var warnings []*control.Refusal
	warn := func(c control.Control, format string, args ...any) {
		warnings = append(warnings, c.Refuse(format, args...))
	}
	refused := func(c control.Control) bool { return control.Is(checked.Err(), c) }
	addURL := func(address string) {
		if isWebURL(address) && !slices.Contains(r.LicensingURLs, address) && len(r.LicensingURLs) < maxURLs {
			r.LicensingURLs = append(r.LicensingURLs, address)
		}
	}

	// The chain. What was protected while a certificate was valid is opened with its
	// key forever.
	outside := func(what string, p xrml.Period) {
		from, until, today := "always", "without end", now.UTC().Format(time.RFC3339)
		if !p.From.IsZero() {
			from = "from " + p.From.Format(time.RFC3339)
		}
		if !p.Until.IsZero() {
			until = "until " + p.Until.Format(time.RFC3339)
		}
		switch {
		case now.Before(p.From):
			warn(control.TPDValidity, "%s only %s %s, and it is %s", what, from, until, today)
		case past(p.Until, now):
			warn(control.TPDValidity, "%s %s %s: it has expired, it is %s", what, from, until, today)
		}
	}
	chain := checked.Certificates
	for i, c := range chain[:max(0, len(chain)-1)] {
		if next := chain[i+1]; c != nil && next != nil && len(next.Principals) == 1 && c.Issuer.Same(next.Principals[0]) && c.Issuer.Name != next.Principals[0].Name {
			warn(control.TPDChainName, "certificate %d of the chain: its issuer is named otherwise than the principal of the next certificate", i+1)
		}
	}
	if key != nil && !slices.Contains(chain, nil) {
		r.SLC = describeChain(chain, checked.Terms.PinnedRoots)
		if r.SLC.Hierarchy != Production && !refused(control.TPDRoot) {
			warn(control.TPDHierarchy, "the chain does not end at Microsoft's production root but at %s", control.Quote(chain[len(chain)-1].Issuer.ID))
		}
	}
	for i, c := range chain {
		if c != nil {
			outside(fmt.Sprintf("certificate %d of the chain is valid", i+1), c.Valid)
		}
	}

	// The key and its server.
	var server xrml.Principal
	if key != nil {
		server = chain[0].Principals[0]
		print := fingerprint.OfKey(key)
		r.Fingerprint, r.FingerprintWords = print.Hex(), strings.Join(print.Words(), " ")
		r.Bits, r.ModulusBase64 = key.N.BitLen(), base64.StdEncoding.EncodeToString(key.N.Bytes())
		outside("the server licensor certificate may issue", chain[0].Issuing)
		if !isWebURL(server.URL) {
			warn(control.TPDURL, "the server's address is no http or https URL: %s", control.Quote(server.URL))
		}
		addURL(server.URL)
	}

	// The templates: what Azure RMS makes less of.
	seen := map[string]int{} // GUID → position
	for i, c := range checked.TemplateCertificates {
		if c == nil {
			continue
		}
		t, position := describeTemplate(c), i+1
		r.Templates = append(r.Templates, t)
		if first, ok := seen[t.GUID]; ok {
			warn(control.TPDTemplateDuplicate, "templates %d and %d have the same GUID %s", first, position, t.GUID)
		} else {
			seen[t.GUID] = position
		}
		label := fmt.Sprintf("template %d (%s)", position, t.GUID)
		if len(t.Names) > 0 {
			label = fmt.Sprintf("template %d (%s)", position, control.Quote(t.Names[0].Name))
		}
		if key != nil && (!c.Issuer.Same(server) || c.Issuer.Name != server.Name) && c.Verify(key) == nil {
			warn(control.TPDTemplateIssuer, "%s names %s as its issuer, expected the server of this domain, %s", label, control.Quote(c.Issuer.Name), control.Quote(server.Name))
		}
		if past(t.ValidUntil, now) {
			warn(control.TPDTemplateExpired, "%s expired on %s", label, t.ValidUntil.Format(time.DateOnly))
		}
		if t.Anyone {
			warn(control.TPDTemplateAnyone, "%s gives rights to ANYONE", label)
		}
		if t.AmbiguousNames {
			warn(control.TPDTemplateName, "%s has a name or description that holds : or ;, or none at all", label)
		}
		for _, p := range t.DistributionPoints {
			switch {
			case p.Type == "Referral-Info": // where to ask for rights: usually an e-mail address
			case isWebURL(p.URL):
				addURL(p.URL)
			default:
				warn(control.TPDURL, "%s has a distribution point that is no http or https URL: %s", label, control.Quote(p.URL))
			}
		}
	}

	// What an export should not show but a key survives.
	if (checked.DocumentDerivation == tpd.Legacy || checked.KeyDerivation == tpd.Legacy) && !refused(control.TPDLegacyCollision) {
		warn(control.TPDLegacyKDF, "the TPD export is encrypted by the legacy key derivation, as for RMS version 1.0")
	}
	number := map[capi.Algorithm]int{capi.KeyExchange: 1, capi.Signature: 2}[checked.KeyAlgorithm]
	if checked.Info != nil && number > 0 && r.KeyNumber != number {
		warn(control.TPDKeyNumber, "the TPD export says that its key has the key number %d (1 exchange, 2 signature), the key itself says %d", r.KeyNumber, number)
	}
	if extra := checked.FileExtra; len(extra) > 0 {
		warn(control.TPDExtra, "the file has what AD RMS does not write, and a keyless copy leaves it out: %s", control.Quote(strings.Join(extra, ", ")))
	}
	if extra := checked.DocumentExtra; len(extra) > 0 {
		warn(control.TPDExtra, "the encrypted document has what AD RMS does not write, and a keyless copy keeps it: %s", control.Quote(strings.Join(extra, ", ")))
	}
	if checked.Nulls > 0 {
		warn(control.TPDNull, "%d certificates or templates of the TPD export are null: a service gets nothing in their place", checked.Nulls)
	}

	// The verdict. A key of 1024 bits and one that is in an HSM are told from a refusal
	// where nothing else stands in the way.
	r.add(checked.Refusals, false)
	r.add(checked.Accepted, true)
	r.add(warnings, true)
	r.Verdict = VerdictHSM
	if checked.Keyless {
		r.Verdict = VerdictKeyless
	}
	if len(checked.Refusals) > 0 {
		r.Verdict, r.Reason = VerdictRefused, checked.Refusals[0].Control.ID
	}
	if len(checked.Refusals) == 1 {
		switch r.Reason {
		case control.TPDMode1.ID:
			r.Verdict = VerdictMicrosoftManaged
		case control.TPDKeyInHSM.ID:
			r.Verdict = VerdictInHSM
		}
	}
	return r
}

// add lists findings, of each control a few.
func (r *Report) add(findings []*control.Refusal, warning bool) {
	for _, f := range control.Few(findings) {
		r.Findings = append(r.Findings, Finding{f.Control.ID, warning, f.Message, f.Hint})
	}
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// describeChain describes the SLC, which is the first certificate of a chain.
func describeChain(chain []*xrml.Certificate, pinned []fingerprint.Fingerprint) *SLC {
	slc, root := chain[0], chain[len(chain)-1].Issuer
	print := fingerprint.OfKey(root.Key)
	hierarchy, known := hierarchies[root.ID]
	if !known {
		hierarchy = UnknownRoot
	}
	return &SLC{
		ServerName: slc.Principals[0].Name, ServerURL: slc.Principals[0].URL, Issued: slc.Issued,
		ValidFrom: slc.Valid.From, ValidUntil: slc.Valid.Until,
		IssuingFrom: slc.Issuing.From, IssuingUntil: slc.Issuing.Until,
		DigestAlgorithm: slc.DigestAlgorithm.String(), IssuerName: slc.Issuer.Name, ChainLength: len(chain),
		SelfEnrolled: slc.Issuer.Name == selfEnrollment,
		Hierarchy:    hierarchy, RootFingerprint: print.Hex(), RootPinned: slices.Contains(pinned, print),
	}
}

// Template is what a report says about a rights policy template.
type Template struct {
	GUID       string          `json:"guid"`
	Issued     time.Time       `json:"issued,omitzero"`
	ValidUntil time.Time       `json:"valid_until,omitzero"`
	Names      []LocalizedName `json:"names"`
	// AmbiguousNames: a name or description holds : or ; and may have been cut
	// in the wrong place, or there is none at all.
	AmbiguousNames     bool                `json:"ambiguous_names"`
	DistributionPoints []DistributionPoint `json:"distribution_points"`
	Rights             []string            `json:"rights"`
	Anyone             bool                `json:"anyone"`
}

// LocalizedName is what a template is called in one language.
type LocalizedName struct {
	LCID        string `json:"lcid"`
	Name        string `json:"name"`
	Description string `json:"description"`
}

// DistributionPoint is where a license for content is to be had.
type DistributionPoint struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// describeTemplate describes a certificate that is a template.
func describeTemplate(c *xrml.Certificate) Template {
	guid, _ := xrml.GUID(c.Descriptor.ID) // the check has read it
	t := Template{GUID: guid, Issued: c.Issued, ValidUntil: c.Valid.Until, DistributionPoints: []DistributionPoint{}, Rights: []string{}}
	t.Names, t.AmbiguousNames = splitNames(c.Descriptor.Name)
	if work := c.Body.One("WORK"); work != nil {
		t.readRights(work)
	}
	for _, point := range c.Body.All("DISTRIBUTIONPOINT") {
		object := point.One("OBJECT")
		t.DistributionPoints = append(t.DistributionPoints, DistributionPoint{object.Attr("type"), object.TextOf("ADDRESS")})
	}
	return t
}

// readRights collects the rights below an element, each once, in their order: a RIGHT
// with a name or named itself (VIEW, EDIT, …). ANYONE has one where an ID names it,
// wherever that stands.
func (t *Template) readRights(n *xmltree.Node) {
	for _, child := range n.Children {
		right := child.Name
		if right == "RIGHT" {
			right = child.Attr("name")
		}
		if n.Name == "RIGHTSLIST" && !slices.Contains(t.Rights, right) {
			t.Rights = append(t.Rights, right)
		}
		if child.Name == "ID" && child.Attr("type") == "Internal" && strings.EqualFold(child.Text(), "ANYONE") {
			t.Anyone = true
		}
		t.readRights(child)
	}
}

// nameStart begins the name of one language, at the beginning or behind a semicolon.
var nameStart = regexp.MustCompile(`(?:^|;)\s*LCID ([0-9]+):NAME `)

// splitNames takes `LCID <n>:NAME <name>:DESCRIPTION <text>;`, repeated, apart
// and reports whether that could be done in one way only.
func splitNames(text string) (names []LocalizedName, ambiguous bool) {
	starts := nameStart.FindAllStringSubmatchIndex(text, -1)
	names = make([]LocalizedName, 0, len(starts))
	ambiguous = len(starts) == 0 || strings.TrimSpace(text[:strings.Index(text, "LCID ")]) != ""
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0] + 1 // its semicolon closes this one
		}
		part, closed := strings.CutSuffix(strings.TrimSpace(text[at[1]:end]), ";")
		name, description, ok := strings.Cut(part, ":DESCRIPTION ")
		names = append(names, LocalizedName{text[at[2]:at[3]], name, description})
		ambiguous = ambiguous || !closed || !ok || strings.ContainsAny(name, ":;") || strings.ContainsAny(description, ":;")
	}
	return names, ambiguous
}
