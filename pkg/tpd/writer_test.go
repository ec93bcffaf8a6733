// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"crypto"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	. "keyferry/pkg/tpd"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/utf16le"
	"keyferry/test/vectors"
)

// spec is everything that may differ from one TPD export to the next. Its zero
// value is a plain one of mode 2, without templates.
type spec struct {
	outer, inner  style
	keyFirst      bool  // m_strKeyData before the document
	sections      []int // order of the three elements of the document
	fields        []int // order of the seven of the key's description
	embedded      null  // strEncryptedPrivateKey
	keyless       null  // m_strKeyData: how it is missing; "" if it is not
	noTemplates   null  // m_astrRightsTemplates without templates
	documentKDF   Derivation
	keyKDF        Derivation
	password      string
	strongName    bool // the 12 bytes before the key's blob
	signatureKey  bool // key number 2
	mode1         bool
	guid          [16]byte
	strID, slcID  guidForm
	preProduction bool
	selfEnrolled  bool
	digestLast    bool // order of the children of SIGNATURE
	templates     []templateSpec
}

// style is how XmlSerializer output is written down.
type style struct {
	encoding     string // "utf-8", "bom", "utf-16le", "utf-16be"
	noMark       bool   // UTF-16 without byte order mark
	declaration  string
	lineEnd      string // "" is all on one line
	xsdFirst     bool
	singleQuotes bool
	extra        string // an unknown element, comment or instruction
}

// null is how XmlSerializer output says that a string is not there.
type null string

const (
	absent null = "absent"
	empty  null = "empty"
	isNil  null = "nil"
)

type guidForm struct{ upper, bare bool }

type templateSpec struct {
	guid       [16]byte
	names      [][3]string // LCID, name, description
	rights     []string
	anyone     bool
	principals int // for each right
}

func (f guidForm) write(g [16]byte) string {
	h := hex.EncodeToString(g[:])
	s := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	if f.upper {
		s = strings.ToUpper(s)
	}
	if !f.bare {
		s = "{" + s + "}"
	}
	return s
}

// ring are the keys that the writer's certificates are made with.
type ring struct {
	small, large *rsa.PrivateKey    // of the SLC, modes 1 and 2
	authorities  [4]*rsa.PrivateKey // Enrollment Service, Enrollment CA, CA, root
}

var keyRing = sync.OnceValue(func() *ring {
	t := new(keyLoader)
	key := func(name string) *rsa.PrivateKey { return vectors.OneTPD(t, name).Key }
	return &ring{key("contoso-mode1"), key("contoso-mode2"), [4]*rsa.PrivateKey{
		key("contoso-anyone"), key("contoso-colon-name"), key("contoso-utf16"), key("contoso-utf8-bom"),
	}}
})

// keyLoader lets vectors be loaded once for all tests.
type keyLoader struct{ testing.TB }

func (*keyLoader) Helper()                        {}
func (*keyLoader) Fatal(args ...any)              { panic(fmt.Sprint(args...)) }
func (*keyLoader) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

func (s *spec) key() *rsa.PrivateKey {
	if s.mode1 {
		return keyRing().small
	}
	return keyRing().large
}

// write writes the export.
func (s *spec) write() []byte {
	kdf := map[Derivation]func([]byte) []byte{Current: CurrentKey, "": CurrentKey, Legacy: LegacyKey}
	field := func(name string, plain []byte, d Derivation) string {
		return "<" + name + ">" + base64.StdEncoding.EncodeToString(EncryptField(plain, kdf[d]([]byte(s.password)))) + "</" + name + ">"
	}
	fields := []string{field(DocumentField, s.document(), s.documentKDF)}
	if s.keyless == "" {
		fields = append(fields, field(KeyField, s.blob(), s.keyKDF))
	} else {
		fields = append(fields, s.keyless.write(KeyField))
	}
	if s.keyFirst {
		slices.Reverse(fields)
	}
	return s.outer.write("EncryptedTrustedDocDomain", fields)
}

