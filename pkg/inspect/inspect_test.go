// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/pkg/tpd/xrml"
	"keyferry/test/vectors"
)

// What a template says is shown as its words.
func TestTemplateText(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	e, err := tpd.Parse(v.XML)
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decrypt(v.Password)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReport(d.Check(tpd.Terms{Now: time.Now()}))
	template := &r.Templates[0]
	template.Rights = []string{"VIEW", "\x1b[2J\n  verdict"}
	template.DistributionPoints[0].Type = "x\u202e"
	template.Names[0].LCID = "1033\n"
	var text strings.Builder
	describe(&text, r, true)
	for _, want := range []string{`rights: VIEW, \x1b[2J\n verdict`, `x\u202e "https`, `1033\n: "`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("lacks %s:\n%s", want, text.String())
		}
	}
}

func certificate(t testing.TB, text string) *xrml.Certificate {
	t.Helper()
	c, err := xrml.Parse(xmltree.Text{AsIs: text, Normalised: text})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What Microsoft's published certificates give rights to, and where.
func TestPublishedCertificates(t *testing.T) {
	for _, v := range vectors.AllXrML(t) {
		described := describeTemplate(certificate(t, v.Text))
		switch v.Name {
		case "ms-rmpr-client-licensor-certificate-example":
			if len(described.DistributionPoints) != 2 || described.DistributionPoints[1].URL != "http://rms.contoso.com/_wmcs/licensing" || described.Anyone {
				t.Errorf("%+v", described)
			}
		case "ms-rmpr-use-license-example":
			if !slices.Equal(described.Rights, []string{"VIEW"}) {
				t.Errorf("rights %v", described.Rights)
			}
		}
	}
}

func TestSplitNames(t *testing.T) {
	en, de := LocalizedName{"1033", "Confidential", "Only us"}, LocalizedName{"1031", "Vertraulich", "Nur wir"}
	for text, want := range map[string]struct {
		names     []LocalizedName
		ambiguous bool
	}{
		"LCID 1033:NAME Confidential:DESCRIPTION Only us;":                                                {[]LocalizedName{en}, false},
		"LCID 1033:NAME Confidential:DESCRIPTION Only us;LCID 1031:NAME Vertraulich:DESCRIPTION Nur wir;": {[]LocalizedName{en, de}, false},
		"LCID 1033:NAME Finance: EMEA:DESCRIPTION a;":                                                     {[]LocalizedName{{"1033", "Finance: EMEA", "a"}}, true},
		"LCID 1033:NAME A; B:DESCRIPTION c;":                                                              {[]LocalizedName{{"1033", "A; B", "c"}}, true},
		"LCID 1033:NAME A:DESCRIPTION see: b;":                                                            {[]LocalizedName{{"1033", "A", "see: b"}}, true},
		"LCID 1033:NAME A:DESCRIPTION b":                                                                  {[]LocalizedName{{"1033", "A", "b"}}, true},
		"LCID 1033:NAME A;":                                                                               {[]LocalizedName{{"1033", "A", ""}}, true},
		"x LCID 1033:NAME A:DESCRIPTION b;":                                                               {[]LocalizedName{}, true},
		"Confidential":                                                                                    {[]LocalizedName{}, true},
		"":                                                                                                {[]LocalizedName{}, true},
	} {
		names, ambiguous := splitNames(text)
		if !slices.Equal(names, want.names) || names == nil || ambiguous != want.ambiguous {
			t.Errorf("%q: %+v, ambiguous %v", text, names, ambiguous)
		}
	}
}

// FuzzTemplate: every certificate that can be read can be described.
func FuzzTemplate(f *testing.F) {
	for _, v := range vectors.AllXrML(f) {
		f.Add(v.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := xrml.Parse(xmltree.Text{AsIs: text, Normalised: text}); err == nil {
			describeTemplate(c)
		}
	})
}
