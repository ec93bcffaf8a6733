// SPDX-License-Identifier: Apache-2.0

package xmltree_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/test/vectors"
)

// judged is an element as encoding/xml sees it.
type judged struct {
	name     xml.Name
	attrs    []xml.Attr // without namespace declarations
	text     string     // all of its own
	children []*judged
	from, to int
}

// judge reads a text with encoding/xml. It returns the root elements.
func judge(text string) (roots []*judged, err error) {
	dec := xml.NewDecoder(strings.NewReader(text))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var open []*judged
	for {
		from := int(dec.InputOffset())
		token, err := dec.Token()
		if err == io.EOF {
			return roots, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &judged{name: token.Name, from: from}
			for _, a := range token.Attr {
				if a.Name.Space != "xmlns" && a.Name != (xml.Name{Local: "xmlns"}) {
					e.attrs = append(e.attrs, a)
				}
			}
			if len(open) > 0 {
				open[len(open)-1].children = append(open[len(open)-1].children, e)
			} else {
				roots = append(roots, e)
			}
			open = append(open, e)
		case xml.EndElement:
			open[len(open)-1].to = int(dec.InputOffset())
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(token)
			}
		}
	}
}

// isNamed reports whether the name is the judge's: with a colon if and only if it
// is in a namespace.
func isNamed(name string, want xml.Name) bool {
	_, local, inNamespace := strings.Cut(name, ":")
	if !inNamespace {
		local = name
	}
	return local == want.Local && inNamespace == (want.Space != "")
}

// compare returns where our tree is not the judge's.
func compare(n xmltree.Node, e *judged) error {
	from, to := n.Range()
	if !isNamed(n.Name(), e.name) || from != e.from || to != e.to {
		return fmt.Errorf("element %s at %d to %d, the judge has %v at %d to %d", n.Name(), from, to, e.name, e.from, e.to)
	}
	for _, a := range e.attrs {
		if got := n.AttrIn(a.Name.Space, a.Name.Local); got != a.Value {
			return fmt.Errorf("attribute %v of %s is %q, the judge has %q", a.Name, n.Name(), got, a.Value)
		}
	}
	if len(n.Attrs()) != len(e.attrs) {
		return fmt.Errorf("%s has %d attributes, the judge has %d", n.Name(), len(n.Attrs()), len(e.attrs))
	}
	if len(e.children) == 0 && n.Text() != e.text || len(e.children) > 0 && (n.Text() != "" || strings.Trim(e.text, " \t\n") != "") {
		return fmt.Errorf("text of %s is %q, the judge has %q", n.Name(), n.Text(), e.text)
	}
	i := 0
	for child := range n.Children() {
		if i == len(e.children) {
			return fmt.Errorf("%s has more children than the judge's %d", n.Name(), i)
		}
		if err := compare(child, e.children[i]); err != nil {
			return err
		}
		i++
	}
	if i != len(e.children) {
		return fmt.Errorf("%s has %d children, the judge has %d", n.Name(), i, len(e.children))
	}
	return nil
}

// reasons are the names, as in the package's comment, of why a text may be
// refused that encoding/xml accepts: what the error says, and what must be in
// the text for it to say so.
var reasons = []struct{ name, says, needs string }{
	{"directives", `^at byte \d+: a (document type declaration|CDATA section) is`, `<!`},
	{"declaration", `^at byte \d+: (the XML declaration|it declares)`, `^<\?xml`},
	{"comments", `a comment or processing instruction does not|in a comment:`, `<!--`},
	{"instructions", `a comment or processing instruction does not|in a processing instruction:|a processing instruction (can't be named|has no white space)`, `<\?`},
	{"mixed", `text stands (beside elements|outside of the document)`, `[^<\s]`},
	{"documents", `there is (no XML element in it|a second document)`, ``},
	{"names", `a name has a colon in the wrong place`, `:`},
	{"namespaces", `the prefix .* (is not|can't be) declared`, `:`},
	{"attributes", `an attribute occurs twice|value has a <, a line end or a tab|expected > at the end of the tag|\]\]> stands in the text`, `=`},
	{"references", `the entity .* is no character`, `&#`},
	{"bounds", `more than \d+|nested`, ``},
}

// reasonFor names the reason of a refusal, or returns "".
func reasonFor(text string, err error) string {
	for _, r := range reasons {
		if regexp.MustCompile(r.says).MatchString(err.Error()) && regexp.MustCompile(r.needs).MatchString(text) {
			return r.name
		}
	}
	return ""
}

// check holds ParseText against encoding/xml. It returns "accepted", "refused"
// by both, or the name of the reason why only we refuse.
func check(text string) (string, error) {
	d := new(xmltree.Document)
	err := d.ParseText(text)
	roots, judgeErr := judge(text)
	switch {
	case err != nil && judgeErr != nil:
		return "refused", nil
	case err != nil:
		reason := reasonFor(text, err)
		if reason == "" {
			return "", fmt.Errorf("refused for no reason of the list: %w", err)
		}
		return reason, nil
	case judgeErr != nil:
		return "", fmt.Errorf("accepted, but encoding/xml says: %w", judgeErr)
	case len(roots) != 1:
		return "", fmt.Errorf("accepted, but there are %d elements at the top", len(roots))
	}
	if err := compare(d.Root(), roots[0]); err != nil {
		return "", err
	}
	return "accepted", nil
}

var base64Run = regexp.MustCompile(`[A-Za-z0-9+/=]{48,}`)

