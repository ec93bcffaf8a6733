// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"fmt"

	"keyferry/internal/cores"
	"keyferry/pkg/control"
	"keyferry/pkg/tpd/xrml"
)

// templates checks each template. One that was not signed by this domain is a
// refusal; what Azure RMS makes less of is a warning.
//
// An export may have thousands, each with a signature to verify: they are
// checked on all cores, and what was found is reported in their order.
func (c *checker) templates() {
	all := make([]checkedTemplate, len(c.d.Templates))
	cores.Each(len(all), func() func(int) {
		reader := new(xrml.Reader)
		return func(i int) { all[i] = c.template(reader, c.d.Templates[i], i+1) }
	})
	seen := make(map[string]int, len(all)) // GUID → position
	c.r.Templates = make([]xrml.Template, 0, len(all))
	for i, t := range all {
		if t.readable {
			c.r.Templates = append(c.r.Templates, t.facts)
			if first, ok := seen[t.facts.GUID]; ok {
				c.r.warn(control.TPDTemplateDuplicate.Refuse("templates %d and %d have the same GUID %s", first, i+1, t.facts.GUID))
			} else {
				seen[t.facts.GUID] = i + 1
			}
		}
		if t.refusal != nil {
			c.r.refuse(t.refusal)
		}
		for _, w := range t.warnings {
			c.r.warn(w)
		}
	}
}

// checkedTemplate is what was found of one template.
type checkedTemplate struct {
	facts    xrml.Template
	readable bool
	refusal  *control.Refusal
	warnings []*control.Refusal
}

func (c *checker) template(reader *xrml.Reader, text string, position int) (found checkedTemplate) {
	cert, facts, err := readTemplate(reader, text)
	if err != nil {
		found.refusal = control.TPDTemplate.Refuse("template %d is unreadable: %w", position, err)
		return found
	}
	found.facts, found.readable = facts, true
	label := func() string {
		name := facts.GUID
		if len(facts.Names) > 0 {
			name = control.Quote(facts.Names[0].Name)
		}
		return fmt.Sprintf("template %d (%s)", position, name)
	}
	warn := func(w *control.Refusal) { found.warnings = append(found.warnings, w) }
	if c.slc != nil {
		if err := cert.Verify(c.licensor.Key); err != nil {
			found.refusal = control.TPDTemplateSignature.Refuse("%s does not hold: %w", label(), err)
		} else if !cert.Issuer.Same(c.licensor) {
			warn(control.TPDTemplateIssuer.Refuse("%s names %s as its issuer, expected the server of this domain, %s", label(), control.Quote(cert.Issuer.Name), control.Quote(c.licensor.Name)))
		}
	}
	if facts.Anyone {
		warn(control.TPDTemplateAnyone.Refuse("%s gives rights to ANYONE", label()))
	}
	if facts.AmbiguousNames {
		warn(control.TPDTemplateName.Refuse("%s has a name or description that holds : or ;, or none at all", label()))
	}
	for _, p := range facts.DistributionPoints {
		if !isWebURL(p.URL) {
			warn(control.TPDURL.Refuse("%s has a distribution point that is no http or https URL: %s", label(), control.Quote(p.URL)))
		}
	}
	return found
}

// readTemplate reads a template and what a report says of it.
func readTemplate(reader *xrml.Reader, text string) (*xrml.Certificate, xrml.Template, error) {
	cert, err := reader.Parse(text)
	if err != nil {
		return nil, xrml.Template{}, err
	}
	facts, err := xrml.DescribeTemplate(cert)
	return cert, facts, err
}
