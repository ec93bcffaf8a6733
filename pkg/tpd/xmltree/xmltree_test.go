// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"
)

func parseText(text string) (*Document, error) {
	return ParseText(text)
}

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
		"UTF-16LE without mark":     toUTF16(le, doc)[2:],
		"UTF-16BE without mark":     toUTF16(be, doc)[2:],
		"UTF-16BE declared, spaced": toUTF16(be, `<?xml version='1.0' encoding = 'Utf-16' ?>`+doc),
		"UTF-16BE as .NET has it":   toUTF16(be, `<?xml version="1.0" encoding="utf-16BE"?>`+doc),
		"UTF-16LE with its order":   toUTF16(le, `<?xml version="1.0" encoding="utf-16le"?>`+doc),
		"its order without mark":    toUTF16(be, `<?xml version="1.0" encoding="UTF-16BE"?>`+doc)[2:],
		"Unicode":                   toUTF16(le, `<?xml version="1.0" encoding="Unicode"?>`+doc),
		"ISO-10646-UCS-2":           toUTF16(le, `<?xml version="1.0" encoding="ISO-10646-UCS-2"?>`+doc),
		"UCS-2":                     toUTF16(le, `<?xml version="1.0" encoding="ucs-2"?>`+doc),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Root.TextOf("b"); got != "é𝄞 <&" {
				t.Errorf("text of b is %q", got)
			}
			if d.Root.AttrIn("urn:p", "t") != "1" || d.Root.Attr("t") != "" || d.Root.One("b").Attr("x") != "2" || len(d.Root.Attrs) != 1 {
				t.Errorf("attributes are %v, %v", d.Root.Attrs, d.Root.One("b").Attrs)
			}
			b := d.Root.One("b")
			if got := d.Text[b.From:b.To]; got != "<b x='2'>é𝄞 &lt;&amp;</b>" {
				t.Errorf("b lies at %q", got)
			}
		})
	}
}

// The prefix xml needs no declaration: XmlSerializer writes xml:space.
func TestPrefixXML(t *testing.T) {
	d, err := parseText(`<a xml:space="preserve"> </a>`)
	if err != nil {
		t.Fatal(err)
	}
	if d.Root.AttrIn("http://www.w3.org/XML/1998/namespace", "space") != "preserve" || d.Root.Text() != " " {
		t.Errorf("attributes are %v, the text is %q", d.Root.Attrs, d.Root.Text())
	}
}

// A carriage return has two readings, but for one that is written as a reference.
func TestReadings(t *testing.T) {
	for text, want := range map[string]Text{
		"a\r\nb":                         {"a\r\nb", "a\nb"},
		"a&#xD;\nb\r\n":                  {"a\r\nb\r\n", "a\r\nb\n"},
		"\r&lt;\r\n":                     {"\r<\r\n", "\n<\n"},
		"<![CDATA[&#xD;\r\n]]>a\r":       {"&#xD;\r\na\r", "&#xD;\na\n"},
		"a<!-- x\r\n -->\r\nb<?x \r\n?>": {"a\r\nb", "a\nb"},
		" \r\n":                          {" \r\n", " \n"},
		"":                               {},
	} {
		d, err := parseText("<a>" + text + "</a>")
		if err != nil || d.Root.Readings() != want {
			t.Errorf("%q: %q, expected %q; %v", text, d.Root.Readings(), want, err)
		}
	}
}

// Bytes of ASCII are of each encoding that has them; others are not read.
func TestDeclaredASCII(t *testing.T) {
	for _, name := range []string{"us-ascii", "US-ASCII", "iso-8859-1", "ISO-8859-15", "windows-1252", "Windows-1251"} {
		text := `<?xml version="1.0" encoding="` + name + `"?><a/>`
		if _, err := Parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Parse([]byte(strings.Replace(text, "<a/>", "<a>\u00e9</a>", 1))); err == nil || !strings.Contains(err.Error(), "only UTF-8 and UTF-16 are read here") {
			t.Errorf("%s with other letters: %v", name, err)
		}
	}
}

// within are all elements in one, in the order of their start tags.
func within(n *Node) (all []*Node) {
	for _, child := range n.Children {
		all = append(append(all, child), within(child)...)
	}
	return all
}

