// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/test/judges"
	"keyferry/test/vectors"
)

// The tests in this file ask .NET itself: what is taken here, its XmlSerializer,
// RSA and AES read too, with the same values.

// dotnetView is what .NET sees in a file: by .NET 10, by .NET Framework's
// Deserialize ("fx"), or by the reader of Exchange's importer ("exch").
type dotnetView struct {
	View, Stop, GUID, Modulus, CSPName, Container, Server, URL, Fingerprint string
	Reads, Sound, HasKey                                                    bool
	DerDoc, DerKey                                                          string
	Bits, CSP, KeyNumber, Chain, Templates                                  int
	Faults, TemplateGUIDs                                                   []string
}

// values are what .NET and a report must have in common.
func (v dotnetView) values() string {
	return fmt.Sprint(v.GUID, v.Modulus, v.Bits, v.Fingerprint, v.HasKey, v.DerDoc, v.DerKey, v.CSP, v.KeyNumber, v.Chain, v.Templates, v.TemplateGUIDs,
		unix(v.CSPName), unix(v.Container), unix(v.Server), unix(v.URL))
}

// unix writes line ends as a reader that normalises gives them.
func unix(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

func valuesOf(d *Domain, r *inspect.Report) string {
	v := dotnetView{
		GUID: r.KeyGUID, Modulus: r.ModulusBase64, Bits: r.Bits, Fingerprint: r.Fingerprint, HasKey: r.HasKey,
		DerDoc: string(r.Derivation.Document), DerKey: string(r.Derivation.Key), CSP: r.CSPType, KeyNumber: r.KeyNumber, Chain: len(d.Chain),
		Templates: len(d.Templates) + d.Nulls, CSPName: r.CSPName, Container: r.KeyContainer, Server: r.SLC.ServerName, URL: r.SLC.ServerURL,
	}
	for _, t := range r.Templates {
		v.TemplateGUIDs = append(v.TemplateGUIDs, t.GUID)
	}
	return v.values()
}

// dotnet runs the judge on files that it is handed the content of.
func dotnet(t *testing.T, verb string, contents ...[]byte) []byte {
	t.Helper()
	args, dir := []string{verb}, t.TempDir()
	for i, content := range contents {
		args = append(args, filepath.Join(dir, fmt.Sprint(i)))
		if err := os.WriteFile(args[i+1], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(judges.Find(t, "tpd-dotnet"), args...).Output()
	if err != nil {
		t.Fatalf("tpd-dotnet %s: %v: %s", verb, err, out)
	}
	return out
}

// look holds a file that is taken here against .NET. It reports whether it is
// taken.
func look(t *testing.T, file, password []byte) bool {
	t.Helper()
	e, err := Parse(file)
	if err != nil {
		return false
	}
	d, err := e.Decrypt(password)
	if err != nil {
		return false
	}
	r := inspect.NewReport(d.Check(terms))
	if r.Verdict == inspect.VerdictRefused {
		return false
	}
	var stops []string
	want, agrees := valuesOf(d, r), false
	for line := range strings.Lines(string(dotnet(t, "look", file, password))) {
		var v dotnetView
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		v.Faults = slices.DeleteFunc(v.Faults, func(fault string) bool {
			return d.Nulls > 0 && strings.HasSuffix(fault, "is null") // which KF-TPD-NULL warns of
		})
		switch {
		case strings.HasPrefix(v.Stop, "key: PlatformNotSupportedException"):
			t.Skip("EXCEPTION: a signature key behind a strong-name header, which .NET imports on Windows only; of such a key the blob does not travel")
		case strings.Contains(v.Stop, "is not a supported encoding name"):
			t.Skip("EXCEPTION: ASCII under the name of a code page, which .NET Framework has and .NET 10 only by a package")
		case !v.Reads:
			stops = append(stops, v.View+" does not read it: "+v.Stop)
		case v.values() != want:
			t.Errorf("%s sees %s\n%s, expected\n%s", v.View, v.Stop, v.values(), want)
		case len(v.Faults) == 0 && v.Stop == "":
			agrees = true // a signature holds over the line ends as they stand, or over normalised ones
		default:
			stops = append(stops, fmt.Sprintf("%s finds %v, %s", v.View, v.Faults, v.Stop))
		}
	}
	if !agrees || slices.ContainsFunc(stops, func(s string) bool { return strings.Contains(s, "does not read") }) {
		t.Errorf("taken here, but %s", strings.Join(stops, "; "))
	}
	return true
}

// inTurn runs the subtests as many at a time as there are processors.
func inTurn(t *testing.T, names []string, test func(t *testing.T, name string)) {
	free := make(chan bool, runtime.NumCPU())
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			free <- true
			defer func() { <-free }()
			test(t, name)
		})
	}
}