// seeds are documents of all three kinds, with their base64 cut short, so that
// a change hits something else.
func seeds(t testing.TB) []string {
	var all []string
	add := func(text string) {
		all = append(all, base64Run.ReplaceAllStringFunc(text, func(run string) string { return run[:24] }))
	}
	for _, v := range vectors.AllXrML(t) {
		add(v.Text)
	}
	for _, v := range vectors.AllTPD(t) {
		d, err := xmltree.Parse(v.XML)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if v.Name != "contoso-60-templates" {
			add(d.Text)
		}
		if v.Name != "contoso-mode2" {
			continue
		}
		e, err := tpd.Parse(v.XML)
		if err != nil {
			t.Fatal(err)
		}
		domain, err := e.Decrypt(v.Password)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range append(domain.Chain, domain.Templates...) {
			add(text)
			add("<string>" + strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text) + "</string>")
		}
	}
	all = append(all,
		"<a xmlns:p='urn:p' p:t='1'>\r\n <b x='2>&#233;&quot;'>é𝄞 &lt;&amp;&gt;&#x1D11E;\r]]&gt;]]\r\n]></b>\r\n <c />\t<d></d><e>\r</e></a>\n",
		`<?xml version="1.0" encoding="utf-16" standalone='yes' ?><a/>`,
		"<?xml version='1.0'?><!-- <a> --><?p?><a>\n<!----><b x='1'>2</b><?é <&>?><c/><!-- - -> --></a><?x y ?>\n<!-- é -->",
		"<p:a xmlns:p='urn:p' p:t='1' t='2'><b xmlns='urn:b' x='3'><c y='4'>5</c><p:c/><d xmlns=''>6</d><d >7</d ></b><p:e xmlns:p='urn:q' p:t='8'></p:e ><p:f/><xml:g/></p:a>",
		"<é à='1' xmlns:ñ='urn:n' ñ:ü='2'><Ключ>3</Ключ><ñ:鍵 鍵='4'/><a·b/><e\u0301/></é>",
	)
	if len(all) < 40 {
		t.Fatalf("%d seeds, expected 40 or more", len(all))
	}
	return all
}

// pieces are put into a text to make it odd.
var pieces = []string{
	"<", ">", "/", "/>", "</", "&", ";", "&lt;", "&gt;", "&amp;", "&#", "&#x", "&#0;", "&#x41;", "&#xD800;", "&#x10FFFF;", "&#1114112;", "&#9999999999999999999999;", "&#xA;", "&x;", "&lt",
	"]]>", "]]", "]", "<!", "<!--", "-->", "<!-- x -->", "<![CDATA[", "<![CDATA[x]]>", "<!DOCTYPE a>", "<?", "<?x y?>", "?>", `<?xml version="1.0"?>`, `<?xml version="1.1"?>`, "<?xml",
	"\r", "\r\n", "\n", "\t", " ", "\x00", "\x01", "\x7f", "\xff", "\xc3", "é", "€", "𝄞", "\uFFFE", "\uFEFF", "\xed\xa0\x80", "\u00a0",
	":", "=", "'", `"`, "xmlns", ` xmlns=""`, ` xmlns="urn:x"`, ` xmlns:p="urn:p"`, ` xmlns:q="urn:p"`, ` p:a="1"`, ` q:a="2"`, ` a="1"`, ` a='2'`, ` xml:a="3"`, ` xmlns:p=""`, `a="1"`,
	"<!---->", "<!-- -- -->", "<!--\x01-->", "<!--\xff-->", "--", "<?é?>", "<?p:x ?>", "<?x\x01?>", "<?x\xff?>", "<?XML ?>", "<é>", "</é>", "é:", "ñ", "·", "\u0301", "鍵", "×", `<b xmlns="urn:b">`, "</b>", "</:b>", "</p:a>", "xml:",
	"<a>", "</a>", "<a/>", "<p:a/>", "<a:b:c/>", "<1/>", "<-/>", "<é/>", "<a", "a", "1", "-", ".", "_",
}

// mutate changes a text in one or two places.
func mutate(r *rand.Rand, text string) string {
	for range 1 + r.IntN(2) {
		from := r.IntN(len(text) + 1)
		if tags := strings.Count(text[:from], "<"); r.IntN(2) == 0 && tags > 0 { // beside a tag, where it matters more
			from = strings.LastIndexByte(text[:from], '<') + r.IntN(2)
		}
		to := min(len(text), from+r.IntN(12))
		switch r.IntN(5) {
		case 0:
			text = text[:from] + text[to:]
		case 1:
			text = text[:to] + text[from:]
		case 2:
			text = text[:from] + string(rune(r.IntN(256))) + text[min(len(text), from+1):]
		default:
			text = text[:from] + pieces[r.IntN(len(pieces))] + text[from:]
		}
	}
	return text
}

// TestAgainstEncodingXML: what is accepted, encoding/xml accepts as the same
// tree; what only we refuse has a reason of the list, and each but the bounds
// is met.
func TestAgainstEncodingXML(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	met := map[string]int{}
	for _, seed := range seeds(t) {
		if got, err := check(seed); err != nil || got != "accepted" {
			t.Fatalf("%.200q: %s, %v", seed, got, err)
		}
		for range 600 {
			text := mutate(r, seed)
			got, err := check(text)
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			met[got]++
		}
	}
	t.Logf("%v", met)
	if met["accepted"] < 2000 || met["refused"] < 2000 {
		t.Error("too few mutations are accepted, or refused, by both")
	}
	for _, reason := range reasons {
		if met[reason.name] == 0 && reason.name != "bounds" {
			t.Errorf("no mutation is refused by the reason %q", reason.name)
		}
	}
}

func FuzzAgainstEncodingXML(f *testing.F) {
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := check(text); err != nil {
			t.Errorf("%v", err)
		}
		if d, err := xmltree.Parse([]byte(text)); err == nil {
			if err := new(xmltree.Document).ParseText(d.Text); err != nil {
				t.Errorf("accepted as bytes, as text: %v", errors.Unwrap(err))
			}
		}
	})
}
