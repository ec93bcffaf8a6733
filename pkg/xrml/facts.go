// SPDX-License-Identifier: Apache-2.0

package xrml

import (
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"regexp"
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
	Issued          time.Time `json:"issued"`
	ValidFrom       time.Time `json:"valid_from,omitzero"`
	ValidUntil      time.Time `json:"valid_until,omitzero"`
	IssuingFrom     time.Time `json:"issuing_from,omitzero"`
	IssuingUntil    time.Time `json:"issuing_until,omitzero"`
	DigestAlgorithm string    `json:"digest_algorithm"` // SHA-1 or SHA-256
	IssuerName      string    `json:"issuer_name"`
	ChainLength     int       `json:"chain_length"`
	Hierarchy       string    `json:"hierarchy"`        // production, pre-production or unknown
	RootFingerprint string    `json:"root_fingerprint"` // of the last certificate's issuer key, see [Fingerprint]
}

// DescribeSLC reports on the leaf of a chain of at least one certificate, a
// certificate with one principal.
func DescribeSLC(chain []*Certificate) SLC {
	slc, root := chain[0], chain[len(chain)-1].Issuer
	return SLC{
		ServerName: slc.Principals[0].Name, ServerURL: slc.Principals[0].URL, Issued: slc.Issued,
		ValidFrom: slc.Valid.From, ValidUntil: slc.Valid.Until,
		IssuingFrom: slc.Issuing.From, IssuingUntil: slc.Issuing.Until,
		DigestAlgorithm: slc.DigestAlgorithm.String(), IssuerName: slc.Issuer.Name, ChainLength: len(chain),
		Hierarchy: hierarchy(root), RootFingerprint: Fingerprint(root.Key),
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
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // not for an *rsa.PublicKey
	}
	return fingerprint.Of(der).Hex()
}

// Template is what a report says about a rights policy template.
type Template struct {
	GUID   string          `json:"guid"`
	Issued time.Time       `json:"issued"`
	Names  []LocalizedName `json:"names"`
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
	t := Template{GUID: guid, Issued: c.Issued, Rights: append([]string{}, c.Rights...), Anyone: c.Anyone, DistributionPoints: []DistributionPoint{}}
	t.Names, t.AmbiguousNames = splitNames(c.Descriptor.Name)
	for _, p := range c.Points {
		t.DistributionPoints = append(t.DistributionPoints, DistributionPoint{p.Type, p.URL})
	}
	return t, nil
}

// namePart begins the name of one language.
var namePart = regexp.MustCompile(`(?:^|;)\s*LCID (\d+):NAME `)

// splitNames takes `LCID <n>:NAME <name>:DESCRIPTION <text>;`, repeated, apart
// and reports whether that could be done in one way only.
func splitNames(text string) (names []LocalizedName, ambiguous bool) {
	names = []LocalizedName{}
	starts := namePart.FindAllStringSubmatchIndex(text, -1)
	for i, at := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0] + 1 // with its semicolon
		}
		part, closed := strings.CutSuffix(strings.TrimSpace(text[at[1]:end]), ";")
		name, description, ok := strings.Cut(part, ":DESCRIPTION ")
		names = append(names, LocalizedName{text[at[2]:at[3]], name, description})
		ambiguous = ambiguous || !closed || !ok || strings.ContainsAny(name+description, ":;")
	}
	return names, ambiguous || len(starts) == 0 || starts[0][0] != 0
}

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// GUID writes a GUID, of any case and with or without braces, in lower case
// without braces.
func GUID(s string) (string, error) {
	guid := strings.ToLower(s)
	if inner, ok := strings.CutPrefix(guid, "{"); ok {
		guid = strings.TrimSuffix(inner, "}")
		if guid == inner {
			guid = ""
		}
	}
	if !guidForm.MatchString(guid) {
		return "", fmt.Errorf("not a GUID: %s", control.Quote(s))
	}
	return guid, nil
}