func TestDotNetReadsVectors(t *testing.T) {
	judges.Find(t, "tpd-dotnet")
	files := map[string]vectors.TPD{}
	for _, v := range vectors.AllTPD(t) {
		files[v.Name] = v
	}
	for name, file := range vectors.AllOdd(t) {
		files[name] = vectors.TPD{XML: file, Password: oddPassword(t, name)}
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	inTurn(t, names, func(t *testing.T, name string) {
		v := files[name]
		if !look(t, v.XML, v.Password) {
			return
		}
		_, d := open(t, v)
		keyless, err := d.Keyless(OmitElement)
		if err != nil {
			t.Fatal(err)
		}
		fresh, oneTime, err := d.KeylessFresh(EmptyElement)
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range [][2][]byte{{keyless, v.Password}, {fresh, oneTime}} {
			out := string(dotnet(t, "keyless", v.XML, v.Password, of[0], of[1]))
			if strings.Count(out, "plain byte-equal, info True chain True templates True") != 3 || strings.Count(out, "key null")+strings.Count(out, "key empty") != 3 {
				t.Errorf("of the keyless TPD .NET says %s", out)
			}
		}
	})
}

// mutations change a text at a place that is drawn.
var mutations = []func(r *rand.Rand, text string) string{
	func(r *rand.Rand, text string) string { // something between tags
		return insert(r, text, regexp.MustCompile(`>`), "<!-- x -->", "<?x y?>", "<![CDATA[]]>", "<![CDATA[ ]]>", " ", "\r\n", "\r", "\t", "&#x20;", "&#13;", "&#x85;", "\u00a0", "\u2003", "\ufeff",
			"<x/>", "<x>1</x>", `<p:x xmlns:p="u"/>`, "x", "&amp;", "<string/>", `<string xsi:nil="true"/>`, "<strID/>", "<m_ttdki/>", `<m_strKeyData xmlns="u"/>`)
	},
	func(r *rand.Rand, text string) string { // an attribute
		return insert(r, text, regexp.MustCompile(`<[a-zA-Z_]+`), ` a="1"`, ` xsi:nil="true"`, ` xsi:nil="false"`, ` xsi:nil="1"`, ` xsi:nil=" false "`, ` xsi:nil=""`, ` xml:space="preserve"`, ` xml:space="default"`,
			` xml:lang="de"`, ` xml:base="x"`, ` xmlns:q="urn:q"`, ` xmlns=""`, ` xsi:type="xsd:string"`, ` xsi:type="xsd:int"`, ` xsi:type="KeyInformation"`, ` xsi:type="ArrayOfString"`, ` xsi:type="x"`, ` xsi:type=""`, ` id="1"`, ` href="#1"`, ` a="&#10;"`,
			` xsi:schemaLocation="a b"`, ` xsi:noNamespaceSchemaLocation="a"`)
	},
	func(r *rand.Rand, text string) string { // another number
		return replaceOne(r, text, regexp.MustCompile(`<(nCSPType|nKeyNumber)>(\d+)<`), "<$1>+$2<", "<$1>0$2<", "<$1> $2\t<", "<$1>\r\n$2<", "<$1>$2&#x20;<", "<$1>$2&#13;<", "<$1><!-- x -->$2<", "<$1><![CDATA[$2]]><", "<$1>$2\u00a0<",
			"<$1>$2.0<", "<$1>-$2<", "<$1>99999999999<", "<$1>0x$2<", "<$1>1,000<", "<$1>$2\u2003<", "<$1>$2\v<")
	},
	func(r *rand.Rand, text string) string { // another spelling of a GUID
		return replaceOne(r, text, regexp.MustCompile(`<strID>\{(.*?)\}<`), "<strID>$1<", "<strID>($1)<", "<strID> {$1}<", "<strID>{$1}\n<", "<strID>{${1}<", "<strID>{<!-- x -->$1}<", "<strID>&#123;$1&#125;<")
	},
	func(r *rand.Rand, text string) string { // an element twice, or not at all
		return replaceOne(r, text, regexp.MustCompile(`<(str[A-Za-z]+|n[A-Za-z]+)>[^<]*</[A-Za-z]+>`), "$0$0", "", "<$1 />", "<$1></$1>", `<$1 xsi:nil="true" />`, "<a>$0</a>")
	},
	func(r *rand.Rand, text string) string { // how the document begins
		return regexp.MustCompile(`^<\?xml[^>]*>`).ReplaceAllString(text, pick(r, "", `<?xml version="1.0" encoding="utf-8"?>`, `<?xml version='1.0' encoding='UTF-8' standalone='yes'?>`, `<?xml version="1.0" encoding="us-ascii"?>`,
			`<?xml version="1.0" encoding="windows-1252"?>`, `<?xml version="1.0" encoding="iso-8859-15"?>`, `<?xml version="1.0" encoding="utf-16"?>`, `<?xml version="1.1"?>`, "\ufeff"+`<?xml version="1.0"?>`, `<?xml version="1.0" ?><!-- x -->`, "\n"))
	},
	func(r *rand.Rand, text string) string { // other prefixes
		text = strings.ReplaceAll(text, "xsi:", "i:")
		return strings.ReplaceAll(text, "xmlns:xsi=", "xmlns:i=")
	},
	func(r *rand.Rand, text string) string { // one character
		at := r.IntN(len(text))
		return text[:at] + pick(r, "x", " ", "<", "&", "\"", "\u00e9", "") + text[at+1:]
	},
}

// insert puts one of the pieces behind a match that is drawn.
func insert(r *rand.Rand, text string, place *regexp.Regexp, pieces ...string) string {
	places := place.FindAllStringIndex(text, -1)
	if len(places) == 0 {
		return text
	}
	at := places[r.IntN(len(places))][1]
	return text[:at] + pick(r, pieces...) + text[at:]
}

// replaceOne replaces a match that is drawn.
func replaceOne(r *rand.Rand, text string, what *regexp.Regexp, with ...string) string {
	places := what.FindAllStringSubmatchIndex(text, -1)
	if len(places) == 0 {
		return text
	}
	at := places[r.IntN(len(places))]
	return text[:at[0]] + string(what.ExpandString(nil, pick(r, with...), text, at)) + text[at[1]:]
}

// mutant is an export that was changed in one to three places, and its name.
func mutant(t testing.TB, r *rand.Rand) (file, password []byte) {
	d := takeApart(t, vectors.OneTPD(t, pick(r, "contoso-mode2", "contoso-mode1", "contoso-anyone", "contoso-colon-name", "contoso-signature-key")))
	for range 1 + r.IntN(3) {
		mutate := pick(r, mutations...)
		switch r.IntN(6) {
		case 0:
			d.outer = mutate(r, d.outer)
		case 1: // signed anew, as another server would sign it
			i := r.IntN(len(d.templates))
			body := regexp.MustCompile(`(?s)<BODY.*</BODY>`).FindString(d.templates[i])
			if changed := mutate(r, body); strings.HasPrefix(changed, "<BODY") && strings.HasSuffix(changed, "</BODY>") {
				d.templates[i] = reissue(t, d.templates[i], body, changed, d.slcKey, false)
			}
		case 2: // beside what is signed
			i := r.IntN(len(d.chain))
			d.chain[i] = mutate(r, d.chain[i])
		default:
			d.document = mutate(r, d.document)
		}
	}
	return d.export(), d.password
}

func TestDotNetReadsMutants(t *testing.T) {
	judges.Find(t, "tpd-dotnet")
	const mutants = 300
	var names []string
	for i := range mutants {
		names = append(names, fmt.Sprint(i))
	}
	taken := make(chan string, mutants)
	t.Run("mutants", func(t *testing.T) {
		inTurn(t, names, func(t *testing.T, name string) {
			var seed uint64
			fmt.Sscan(name, &seed)
			file, password := mutant(t, rand.New(rand.NewPCG(seed, 7)))
			if look(t, file, password) {
				taken <- name
			}
			if t.Failed() {
				e, err := Parse(file)
				if err != nil {
					t.Fatal(err)
				}
				document, _ := DecryptField(e.Document(), CurrentKey(password))
				t.Logf("%.600s\n%s", file, document)
			}
		})
	})
	t.Logf("%d of %d mutants are taken", len(taken), mutants)
	if len(taken) < mutants/4 {
		t.Errorf("only %d of %d mutants are taken: the test says little", len(taken), mutants)
	}
}

// Exports that differ in everything that may differ.
func TestDotNetReadsVariedExports(t *testing.T) {
	judges.Find(t, "tpd-dotnet")
	r := rand.New(rand.NewPCG(3, 5))
	specs := map[string]*spec{}
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint(i))
		specs[names[i]] = randomSpec(r)
	}
	inTurn(t, names, func(t *testing.T, name string) {
		if s := specs[name]; !look(t, s.write(), []byte(s.password)) && s.expected().Verdict != inspect.VerdictRefused {
			t.Errorf("refused: %+v", s)
		}
		if t.Failed() {
			t.Logf("%+v", specs[name])
		}
	})
}
