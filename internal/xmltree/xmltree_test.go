// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"
)

func toUTF16(order binary.AppendByteOrder, text string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune("\uFEFF" + text)) {
		b = order.AppendUint16(b, unit)
	}
	return b
}

func TestParseAccepts(t *testing.T) {
	const doc = "<a xmlns:p='urn:p' p:t='1'>\r\n <b x='2'>é𝄞 &lt;&amp;</b>\r\n <c /></a>\n"
	le, be := binary.LittleEndian, binary.BigEndian
	for name, data := range map[string][]byte{
		"UTF-8":                     []byte(doc),
		"UTF-8 declared":            []byte(`<?xml version="1.0" encoding="UTF-8"?>` + doc),
		"UTF-8 with mark":           []byte("\uFEFF" + doc),
		"UTF-16LE":                  toUTF16(le, doc),
		"UTF-16LE declared":         toUTF16(le, `<?xml version="1.0" encoding="utf-16"?>`+doc),
		"UTF-16BE":                  toUTF16(be, doc),
		"UTF-16BE declared, spaced": toUTF16(be, `<?xml version='1.0' encoding = 'Utf-16' ?>`+doc),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Root.TextOf("b"); got != "é𝄞 <&" {
				t.Errorf("text of b is %q", got)
			}
			if d.Root.Attr("{urn:p}t") != "1" || d.Root.One("b").Attr("x") != "2" || len(d.Root.Attrs) != 1 {
				t.Errorf("attributes are %v, %v", d.Root.Attrs, d.Root.One("b").Attrs)
			}
			b := d.Root.One("b")
			if got := d.Text[b.From:b.To]; got != "<b x='2'>é𝄞 &lt;&amp;</b>" {
				t.Errorf("b lies at %q", got)
			}
			c := d.Root.One("c")
			from, to := d.SourceRange(c.From, c.To)
			cut, err := Parse(append(data[:from:from], data[to:]...))
			if err != nil || cut.Text != strings.Replace(d.Text, "<c />", "", 1) {
				t.Errorf("c cut out of the source leaves %q, %v", cut.Text, err)
			}
		})
	}
}

func TestParseTextTakesAnyDeclaredEncoding(t *testing.T) {
	const doc = `<?xml version="1.0" encoding="utf-16"?><a/>`
	if _, err := ParseText(doc); err != nil {
		t.Error(err)
	}
	if _, err := Parse([]byte(doc)); err == nil {
		t.Error("UTF-8 bytes under a declaration of utf-16 are accepted")
	}
}

func TestParseRefuses(t *testing.T) {
	lone := toUTF16(binary.LittleEndian, "<a>x</a>")
	lone[2+3*2], lone[2+3*2+1] = 0x00, 0xD8
	for name, c := range map[string]struct{ doc, because string }{
		"empty":                  {"", "no XML element"},
		"blank":                  {" \r\n", "no XML element"},
		"no XML":                 {"PK\x03\x04", "illegal character"},
		"plain text":             {"hello", "outside"},
		"document type":          {"<!DOCTYPE a><a/>", "document type"},
		"entity declaration":     {`<!DOCTYPE a [<!ENTITY e "e">]><a>&e;</a>`, "document type"},
		"unknown entity":         {"<a>&e;</a>", "entity"},
		"comment":                {"<a><!-- x --></a>", "comment"},
		"processing instruction": {"<a><?x y?></a>", "processing instruction"},
		"second declaration":     {`<a><?xml version="1.0"?></a>`, "processing instruction"},
		"truncated":              {"<a><b>text", "unexpected EOF"},
		"wrong end":              {"<a></b>", "closed by"},
		"two roots":              {"<a/><b/>", "second document"},
		"text after the root":    {"<a/>x", "outside"},
		"mixed content":          {"<a>x<b/></a>", "beside"},
		"repeated attribute":     {"<a x='1' x='2'/>", "twice"},
		"too deep":               {strings.Repeat("<a>", maxDepth+1), "nested"},
		"too many":               {"<a>" + strings.Repeat("<b/>", maxElements), "more than"},
		"no UTF-8":               {"<a>\xff</a>", "UTF-8"},
		"declares latin 1":       {`<?xml version="1.0" encoding="iso-8859-1"?><a/>`, "declares the encoding"},
		"UTF-8 declares utf-16":  {`<?xml version="1.0" encoding="utf-16"?><a/>`, "declares the encoding"},
		"UTF-16 declares utf-8":  {string(toUTF16(binary.LittleEndian, `<?xml version="1.0" encoding="utf-8"?><a/>`)), "declares the encoding"},
		"odd UTF-16":             {"\xff\xfe<\x00a", "odd number"},
		"lone surrogate":         {string(lone), "surrogate"},
		"surrogate at the end":   {"\xff\xfe\x00\xd8", "surrogate"},
		"XML 1.1":                {`<?xml version="1.1"?><a/>`, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.doc))
			if err == nil || !strings.Contains(err.Error(), c.because) {
				t.Errorf("got %v, expected an error that says %q", err, c.because)
			}
		})
	}
}

// An error shows little of a text that may hold anything.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("x\u202e", 1<<16)
	for _, doc := range []string{"<a></" + long + ">", "<a>&" + long + ";</a>", "<" + long, "<?xml version='1.0' encoding='" + long + "'?><a/>"} {
		_, err := Parse([]byte(doc))
		if err == nil || len(err.Error()) > 400 || strings.Contains(err.Error(), "\u202e") {
			t.Errorf("%.40q: %.400v", doc, err)
		}
	}
}

func TestSearchesAreExact(t *testing.T) {
	d, err := ParseText("<a><b><c>1</c></b><d>2</d><d>3</d><e xmlns='urn:x'>4</e></a>")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"b/c": "1", "d": "", "e": "", "{urn:x}e": "4", "x/y": ""} {
		if got := d.Root.TextOf(strings.Split(path, "/")...); got != want {
			t.Errorf("%s: %q, expected %q", path, got, want)
		}
	}
	if n := len(d.Root.All("d")); n != 2 {
		t.Errorf("%d elements named d, expected 2", n)
	}
	if missing := d.Root.One("x"); missing.Attr("y") != "" || missing.TextOf("y") != "" {
		t.Error("a missing element has content")
	}
}
