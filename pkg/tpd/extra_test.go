// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// What .NET passes over is passed over here, in both documents, with one warning
// that names it; none of it stands for what has the same name.
func TestTPDExtra(t *testing.T) {
	for name, c := range map[string]struct{ old, new, says string }{
		"element with a prefix":      {"<anyType ", `<p:x xmlns:p="urn:p"><anyType/></p:x><anyType `, `"p:x"`},
		"element in a default":       {"</anyType>", `<m_strKeyData xmlns="urn:x">AAAA</m_strKeyData></anyType>`, `":m_strKeyData"`},
		"known name, known children": {"</anyType>", `<m_ttdki xmlns="urn:x"><strID>x</strID></m_ttdki></anyType>`, `":m_ttdki"`},
		"another domain":             {"</ArrayOfAnyType>", `<anyType xmlns="urn:x" xsi:type="TrustedDocDomain" /></ArrayOfAnyType>`, `":anyType"`},
		"letters outside of ASCII":   {"</anyType>", "<Schlüssel>1</Schlüssel><鍵/></anyType>", `"Schlüssel, 鍵"`},
		"comment":                    {"<anyType ", "<!-- <m_strKeyData> --><anyType ", `"a comment"`},
		"comments at both ends":      {"</ArrayOfAnyType>", "<!--x--></ArrayOfAnyType><!--y-->", `"a comment"`},
		"instruction":                {"</anyType>", "<?x y?></anyType>", `"a processing instruction"`},
		"attribute of the root":      {"<ArrayOfAnyType ", `<ArrayOfAnyType a="1" `, `"the attribute a of ArrayOfAnyType"`},
		"attribute of the element":   {"<anyType ", `<anyType p:a="1" xmlns:p="urn:p" `, `"the attribute a of anyType"`},
		"type in no namespace":       {"<anyType ", `<anyType type="x" `, `"the attribute type of anyType"`},
		"known attributes":           {"<anyType ", `<anyType xml:space="preserve" xsi:nil="false" `, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for i, at := range []func(d *draft) *string{
				func(d *draft) *string { return &d.outer },
				func(d *draft) *string { return &d.document },
			} {
				d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
				text := at(d)
				if !strings.Contains(*text, c.old) {
					t.Fatalf("%q is not in it", c.old)
				}
				*text = strings.Replace(*text, c.old, c.new, 1)
				checkExtra(t, d.export(), d.password, c.says, i == 1)
			}
		})
	}
}

// A comment within a field parts its text for no reader.
func TestCommentInText(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	text := strings.Replace(string(v.XML), "<m_strKeyData>", "<m_strKeyData><!-- x -->", 1)
	checkExtra(t, []byte(strings.Replace(text, "</m_strKeyData>", "<?x y?></m_strKeyData>", 1)), v.Password, `"a comment, a processing instruction"`, false)
}

// checkExtra asserts that a good export is warned of by that alone, and its keyless
// copy too where it is in the document, which a keyless copy keeps.
func checkExtra(t *testing.T, file, password []byte, says string, kept bool) {
	t.Helper()
	e, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decrypt(password)
	if err != nil {
		t.Fatal(err)
	}
	keyless, err := Parse(keylessOf(t, d, OmitElement))
	if err != nil || keyless.HasKey() {
		t.Fatalf("the keyless copy has a key, or %v", err)
	}
	copied, err := keyless.Decrypt(password)
	if err != nil {
		t.Fatal(err)
	}
	without, err := copied.CheckedKeyless(terms)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []*inspect.Report{inspect.NewReport(d.Check(terms)), inspect.NewReport(without.Result())} {
		if r.Verdict != []string{inspect.VerdictHSM, inspect.VerdictKeyless}[i] || (says == "" || i == 1 && !kept) && len(r.Findings) > 0 {
			t.Errorf("%s, %+v", r.Verdict, r.Findings)
		}
		if says != "" && (i == 0 || kept) && (!slices.Equal(controlsOf(r, true), []string{control.TPDExtra.ID}) || !strings.HasSuffix(r.Findings[0].Message, " "+says)) {
			t.Errorf("%+v, expected %s", r.Findings, says)
		}
	}
}