// An element in a namespace is found by no name.
func TestNamespaces(t *testing.T) {
	d, err := parseText("<a xmlns:p='urn:p'><b xmlns='urn:b'><b>1</b><c xmlns=''><b>2</b></c></b><p:b>3</p:b><b xmlns=''>4</b ><é>5</é></a>")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range within(d.Root) {
		names = append(names, n.Name)
	}
	if got := strings.Join(names, " "); got != ":b :b c b p:b b é" {
		t.Errorf("the elements are %s", got)
	}
	if d.Root.TextOf("b") != "4" || len(d.Root.All("b")) != 1 || d.Root.TextOf("é") != "5" {
		t.Errorf("b is %q, é is %q", d.Root.TextOf("b"), d.Root.TextOf("é"))
	}
}

// What stands between elements is passed over and noted, in the next text no more.
func TestPassed(t *testing.T) {
	for _, c := range []struct{ text, passed string }{
		{"<!-- <a> --><a><?x?><b>1</b><!---->\n<!-- - -> é --> <c/><!-- 2 --></a><!---->", Comment + ", " + Instruction},
		{"<?é <a> ?>\n<a><b>1</b><c/></a>\n<?y ?>", Instruction},
		{"<a><b>1</b><c/></a>", ""},
	} {
		d, err := parseText(c.text)
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if got := strings.Join(d.Passed, ", "); got != c.passed || d.Root.TextOf("b") != "1" || len(d.Root.All("c")) != 1 {
			t.Errorf("%s: passed over %s, expected %s", c.text, got, c.passed)
		}
	}
}

func TestParseTextTakesAnyDeclaredEncoding(t *testing.T) {
	const doc = `<?xml version="1.0" encoding="utf-16"?><a/>`
	if _, err := parseText(doc); err != nil {
		t.Error(err)
	}
	if _, err := Parse([]byte(doc)); err == nil {
		t.Error("UTF-8 bytes under a declaration of utf-16 are accepted")
	}
}

func attrs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " a%c='%d'", 'a'+i, i)
	}
	return b.String()
}