func (n null) write(name string) string {
	switch n {
	case empty:
		return "<" + name + " />"
	case isNil:
		return "<" + name + ` xsi:nil="true" />`
	}
	return ""
}

// write writes the frame of both documents.
func (s style) write(typeName string, elements []string) []byte {
	namespaces := []string{`xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"`, `xmlns:xsd="http://www.w3.org/2001/XMLSchema"`}
	if s.xsdFirst {
		slices.Reverse(namespaces)
	}
	elements = append([]string{s.extra}, elements...)
	elements = slices.DeleteFunc(elements, func(e string) bool { return e == "" })
	indent := func(n int) string {
		if s.lineEnd == "" {
			return ""
		}
		return s.lineEnd + strings.Repeat(" ", n)
	}
	tag := func(t string) string {
		if s.singleQuotes {
			return strings.ReplaceAll(t, `"`, "'")
		}
		return t
	}
	text := tag(s.declaration) + indent(0) + tag("<ArrayOfAnyType "+strings.Join(namespaces, " ")+">") + indent(2) + tag(`<anyType xsi:type="`+typeName+`">`) +
		indent(4) + strings.Join(elements, indent(4)) + indent(2) + "</anyType>" + indent(0) + "</ArrayOfAnyType>"
	return s.encode(text)
}

