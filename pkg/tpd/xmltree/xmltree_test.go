// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"
)

func parseText(text string) (*Document, error) {
	d := new(Document)
	return d, d.ParseText(text)
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
		"ISO-10646-UCS-2":           toUTF16(be, `<?xml version="1.0" encoding="ISO-10646-UCS-2"?>`+doc),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Root().TextOf("b"); got != "é𝄞 <&" {
				t.Errorf("text of b is %q", got)
			}
			if d.Root().AttrIn("urn:p", "t") != "1" || d.Root().Attr("t") != "" || d.Root().One("b").Attr("x") != "2" || len(d.Root().Attrs()) != 1 {
				t.Errorf("attributes are %v, %v", d.Root()[0].attrs, d.Root().One("b")[0].attrs)
			}
			from, to := d.Root().One("b").Range()
			if got := d.Text[from:to]; got != "<b x='2'>é𝄞 &lt;&amp;</b>" {
				t.Errorf("b lies at %q", got)
			}
			from, to = d.SourceRange(d.Root().One("c").Range())
			cut, err := Parse(append(data[:from:from], data[to:]...))
			if err != nil || cut.Text != strings.Replace(d.Text, "<c />", "", 1) {
				t.Errorf("c cut out of the source leaves %q, %v", cut.Text, err)
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
	if d.Root().AttrIn("http://www.w3.org/XML/1998/namespace", "space") != "preserve" || d.Root().Text() != " " {
		t.Errorf("attributes are %v, the text is %q", d.Root()[0].attrs, d.Root().Text())
	}
}

// A special byte is found wherever it is, in a long run of plain text too.
func TestPlainUntil(t *testing.T) {
	text := []byte(strings.Repeat("+Az9", 290))
	for at, was := range text {
		for b := range 256 {
			text[at] = byte(b)
			want := len(text)
			if b < ' ' || b >= 0x80 || strings.IndexByte("<>&", byte(b)) >= 0 {
				want = at
			}
			if got := plainUntil(string(text), 0); got != want {
				t.Fatalf("%#x at %d: found %d, expected %d", b, at, got, want)
			}
		}
		text[at] = was
	}
}

// Faults in a long text are found where they are, the first one first.
func TestLongTexts(t *testing.T) {
	long := strings.Repeat("&lt;é&gt;\r\n", 1000)
	d, err := parseText("<a><b>" + long + "</b><c>" + long + "x</c></a>")
	if want := strings.Repeat("<é>\n", 1000); err != nil || d.Root().TextOf("b") != want || d.Root().TextOf("c") != want+"x" {
		t.Fatalf("%v: b has %d bytes", err, len(d.Root().TextOf("b")))
	}
	for fault, c := range map[string]struct {
		because string
		at      int
	}{"&e;": {"entity", 0}, "\x01": {"illegal character", 0}, "\xff": {"UTF-8", 0}, "]]>": {"]]>", 2}} {
		_, err := parseText("<a><b>" + long + fault + "</b><c>" + long + "&other;</c></a>")
		at := fmt.Sprintf("at byte %d:", len("<a><b>"+long)+c.at)
		if err == nil || !strings.Contains(err.Error(), c.because) || !strings.Contains(err.Error(), at) {
			t.Errorf("got %v, expected %q %s", err, c.because, at)
		}
	}
}

// An element in a namespace is found by no name.
func TestNamespaces(t *testing.T) {
	d, err := parseText("<a xmlns:p='urn:p'><b xmlns='urn:b'><b>1</b><c xmlns=''><b>2</b></c></b><p:b>3</p:b><b xmlns=''>4</b ><é>5</é></a>")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := range d.Root().Within() {
		names = append(names, n.Name())
	}
	if got := strings.Join(names, " "); got != ":b :b c b p:b b é" {
		t.Errorf("the elements are %s", got)
	}
	if d.Root().TextOf("b") != "4" || d.Root().Count("b") != 1 || d.Root().TextOf("é") != "5" {
		t.Errorf("b is %q, é is %q", d.Root().TextOf("b"), d.Root().TextOf("é"))
	}
}

// What stands between elements is passed over and noted, in the next text no more.
func TestPassed(t *testing.T) {
	d := new(Document)
	for _, c := range []struct{ text, passed string }{
		{"<!-- <a> --><a><?x?><b>1</b><!---->\n<!-- - -> é --> <c/><!-- 2 --></a><!---->", Comment + ", " + Instruction},
		{"<?é <a> ?>\n<a><b>1</b><c/></a>\n<?y ?>", Instruction},
		{"<a><b>1</b><c/></a>", ""},
	} {
		if err := d.ParseText(c.text); err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		if got := strings.Join(d.Passed, ", "); got != c.passed || d.Root().TextOf("b") != "1" || d.Root().Count("c") != 1 {
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
	"no XML":                  {"PK\x03\x04", "illegal character"},
	"plain text":              {"hello", "outside"},
	"document type":           {"<!DOCTYPE a><a/>", "document type"},
	"entity declaration":      {`<!DOCTYPE a [<!ENTITY e "e">]><a>&e;</a>`, "document type"},
	"unknown entity":          {"<a>&e;</a>", "entity"},
	"comment in no text":      {"<a><!-- x --></a>", "does not stand between elements"},
	"comment before text":     {"<a><b/><c><!-- x -->y</c></a>", "does not stand between elements"},
	"comment after text":      {"<a><b>y<!-- x --></b></a>", "does not stand between elements"},
	"comment after a space":   {"<a><b> <!-- x --></b></a>", "does not stand between elements"},
	"comment in text":         {"<a>x<!-- x -->y</a>", "does not stand between elements"},
	"comment, text, element":  {"<a><!-- x -->y<b/></a>", "beside"},
	"element, comment, text":  {"<a><b/><!-- x -->y</a>", "beside"},
	"comment holds --":        {"<!-- -- --><a/>", "has a --"},
	"comment ends in -":       {"<!-- ---><a/>", "has a --"},
	"comment is cut":          {"<a/><!-- -", "unexpected EOF"},
	"comment's end is cut":    {"<a/><!-- --", "unexpected EOF"},
	"control in a comment":    {"<!--\x01--><a/>", "in a comment: illegal character"},
	"no UTF-8 in a comment":   {"<!--\xff--><a/>", "in a comment: invalid UTF-8"},
	"instruction in text":     {"<a>x<?x y?></a>", "does not stand between elements"},
	"instruction in no text":  {"<a><?x y?></a>", "does not stand between elements"},
	"instruction is cut":      {"<a/><?x ", "unexpected EOF"},
	"instruction is nameless": {"<? x?><a/>", "expected a name"},
	"instruction p:x":         {"<?p:x?><a/>", "can't be named"},
	"instruction XML":         {"<?XML ?><a/>", "can't be named"},
	"instruction x!":          {"<?x!?><a/>", "no white space"},
	"control in instruction":  {"<?x \x01?><a/>", "in a processing instruction: illegal character"},
	"second declaration":      {`<a><?xml version="1.0"?></a>`, "can't be named"},
	"truncated":               {"<a><b>text", "unexpected EOF"},
	"wrong end":               {"<a></b>", "closed by"},
	"two roots":               {"<a/><b/>", "second document"},
	"text after the root":     {"<a/>x", "outside"},
	"mixed content":           {"<a>x<b/></a>", "beside"},
	"repeated attribute":      {"<a x='1' x='2'/>", "twice"},
	"repeated by namespace":   {"<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>", "twice"},
	"repeated prefix":         {"<a xmlns:p='u' xmlns:p='v'/>", "twice"},
	"repeated default":        {"<a xmlns='' xmlns=''/>", "twice"},
	"too many attributes":     {"<a" + attrs(maxAttrs+1) + "/>", "more than 16 attributes"},
	"attributes in all":       {"<a>" + strings.Repeat("<b"+attrs(maxAttrs)+"/>", maxElements/maxAttrs) + "<c x='1'/></a>", "more than 1048576 attributes"},
	"too many namespaces":     {"<a" + strings.ReplaceAll(attrs(maxAttrs), " ", " xmlns:") + "><b xmlns:y='u'/></a>", "more than 16 namespaces"},
	"too many on the way":     {"<a" + strings.ReplaceAll(attrs(9), " ", " xmlns:") + "><b" + strings.ReplaceAll(attrs(8), " ", " xmlns:") + "/></a>", "more than 16 namespaces"},
	"undeclared element":      {"<a><p:b/></a>", "not declared"},
	"element out of force":    {"<a><b xmlns:p='u'/><p:c/></a>", "not declared"},
	"element xmlns:b":         {"<a><xmlns:b/></a>", "not declared"},
	"end of no prefix":        {"<a xmlns='u'><b></:b></a>", "colon"},
	"end without prefix":      {"<p:a xmlns:p='u'></a>", "closed by"},
	"end with a prefix":       {"<a xmlns='u' xmlns:p='u'></p:a>", "closed by"},
	"undeclared prefix":       {"<a p:x='1'/>", "not declared"},
	"prefix out of force":     {"<a><b xmlns:p='u'/><c p:x='1'/></a>", "not declared"},
	"empty prefix":            {"<a xmlns:p=''/>", "can't be declared"},
	"prefix xml":              {"<a xmlns:xml='u'/>", "can't be declared"},
	"colon at the end":        {"<a x:='1'/>", "colon"},
	"colon at the start":      {"<a :x='1'/>", "colon"},
	"two colons":              {"<a x:y:z='1'/>", "colon"},
	"name of a sign":          {"<\u00d7/>", "no name has"},
	"name with a sign":        {"<a\u20ac/>", "no name has"},
	"name of no UTF-8":        {"<a\xff/>", "no name has"},
	"accent after a colon":    {"<a p:\u0301='1'/>", "colon"},
	"long name":               {"<" + strings.Repeat("\u00e4", maxName/2) + "a/>", "more than 1024 bytes"},
	"name of a digit":         {"<1/>", "expected a name"},
	"CDATA":                   {"<a><![CDATA[x]]></a>", "CDATA"},
	"end of CDATA":            {"<a>]]></a>", "]]>"},
	"end of CDATA, escaped":   {"<a>&lt;]]></a>", "]]>"},
	"raw < in a value":        {"<a x='<'/>", "value has a <"},
	"line end in a value":     {"<a x='1\n2'/>", "line end"},
	"no quotes":               {"<a x=1/>", "quote"},
	"no value":                {"<a x/>", "expected ="},
	"no white space":          {"<a x='1'y='2'/>", "expected >"},
	"reference to a control":  {"<a>&#1;</a>", "no character"},
	"surrogate":               {"<a>&#xD800;</a>", "no character"},
	"beyond Unicode":          {"<a>&#1114112;</a>", "no character"},
	"huge reference":          {"<a>&#" + strings.Repeat("9", 1<<16) + ";</a>", "no character"},
	"empty reference":         {"<a>&#x;</a>", "no character"},
	"only ampersands":         {"<a>" + strings.Repeat("&", 100) + "</a>", "entity"},
	"then ampersands":         {"<a>" + strings.Repeat("x\r", 20) + strings.Repeat("&", 100) + "</a>", "entity"},
	"reference in a value":    {"<a x='&y;'/>", "entity"},
	"control in a value":      {"<a x='\x01'/>", "illegal character"},
	"declares no version":     {"<?xml encoding='utf-8'?><a/>", "no version"},
	"declares in disorder":    {"<?xml version='1.0' standalone='no' encoding='utf-8'?><a/>", "does not end"},
	"declares a version2":     {"<?xml version2='1.0'?><a/>", "has the version2"},
	"declares no encoding":    {"<?xml version='1.0' encoding=''?><a/>", "has the encoding"},
	"declares no truth":       {"<?xml version='1.0' standalone='maybe'?><a/>", "has the standalone"},
	"declaration is cut":      {"<?xml version='1.0'", "does not end"},
	"end tag only":            {"</a>", "no start tag"},
	"end tag with more":       {"<a></a b>", "expected >"},
	"too deep":                {strings.Repeat("<a>", maxDepth+1), "nested"},
	"too many":                {"<a>" + strings.Repeat("<b/>", maxElements), "more than"},
	"no UTF-8":                {"<a>\xff</a>", "UTF-8"},
	"declares latin 1":        {`<?xml version="1.0" encoding="iso-8859-1"?><a/>`, "declares the encoding"},
	"UTF-8 declares utf-16":   {`<?xml version="1.0" encoding="utf-16"?><a/>`, "declares the encoding"},
	"UTF-16 declares utf-8":   {string(toUTF16(binary.LittleEndian, `<?xml version="1.0" encoding="utf-8"?><a/>`)), "declares the encoding"},
	"LE declares utf-16be":    {string(toUTF16(binary.LittleEndian, `<?xml version="1.0" encoding="utf-16BE"?><a/>`)), "but is written in utf-16le"},
	"BE declares utf-16le":    {string(toUTF16(binary.BigEndian, `<?xml version="1.0" encoding="utf-16le"?><a/>`)[2:]), "but is written in utf-16be"},
	"UTF-8 declares unicode":  {`<?xml version="1.0" encoding="unicode"?><a/>`, "but is written in utf-8"},
	"odd UTF-16":              {"\xff\xfe<\x00a", "odd number"},
	"lone surrogate":          {loneSurrogate(), "surrogate"},
	"surrogate at the end":    {"\xff\xfe\x00\xd8", "surrogate"},
	"XML 1.1":                 {`<?xml version="1.1"?><a/>`, "version"},
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
		if got := d.Root().TextOf(strings.Split(path, "/")...); got != want {
			t.Errorf("%s: %q, expected %q", path, got, want)
		}
	}
	var within []string
	for n := range d.Root().Within() {
		within = append(within, n.Name()+"="+n.Text())
	}
	if got := strings.Join(within, " "); got != "b= c=1 d=2 d=3 e=4" {
		t.Errorf("within the root are %s", got)
	}
	if n := d.Root().Count("d"); n != 2 {
		t.Errorf("%d elements named d, expected 2", n)
	}
	if missing := d.Root().One("x"); missing.Attr("y") != "" || missing.TextOf("y") != "" || missing.Name() != "" || missing.HasChildren() || missing.Count("y") != 0 {
		t.Error("a missing element has content")
	}
}

// Numbers at the bounds are accepted.
func TestBoundsAreInclusive(t *testing.T) {
	for name, doc := range map[string]string{
		"depth":       strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth),
		"elements":    "<a>" + strings.Repeat("<b/>", maxElements-1) + "</a>",
		"attributes":  "<a" + attrs(maxAttrs) + "/>",
		"namespaces":  "<a" + strings.ReplaceAll(attrs(maxPrefixes), " ", " xmlns:") + "/>",
		"names":       "<" + strings.Repeat("ä", maxName/2) + "/>",
		"ASCII names": "<" + strings.Repeat("a", 2*maxName) + "/>",
		"references":  "<a>&#0000000000000065;&#x10FFFF;&#xFFFD;&#9;</a>",
	} {
		if _, err := parseText(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Text that stands for itself is a part of the input, not a copy.
func TestTextIsNotCopied(t *testing.T) {
	data := []byte("<a><b>" + strings.Repeat("ABCD", 1<<20) + "</b></a>")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d, err := Parse(data)
	runtime.ReadMemStats(&after)
	if err != nil || len(d.Root().TextOf("b")) != 4<<20 {
		t.Fatal(err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<10 {
		t.Errorf("%d bytes are allocated to parse %d", used, len(data))
	}
}

// A Document that parsed another text is as good as a new one.
func TestDocumentIsUsedAgain(t *testing.T) {
	d := new(Document)
	texts := []string{"<a x='1'><b y='2'>3</b><c/></a>", "<d><e>&lt;</e></d>", "<f", "<g>4</g>"}
	for _, text := range append(texts, texts...) {
		again, fresh := d.ParseText(text), new(Document)
		if err := fresh.ParseText(text); (err == nil) != (again == nil) {
			t.Fatalf("%s: %v, in a new document %v", text, again, err)
		}
		if again == nil && !reflect.DeepEqual(d.Root(), fresh.Root()) {
			t.Errorf("%s: %v, in a new document %v", text, d.Root(), fresh.Root())
		}
	}
}
