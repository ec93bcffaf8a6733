// SPDX-License-Identifier: Apache-2.0

package xrml

import (
	"crypto/rsa"
	"fmt"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// Hierarchies: which of Microsoft's roots a chain names. Anybody can name a
// root; only its fingerprint tells.
const (
	Production    = "production"
	PreProduction = "pre-production"
	UnknownRoot   = "unknown"
)

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
	RootFingerprint string    `json:"root_fingerprint"` // of the last certificate's issuer key, see [Fingerprint]
	RootPinned      bool      `json:"root_pinned"`      // the operator pinned that key: set by who knows the pins
}

// selfEnrollment is the name of the issuer of every self-enrolled SLC (MS-RMPR
// 2.2.9.3).
const selfEnrollment = "Microsoft DRM Server Self Enrollment Service"

// DescribeSLC reports on the leaf of a chain of at least one certificate, a
// certificate with one principal.
func DescribeSLC(chain []*Certificate) SLC {
	slc, root := chain[0], chain[len(chain)-1].Issuer
	return SLC{
		ServerName: slc.Principals[0].Name, ServerURL: slc.Principals[0].URL, Issued: slc.Issued,
		ValidFrom: slc.Valid.From, ValidUntil: slc.Valid.Until,
		IssuingFrom: slc.Issuing.From, IssuingUntil: slc.Issuing.Until,
		DigestAlgorithm: slc.DigestAlgorithm.String(), IssuerName: slc.Issuer.Name, ChainLength: len(chain),
		SelfEnrolled: slc.Issuer.Name == selfEnrollment,
		Hierarchy:    hierarchy(root), RootFingerprint: Fingerprint(root.Key),
	}
}

func hierarchy(root Principal) string {
	switch root.ID {
	case "Microsoft DRM Production Root":
		return Production
	case "Microsoft DRM ISV Root":
		return PreProduction
	}
	return UnknownRoot
}

// Fingerprint is the SHA-256 over the PKIX DER of a public key, as 64 lower-case
// hex digits.
func Fingerprint(key *rsa.PublicKey) string {
	return fingerprint.OfKey(key).Hex()
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

// DescribeTemplate reports on a certificate that is a template.
func DescribeTemplate(c *Certificate) (Template, error) {
	guid, err := GUID(c.Descriptor.ID)
	if c.BodyType != BodyTemplate || c.Descriptor.IDType != "MS-GUID" || err != nil {
		return Template{}, fmt.Errorf("not a rights policy template with a GUID: its type is %s, its id %s", control.Quote(c.BodyType), control.Quote(c.Descriptor.ID))
	}
	t := Template{
		GUID: guid, Issued: c.Issued, Anyone: c.Anyone,
		ValidUntil: c.Valid.Until,
		Rights:     append([]string{}, c.Rights...), DistributionPoints: make([]DistributionPoint, len(c.Points)),
	}
	t.Names, t.AmbiguousNames = splitNames(c.Descriptor.Name)
	for i, p := range c.Points {
		t.DistributionPoints[i] = DistributionPoint{p.Type, p.URL}
	}
	return t, nil
}

// nameStart is where the name of one language begins: text[from:] is
// `LCID <lcid>:NAME <name>…`, text[after:] the name.
type nameStart struct {
	from, after int
	lcid        string
}

// splitNames takes `LCID <n>:NAME <name>:DESCRIPTION <text>;`, repeated, apart
// and reports whether that could be done in one way only.
func splitNames(text string) (names []LocalizedName, ambiguous bool) {
	starts := nameStarts(text)
	names = make([]LocalizedName, 0, len(starts))
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1].from
		}
		part, closed := strings.CutSuffix(strings.TrimSpace(text[at.after:end]), ";")
		name, description, ok := strings.Cut(part, ":DESCRIPTION ")
		names = append(names, LocalizedName{at.lcid, name, description})
		ambiguous = ambiguous || !closed || !ok || strings.ContainsAny(name, ":;") || strings.ContainsAny(description, ":;")
	}
	return names, ambiguous || len(starts) == 0 || strings.TrimSpace(text[:starts[0].from]) != ""
}

// nameStarts finds each `LCID <digits>:NAME ` at the beginning or after a
// semicolon.
func nameStarts(text string) (starts []nameStart) {
	const lcid, name = "LCID ", ":NAME "
	for from := 0; ; {
		next := strings.Index(text[from:], lcid)
		if next < 0 {
			return starts
		}
		from += next
		digits := from + len(lcid)
		end := digits
		for end < len(text) && '0' <= text[end] && text[end] <= '9' {
			end++
		}
		before := strings.TrimRight(text[:from], " \t\r\n")
		if end > digits && strings.HasPrefix(text[end:], name) && (before == "" || strings.HasSuffix(before, ";")) {
			starts = append(starts, nameStart{from, end + len(name), text[digits:end]})
		}
		from = end
	}
}

// GUID writes a GUID, of any case and with or without braces, in lower case
// without braces.
func GUID(s string) (string, error) {
	inner, open := strings.CutPrefix(s, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if open != closed || !isGUID(inner) {
		return "", fmt.Errorf("not a GUID: %s", control.Quote(s))
	}
	return strings.ToLower(inner), nil
}

// isGUID reports whether s is hex digits in groups of 8, 4, 4, 4 and 12.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if b != '-' {
				return false
			}
		case ('0' > b || b > '9') && ('a' > b|0x20 || b|0x20 > 'f'):
			return false
		}
	}
	return true
}