// refused are documents and what the error says of them.
var refused = map[string]struct{ doc, because string }{
	"empty":                   {"", "no XML element"},
	"blank":                   {" \r\n", "no XML element"},
	"no XML":                  {"PK\x03\x04", "U+0003"},
	"plain text":              {"hello", "outside"},
	"document type":           {"<!DOCTYPE a><a/>", "document type"},
	"entity declaration":      {`<!DOCTYPE a [<!ENTITY e "e">]><a>&e;</a>`, "document type"},
	"unknown entity":          {"<a>&e;</a>", "entity"},
	"comment, text, element":  {"<a><!-- x -->y<b/></a>", "beside"},
	"element, comment, text":  {"<a><b/><!-- x -->y</a>", "beside"},
	"comment holds --":        {"<!-- -- --><a/>", "not allowed in comments"},
	"comment ends in -":       {"<!-- ---><a/>", "not allowed in comments"},
	"comment is cut":          {"<a/><!-- -", "cut short"},
	"comment's end is cut":    {"<a/><!-- --", "cut short"},
	"control in a comment":    {"<!--\x01--><a/>", "U+0001"},
	"no UTF-8 in a comment":   {"<!--\xff--><a/>", "no character of UTF-8"},
	"instruction is cut":      {"<a/><?x ", "cut short"},
	"instruction is nameless": {"<? x?><a/>", "target name"},
	"instruction p:x":         {"<?p:x?><a/>", "that XML does not allow"},
	"instruction XML":         {"<?XML ?><a/>", "that XML does not allow"},
	"instruction x!":          {"<?x!?><a/>", "that XML does not allow"},
	"control in instruction":  {"<?x \x01?><a/>", "U+0001"},
	"second declaration":      {`<a><?xml version="1.0"?></a>`, "that XML does not allow"},
	"truncated":               {"<a><b>text", "cut short"},
	"wrong end":               {"<a></b>", "without its start tag"},
	"two roots":               {"<a/><b/>", "second document"},
	"text after the root":     {"<a/>x", "outside"},
	"mixed content":           {"<a>x<b/></a>", "beside"},
	"repeated attribute":      {"<a x='1' x='2'/>", "twice"},
	"repeated by namespace":   {"<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", "twice"},
	"repeated prefix":         {"<a xmlns:p='u' xmlns:p='v'/>", "twice"},
	"repeated default":        {"<a xmlns='' xmlns=''/>", "twice"},
	"too many attributes":     {"<a" + attrs(maxAttrs+1) + "/>", "more than 16 attributes"},
	"too many namespaces":     {"<a" + strings.ReplaceAll(attrs(maxAttrs), " ", " xmlns:") + "><b xmlns:y='u'/></a>", "more than 16 namespaces"},
	"undeclared element":      {"<a><p:b/></a>", "not declared"},
	"element out of force":    {"<a><b xmlns:p='u'/><p:c/></a>", "not declared"},
	"element xmlns:b":         {"<a><xmlns:b/></a>", "not declared"},
	"end of no prefix":        {"<a xmlns='u'><b></:b></a>", "without its start tag"},
	"end without prefix":      {"<p:a xmlns:p='u'></a>", "without its start tag"},
	"end with a prefix":       {"<a xmlns='u' xmlns:p='u'></p:a>", "without its start tag"},
	"undeclared prefix":       {"<a p:x='1'/>", "not declared"},
	"prefix out of force":     {"<a><b xmlns:p='u'/><c p:x='1'/></a>", "not declared"},
	"empty prefix":            {"<a xmlns:p=''/>", "can't be declared"},
	"prefix xml":              {"<a xmlns:xml='u'/>", "can't be declared"},
	"colon at the end":        {"<a x:='1'/>", "colon"},
	"colon at the start":      {"<a :x='1'/>", "colon"},
	"two colons":              {"<a x:y:z='1'/>", "attribute name"},
	"name of a sign":          {"<\u00d7/>", "invalid XML name"},
	"name with a sign":        {"<a\u20ac/>", "invalid XML name"},
	"name of no UTF-8":        {"<a\xff/>", "no character of UTF-8"},
	"accent after a colon":    {"<a p:\u0301='1'/>", "colon"},
	"name of a digit":         {"<1/>", "invalid XML name"},
	"end of CDATA":            {"<a>]]></a>", "]]>"},
	"end of CDATA, escaped":   {"<a>&lt;]]></a>", "]]>"},
	"raw < in a value":        {"<a x='<'/>", "unescaped <"},
	"line end in a value":     {"<a x='1\n2'/>", "line end"},
	"no quotes":               {"<a x=1/>", "quote"},
	"no value":                {"<a x/>", "without ="},
	"no white space":          {"<a x='1'y='2'/>", "no white space between"},
	"reference to a control":  {"<a>&#1;</a>", "character code"},
	"surrogate":               {"<a>&#xD800;</a>", "reference to a character"},
	"beyond Unicode":          {"<a>&#1114112;</a>", "character entity"},
	"huge reference":          {"<a>&#" + strings.Repeat("9", 1<<16) + ";</a>", "character entity"},
	"empty reference":         {"<a>&#x;</a>", "character entity"},
	"only ampersands":         {"<a>" + strings.Repeat("&", 100) + "</a>", "entity"},
	"then ampersands":         {"<a>" + strings.Repeat("x\r", 20) + strings.Repeat("&", 100) + "</a>", "entity"},
	"reference in a value":    {"<a x='&y;'/>", "entity"},
	"control in a value":      {"<a x='\x01'/>", "U+0001"},
	"reference to U+FFFD":     {"<a>&#xFFFD;</a>", "reference to a character"},
	"CDATA between elements":  {"<a><b/><![CDATA[ ]]></a>", "beside"},
	"CDATA outside":           {"<a/><![CDATA[ ]]>", "outside"},
	"NUL":                     {"<a>x&#x0;</a>", "NUL"},
	"NUL in decimals":         {"<a>x&#00;</a>", "NUL"},
	"xml:space":               {"<a xml:space='wrong'/>", "xml:space"},
	"long tag":                {"<a " + strings.Repeat("a='' ", 1<<12) + "/>", "a tag of more than"},
	"declares no version":     {"<?xml encoding='utf-8'?><a/>", "declaration, is damaged"},
	"declares in disorder":    {"<?xml version='1.0' standalone='no' encoding='utf-8'?><a/>", "declaration, is damaged"},
	"declares a version2":     {"<?xml version2='1.0'?><a/>", "declaration, is damaged"},
	"declares no encoding":    {"<?xml version='1.0' encoding=''?><a/>", "declaration, is damaged"},
	"declares no truth":       {"<?xml version='1.0' standalone='maybe'?><a/>", "declaration, is damaged"},
	"declaration is cut":      {"<?xml version='1.0'", "declaration, is damaged"},
	"end tag only":            {"</a>", "without its start tag"},
	"end tag with more":       {"<a></a b>", "invalid characters between"},
	"too deep":                {strings.Repeat("<a>", maxDepth+1), "nested"},
	"too many":                {"<a>" + strings.Repeat("<b/>", maxElements), "more than"},
	"no UTF-8":                {"<a>\xff</a>", "UTF-8"},
	"UTF-8 declares utf-16":   {`<?xml version="1.0" encoding="utf-16"?><a/>`, "declares the encoding"},
	"UTF-16 declares utf-8":   {string(toUTF16(binary.LittleEndian, `<?xml version="1.0" encoding="utf-8"?><a/>`)), "declares the encoding"},
	"LE declares utf-16be":    {string(toUTF16(binary.LittleEndian, `<?xml version="1.0" encoding="utf-16BE"?><a/>`)), "but is written in utf-16le"},
	"BE declares utf-16le":    {string(toUTF16(binary.BigEndian, `<?xml version="1.0" encoding="utf-16le"?><a/>`)[2:]), "but is written in utf-16be"},
	"BE declares unicode":     {string(toUTF16(binary.BigEndian, `<?xml version="1.0" encoding="unicode"?><a/>`)), "but is written in utf-16be"},
	"UTF-8 declares unicode":  {`<?xml version="1.0" encoding="unicode"?><a/>`, "but is written in utf-8"},
	"odd UTF-16":              {"\xff\xfe<\x00a", "odd number"},
	"lone surrogate":          {loneSurrogate(), "surrogate"},
	"surrogate at the end":    {"\xff\xfe\x00\xd8", "surrogate"},
	"XML 1.1":                 {`<?xml version="1.1"?><a/>`, "declaration, is damaged"},
}

