// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"strings"
	"testing"
	"time"

	"keyferry/pkg/tpd"
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
	r := d.Check(tpd.Terms{Now: time.Now()})
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