func (s style) encode(text string) []byte {
	var order binary.AppendByteOrder = binary.LittleEndian
	switch s.encoding {
	case "bom":
		return []byte("\uFEFF" + text)
	case "utf-16le":
	case "utf-16be":
		order = binary.BigEndian
	default:
		return []byte(text)
	}
	var b []byte
	if !s.noMark {
		text = "\uFEFF" + text
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return b
}

// document writes what m_strTrustedDocDomainInfo decrypts to.
func (s *spec) document() []byte {
	number, csp := 1, 24
	if s.signatureKey {
		number = 2
	}
	if s.mode1 {
		csp = 1
	}
	info := permute([]string{
		"<strID>" + s.strID.write(s.guid) + "</strID>", "<strIDType>MS-GUID</strIDType>", fmt.Sprintf("<nCSPType>%d</nCSPType>", csp),
		"<strCSPName>Provider &amp; Co</strCSPName>", "<strKeyContainerName>DRMS-1</strKeyContainerName>",
		fmt.Sprintf("<nKeyNumber>%d</nKeyNumber>", number), s.embedded.write("strEncryptedPrivateKey"),
	}, s.fields)
	list := func(name string, texts []string) string {
		if len(texts) == 0 {
			return s.noTemplates.write(name)
		}
		return "<" + name + ">" + stringElements(texts) + "</" + name + ">"
	}
	return s.inner.write("TrustedDocDomain", permute([]string{
		"<m_ttdki>" + strings.Join(info, "") + "</m_ttdki>", list("m_strLicensorCertChain", s.chain()), list("m_astrRightsTemplates", s.templateTexts()),
	}, s.sections))
}

// permute puts the items into the order; nil is as they are.
func permute(items []string, order []int) []string {
	if order == nil {
		return items
	}
	permuted := make([]string, len(items))
	for i, from := range order {
		permuted[i] = items[from]
	}
	return permuted
}

// blob writes what m_strKeyData decrypts to.
func (s *spec) blob() []byte {
	var b []byte
	if s.strongName {
		b = []byte{0, 0x24, 0, 0, 4, 0x80, 0, 0, 0x94, 4, 0, 0}
	}
	algorithm, key := capi.KeyExchange, s.key()
	if s.signatureKey {
		algorithm = capi.Signature
	}
	b = append(b, 7, 2, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(algorithm))
	b = append(b, "RSA2"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(key.N.BitLen()))
	b = binary.LittleEndian.AppendUint32(b, uint32(key.E))
	k := key.Size()
	for _, x := range []struct {
		n      *big.Int
		length int
	}{{key.N, k}, {key.Primes[0], k / 2}, {key.Primes[1], k / 2}, {key.Precomputed.Dp, k / 2}, {key.Precomputed.Dq, k / 2}, {key.Precomputed.Qinv, k / 2}, {key.D, k}} {
		field := x.n.FillBytes(make([]byte, x.length))
		slices.Reverse(field)
		b = append(b, field...)
	}
	return b
}

// party is an issuer or principal.
type party struct {
	kind, idType, id, name, url string
	key                         *rsa.PublicKey
}

func (p party) write() string {
	object := `<OBJECT type="` + p.kind + `"><ID type="` + p.idType + `">` + p.id + "</ID>"
	if p.name != "" {
		object += "<NAME>" + p.name + "</NAME>"
	}
	if p.url != "" {
		object += `<ADDRESS type="URL">` + p.url + "</ADDRESS>"
	}
	return object + "</OBJECT><PUBLICKEY><ALGORITHM>RSA</ALGORITHM>" +
		`<PARAMETER name="public-exponent"><VALUE encoding="integer32">65537</VALUE></PARAMETER>` +
		`<PARAMETER name="modulus"><VALUE encoding="base64" size="` + modulusText(p.key.N) + "</VALUE></PARAMETER></PUBLICKEY>"
}

const (
	serverName = "contoso-rms"
	serverURL  = "https://rms.contoso.com/_wmcs"
)

// parties are the SLC's server and those above it, the root last.
func (s *spec) parties() [5]party {
	kind := "Production"
	if s.preProduction {
		kind = "ISV"
	}
	service := "Microsoft DRM Server Enrollment Service"
	if s.selfEnrolled {
		service = "Microsoft DRM Server Self Enrollment Service"
	}
	authority := func(name string, key *rsa.PrivateKey) party {
		return party{"DRM-Certificate-Authority", "ascii-tag", name, name, "", &key.PublicKey}
	}
	keys := keyRing().authorities
	return [5]party{
		{"MS-DRM-Server", "MS-GUID", s.slcID.write(s.guid), serverName, serverURL, &s.key().PublicKey},
		{"MS-DRM-Server", "MS-GUID", "{7b9918ea-5d2c-4ea0-b237-de90086522d2}", service, "", &keys[0].PublicKey},
		authority("Microsoft DRM "+kind+" Server Enrollment CA", keys[1]),
		authority("Microsoft DRM "+kind+" CA", keys[2]),
		authority("Microsoft DRM "+kind+" Root", keys[3]),
	}
}

func (s *spec) chain() []string {
	parties := s.parties()
	types := []string{"Server-Licensor-Certificate", "Server-Licensor-Certificate", "DRM-CA-Certificate", "DRM-CA-Certificate"}
	chain := make([]string, len(types))
	for i, kind := range types {
		object := `<OBJECT type="` + kind + `"><ID type="MS-GUID">{00000000-0000-0000-0000-00000000000` + fmt.Sprint(i) + `}</ID></OBJECT>`
		const period = "<FROM>2014-05-06T07:08</FROM><UNTIL>2044-05-06T07:08</UNTIL>"
		chain[i] = s.sign(`<BODY type="LICENSE" version="3.0"><ISSUEDTIME>2014-05-06T07:08</ISSUEDTIME><VALIDITYTIME>`+period+`</VALIDITYTIME><DESCRIPTOR>`+object+
			`</DESCRIPTOR><ISSUER>`+parties[i+1].write()+`</ISSUER><ISSUEDPRINCIPALS><PRINCIPAL internal-id="1">`+parties[i].write()+
			`</PRINCIPAL></ISSUEDPRINCIPALS><WORK>`+object+`<RIGHTSGROUP name="Main-Rights"><RIGHTSLIST><RIGHT name="ISSUE"><CONDITIONLIST><TIME><RANGETIME>`+period+
			`</RANGETIME></TIME></CONDITIONLIST></RIGHT></RIGHTSLIST></RIGHTSGROUP></WORK></BODY>`, keyRing().authorities[i])
	}
	return chain
}

func (s *spec) templateTexts() []string {
	texts := make([]string, len(s.templates))
	issuer := s.parties()[0]
	for i, t := range s.templates {
		texts[i] = s.sign(t.body(issuer), s.key())
	}
	return texts
}

func (t templateSpec) body(issuer party) string {
	var b strings.Builder
	b.WriteString(`<BODY type="Microsoft Official Rights Template"><ISSUEDTIME>2015-03-02T10:00</ISSUEDTIME><DESCRIPTOR><OBJECT><ID type="MS-GUID">` +
		guidForm{}.write(t.guid) + `</ID><NAME>`)
	for _, n := range t.names {
		fmt.Fprintf(&b, "LCID %s:NAME %s:DESCRIPTION %s;", n[0], n[1], n[2])
	}
	b.WriteString(`</NAME></OBJECT></DESCRIPTOR><ISSUER>` + issuer.write() + `</ISSUER><DISTRIBUTIONPOINT><OBJECT type="Publishing-URL">` +
		`<ID type="MS-GUID">{9A23D98E-4449-4ba5-812A-F30808F3CB16}</ID><NAME>Publishing Point</NAME><ADDRESS type="URL">` + serverURL +
		`/licensing</ADDRESS></OBJECT></DISTRIBUTIONPOINT><WORK><OBJECT><ID type="" /></OBJECT><RIGHTSGROUP name="Main-Rights"><RIGHTSLIST>`)
	for _, right := range t.rights {
		b.WriteString(`<RIGHT name="` + right + `"><CONDITIONLIST><ACCESS>`)
		for p := range t.principals {
			fmt.Fprintf(&b, `<PRINCIPAL><OBJECT><ID type="Unspecified" /><NAME>staff%d@contoso.com</NAME></OBJECT></PRINCIPAL>`, p)
		}
		if t.anyone {
			b.WriteString(`<PRINCIPAL><OBJECT><ID type="Internal">ANYONE</ID></OBJECT></PRINCIPAL>`)
		}
		b.WriteString(`</ACCESS></CONDITIONLIST></RIGHT>`)
	}
	b.WriteString(`</RIGHTSLIST></RIGHTSGROUP></WORK></BODY>`)
	return b.String()
}

// signatures are those that were made already: body → signature.
var signatures sync.Map

// sign makes a certificate of a body.
func (s *spec) sign(body string, key *rsa.PrivateKey) string {
	hash, name := crypto.SHA256, "SHA256"
	if s.mode1 {
		hash, name = crypto.SHA1, "SHA1"
	}
	h := hash.New()
	h.Write(utf16le.Encode([]byte(body)))
	sum := h.Sum(nil)
	signature, ok := signatures.Load(string(sum))
	if !ok {
		made, err := rsa.SignPKCS1v15(nil, key, hash, sum)
		if err != nil {
			panic(err)
		}
		signature = made
		signatures.Store(string(sum), made) // a body names its issuer: no other key signs it
	}
	element := signatureElement(name, sum, signature.([]byte))
	if s.digestLast {
		const from, to = len("<SIGNATURE>"), len("</DIGEST>")
		end := strings.Index(element, "</DIGEST>") + to
		element = element[:from] + strings.TrimSuffix(element[end:], "</SIGNATURE>") + element[from:end] + "</SIGNATURE>"
	}
	return `<?xml version="1.0"?><XrML version="1.2" xmlns="">` + body + element + "</XrML>"
}

var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#xD;")

// stringElements writes a list of strings as XmlSerializer does.
func stringElements(texts []string) string {
	var b strings.Builder
	for _, text := range texts {
		b.WriteString("<string>")
		b.WriteString(escape.Replace(text))
		b.WriteString("</string>")
	}
	return b.String()
}