// loneSurrogate is <a>x</a> in UTF-16 with half a pair for x.
func loneSurrogate() string {
	b := toUTF16(binary.LittleEndian, "<a>x</a>")
	b[2+3*2], b[2+3*2+1] = 0x00, 0xD8
	return string(b)
}

func TestParseRefuses(t *testing.T) {
	for name, c := range refused {
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
	d, err := parseText("<a><b><c>1</c></b><d>2</d><d>3</d><e xmlns=''>4</e></a>")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"b/c": "1", "d": "", "e": "4", "x/y": ""} {
		if got := d.Root.TextOf(strings.Split(path, "/")...); got != want {
			t.Errorf("%s: %q, expected %q", path, got, want)
		}
	}
	var names []string
	for _, n := range within(d.Root) {
		names = append(names, n.Name+"="+n.Text())
	}
	if got := strings.Join(names, " "); got != "b= c=1 d=2 d=3 e=4" {
		t.Errorf("within the root are %s", got)
	}
	if n := len(d.Root.All("d")); n != 2 {
		t.Errorf("%d elements named d, expected 2", n)
	}
	if missing := d.Root.One("x"); missing.Attr("y") != "" || missing.TextOf("y") != "" || missing.HasContent() || missing.All("y") != nil {
		t.Error("a missing element has content")
	}
}

// Numbers at the bounds are accepted.
func TestBoundsAreInclusive(t *testing.T) {
	for name, doc := range map[string]string{
		"depth":      strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth),
		"elements":   "<a>" + strings.Repeat("<b/>", maxElements-1) + "</a>",
		"attributes": "<a" + attrs(maxAttrs) + "/>",
		"namespaces": "<a" + strings.ReplaceAll(attrs(maxPrefixes), " ", " xmlns:") + "/>",
		"references": "<a>&#0000000000000065;&#x10FFFF;&#9;</a>",
	} {
		if _, err := parseText(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
