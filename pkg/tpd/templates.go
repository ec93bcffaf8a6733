// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"fmt"

	"keyferry/pkg/control"
	"keyferry/pkg/xrml"
)

// templates checks each template. One that was not signed by this domain is a
// refusal; what Azure RMS makes less of is a warning.
func (c *checker) templates() {
	seen := map[string]int{} // GUID → position
	for i, text := range c.d.Templates {
		cert, err := xrml.Parse(text)
		if err != nil {
			c.r.refuse(control.TPDTemplate.Refuse("template %d is unreadable: %w", i+1, err))
			continue
		}
		t, err := xrml.DescribeTemplate(cert)
		if err != nil {
			c.r.refuse(control.TPDTemplate.Refuse("template %d: %w", i+1, err))
			continue
		}
		c.r.Templates = append(c.r.Templates, t)
		if first, ok := seen[t.GUID]; ok {
			c.r.warn(control.TPDTemplateDuplicate.Refuse("templates %d and %d have the same GUID %s", first, i+1, t.GUID))
		} else {
			seen[t.GUID] = i + 1
		}
		c.template(cert, t, i+1)
	}
}

func (c *checker) template(cert *xrml.Certificate, t xrml.Template, position int) {
	name := t.GUID
	if len(t.Names) > 0 {
		name = control.Quote(t.Names[0].Name)
	}
	label := fmt.Sprintf("template %d (%s)", position, name)
	if c.slc != nil {
		if err := cert.Verify(c.licensor.Key); err != nil {
			c.r.refuse(control.TPDTemplateSignature.Refuse("%s does not hold: %w", label, err))
		} else if !cert.Issuer.Same(c.licensor) {
			c.r.warn(control.TPDTemplateIssuer.Refuse("%s names %s as its issuer, expected the server of this domain, %s", label, control.Quote(cert.Issuer.Name), control.Quote(c.licensor.Name)))
		}
	}
	if t.Anyone {
		c.r.warn(control.TPDTemplateAnyone.Refuse("%s gives rights to ANYONE", label))
	}
	if t.AmbiguousNames {
		c.r.warn(control.TPDTemplateName.Refuse("%s has a name or description that holds : or ;, or none at all", label))
	}
	for _, p := range t.DistributionPoints {
		if !isWebURL(p.URL) {
			c.r.warn(control.TPDURL.Refuse("%s has a distribution point that is no http or https URL: %s", label, control.Quote(p.URL)))
		}
	}
}
