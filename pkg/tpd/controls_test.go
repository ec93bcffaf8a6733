// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"crypto/rand"
	"crypto/rsa"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xrml"
	"keyferry/test/vectors"
)

func refusedBy(t *testing.T, err error, c control.Control) {
	t.Helper()
	if !control.Is(err, c) {
		t.Errorf("got %v, expected %s", err, c.ID)
	}
}

func TestTPDSize(t *testing.T) {
	_, err := Parse(make([]byte, MaxSize+1))
	refusedBy(t, err, control.TPDSize)
	_, err = Parse(make([]byte, 1<<20))
	refusedBy(t, err, control.TPDFormat)
}

func TestTPDFormat(t *testing.T) {
	text := string(vectors.OneTPD(t, "contoso-mode2").XML)
	edit := func(old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the export", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	field := strings.Index(text, "<m_strTrustedDocDomainInfo>") + len("<m_strTrustedDocDomainInfo>")
	for name, c := range map[string]struct{ xml, because string }{
		"empty":                 {"", "no XML element"},
		"truncated in a field":  {text[:5000], "cut short"},
		"truncated at the end":  {text[:len(text)-1], "cut short"},
		"foreign XML":           {`<?xml version="1.0"?><html><body/></html>`, `"html"`},
		"foreign binary":        {"PK\x03\x04\x00", "not what AD RMS writes"},
		"document type":         {edit("<ArrayOfAnyType", "<!DOCTYPE ArrayOfAnyType>\n<ArrayOfAnyType"), "document type"},
		"declares utf-16":       {edit(`version="1.0"`, `version="1.0" encoding="utf-16"`), "declares the encoding"},
		"namespace":             {edit("<ArrayOfAnyType ", `<ArrayOfAnyType xmlns="urn:x" `), `":ArrayOfAnyType"`},
		"type of a namespace":   {edit(`"EncryptedTrustedDocDomain"`, `"x:EncryptedTrustedDocDomain" xmlns:x="urn:x"`), "of the type"},
		"key in a namespace":    {strings.ReplaceAll(text, "m_strTrustedDocDomainInfo", "p:m_strTrustedDocDomainInfo"), "not declared"},
		"CDATA":                 {edit("<m_strKeyData>", "<m_strOther><![CDATA[x]]></m_strOther><m_strKeyData>"), "CDATA"},
		"no type":               {edit(` xsi:type="EncryptedTrustedDocDomain"`, ""), "of the type"},
		"foreign type":          {edit(`"EncryptedTrustedDocDomain"`, `"TrustedDocDomain"`), "of the type"},
		"foreign instance":      {edit("2001/XMLSchema-instance", "1999/XMLSchema-instance"), "of the type"},
		"no document":           {edit("m_strTrustedDocDomainInfo>", "other>"), "without its start tag"},
		"null document":         {documentElement.ReplaceAllString(text, `<m_strTrustedDocDomainInfo xsi:nil="true" />`), "it has no m_str"},
		"empty document":        {documentElement.ReplaceAllString(text, "<m_strTrustedDocDomainInfo />"), "it has no m_str"},
		"null with content":     {edit("<m_strKeyData>", `<m_strKeyData xsi:nil="true">`), "declared null"},
		"two documents":         {edit("<m_strTrustedDocDomainInfo>", "<m_strTrustedDocDomainInfo>AA==</m_strTrustedDocDomainInfo><m_strTrustedDocDomainInfo>"), "occurs twice"},
		"two keys":              {edit("<m_strKeyData>", "<m_strKeyData />\n<m_strKeyData>"), "occurs twice"},
		"text beside elements":  {edit("<m_strKeyData>", "x<m_strKeyData>"), "beside"},
		"no base64":             {text[:field] + "*" + text[field+1:], "not base64"},
		"one character missing": {text[:field] + text[field+1:], "not base64"},
		"three bytes missing":   {text[:field] + text[field+4:], "multiple of 16"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.xml))
			refusedBy(t, err, control.TPDFormat)
			if err != nil && !strings.Contains(err.Error(), c.because) {
				t.Errorf("got %v, expected it to say %q", err, c.because)
			}
		})
	}
}

func TestTPDOneDomain(t *testing.T) {
	_, err := Parse([]byte("<ArrayOfAnyType/>"))
	refusedBy(t, err, control.TPDOneDomain)
	_, err = Parse([]byte(`<ArrayOfAnyType><anyType xmlns="urn:x"/></ArrayOfAnyType>`))
	refusedBy(t, err, control.TPDOneDomain)
	_, err = Parse(vectors.OneTPD(t, "bad-two-domains").XML)
	refusedBy(t, err, control.TPDOneDomain)
	d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	d.document = "<ArrayOfAnyType>" + strings.Repeat(" ", 300) + "</ArrayOfAnyType>"
	_, err = decryptDraft(t, d)
	refusedBy(t, err, control.TPDOneDomain)
}

func decryptDraft(t *testing.T, d *draft) (*Domain, error) {
	t.Helper()
	e, err := Parse(d.export())
	if err != nil {
		t.Fatal(err)
	}
	return e.Decrypt(d.password)
}

func TestTPDPassword(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	e, _ := open(t, v)
	for _, password := range []string{"", "passw0rd!", "Passw0rd! ", "Pässw0rd!", "\xff\xfe"} {
		_, err := e.Decrypt([]byte(password))
		refusedBy(t, err, control.TPDPassword)
	}
	// Enough wrong passwords that some survive the padding check.
	survived := 0
	for i := range 2000 {
		password := []byte{byte('A' + i%26), byte('A' + i/26%26), byte('A' + i/676)}
		if _, padded := DecryptField(e.Document(), CurrentKey(password)); !padded {
			continue
		}
		survived++
		_, err := e.Decrypt(password)
		refusedBy(t, err, control.TPDPassword)
	}
	if survived == 0 {
		t.Error("no wrong password survives the padding check: the test tells nothing")
	}
}

// A file that was damaged after all is not blamed on the password.
func TestTPDDocument(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	for name, damage := range map[string]func(ciphertext []byte) []byte{
		"first block":       func(b []byte) []byte { b[0] ^= 1; return b },
		"in the middle":     func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"last block":        func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"blocks are lost":   func(b []byte) []byte { return b[:len(b)-64] },
		"cut to two fifths": func(b []byte) []byte { return b[:len(b)/40*16] },
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Parse(v.XML)
			if err != nil {
				t.Fatal(err)
			}
			e.SetDocument(damage(e.Document()))
			_, err = e.Decrypt(v.Password)
			refusedBy(t, err, control.TPDDocument)
			_, err = e.Decrypt([]byte("another"))
			refusedBy(t, err, control.TPDPassword)
		})
	}
	for name, edit := range map[string][2]string{
		"foreign root":        {"ArrayOfAnyType", "ArrayOfNoType"},
		"foreign type":        {`"TrustedDocDomain"`, `"EncryptedTrustedDocDomain"`},
		"two keys described":  {"<m_ttdki>", "<m_ttdki /><m_ttdki>"},
		"two GUIDs":           {"<strID>", "<strID>x</strID><strID>"},
		"CSP type in words":   {"<nCSPType>24<", "<nCSPType>AES<"},
		"key number too long": {"<nKeyNumber>1<", "<nKeyNumber>99999999999<"},
		"another type of key": {"<m_ttdki>", `<m_ttdki xsi:type="x">`},
		"a null list":         {"<ArrayOfAnyType ", `<ArrayOfAnyType xsi:nil="true" `},
	} {
		t.Run(name, func(t *testing.T) {
			d := takeApart(t, v)
			d.document = strings.ReplaceAll(d.document, edit[0], edit[1])
			_, err := decryptDraft(t, d)
			refusedBy(t, err, control.TPDDocument)
		})
	}
}

// change is a good export made bad, or odd, in one way.
type change struct {
	vector  string // "" is contoso-mode2
	now     time.Time
	change  func(t *testing.T, d *draft)
	refused []control.Control
	warned  []control.Control
}

func replace(old, new string) func(*testing.T, *draft) {
	return func(t *testing.T, d *draft) {
		if !strings.Contains(d.document, old) {
			t.Fatalf("%q is not in the document", old)
		}
		d.document = strings.Replace(d.document, old, new, 1)
	}
}

// reissueSLC makes the SLC, with its body changed, a chain of its own.
func reissueSLC(old, new string) func(*testing.T, *draft) {
	return func(t *testing.T, d *draft) {
		d.chain = []string{reissue(t, d.chain[0], old, new, otherIssuer(), true)}
	}
}

func reissueTemplate(old, new string) func(*testing.T, *draft) {
	return func(t *testing.T, d *draft) {
		d.templates[1] = reissue(t, d.templates[1], old, new, d.slcKey, false)
	}
}

// emptyKeyInfo writes the text over the description of the key.
func emptyKeyInfo(d *draft, text string) {
	from, to := strings.Index(d.document, "<m_ttdki>"), strings.Index(d.document, "<m_strLicensorCertChain>")
	d.document = d.document[:from] + text + d.document[to:]
}

// damageKey puts text before the base64 of the key.
func damageKey(text string) func(*testing.T, *draft) {
	return func(t *testing.T, d *draft) { d.outer = strings.Replace(d.outer, "{KEY}", text+"{KEY}", 1) }
}

func list(c ...control.Control) []control.Control { return c }

var changes = map[string]change{
	"nothing":                    {change: func(*testing.T, *draft) {}},
	"key information is absent":  {change: func(t *testing.T, d *draft) { emptyKeyInfo(d, "") }, refused: list(control.TPDKeyInfo)},
	"key information is empty":   {change: func(t *testing.T, d *draft) { emptyKeyInfo(d, "<m_ttdki />") }, refused: list(control.TPDKeyInfo)},
	"embedded key":               {change: replace("<nKeyNumber>", "<strEncryptedPrivateKey>AAAA</strEncryptedPrivateKey><nKeyNumber>"), refused: list(control.TPDKeyEmbedded)},
	"embedded key is null":       {change: replace("<nKeyNumber>", `<strEncryptedPrivateKey xsi:nil="true" /><nKeyNumber>`)},
	"GUID without braces, upper": {change: replace("{3142861a-a534-477a-8cf5-fa7b35a5192f}", "3142861A-A534-477A-8CF5-FA7B35A5192F")},
	"GUID of another key":        {change: replace("{3142861a", "{4142861a"), refused: list(control.TPDSLCID)},
	"GUID is none":               {change: replace("{3142861a", "{"), refused: list(control.TPDKeyID)},
	"id of another type":         {change: replace("MS-GUID", "ascii-tag"), refused: list(control.TPDKeyID)},
	"CSP type is absent":         {change: replace("<nCSPType>24</nCSPType>", ""), refused: list(control.TPDCSPMode)},
	"CSP type 24 in mode 1":      {vector: "contoso-mode1", change: replace("<nCSPType>1<", "<nCSPType>24<"), refused: list(control.TPDMode1)},
	"CSP type 2 in mode 1":       {vector: "contoso-mode1", change: replace("<nCSPType>1<", "<nCSPType>2<"), refused: list(control.TPDCSPMode, control.TPDMode1)},
	"key number 2 of exchange":   {change: replace("<nKeyNumber>1<", "<nKeyNumber>2<"), warned: list(control.TPDKeyNumber)},
	"unknown elements":           {change: replace("<strID>", "<strNew>1</strNew><strID>"), warned: list(control.TPDExtra)},
	"null list entries":          {change: replace("{TEMPLATES}", `{TEMPLATES}<string xsi:nil="true" />`), warned: list(control.TPDNull)},
	"foreign list entries":       {change: replace("{TEMPLATES}", "{TEMPLATES}<int>1</int>"), warned: list(control.TPDExtra)},
	"attribute of the key": {change: func(t *testing.T, d *draft) {
		d.outer = strings.Replace(d.outer, "<m_strKeyData>", `<m_strKeyData a="1">`, 1)
	}, warned: list(control.TPDExtra)},
	"attribute of the key's id":  {change: replace("<strID>", `<strID a="1">`), warned: list(control.TPDExtra)},
	"attribute of a list":        {change: replace("<m_astrRightsTemplates>", `<m_astrRightsTemplates a="1">`), warned: list(control.TPDExtra)},
	"attribute of a list entry":  {change: replace("{TEMPLATES}", `{TEMPLATES}<string xsi:nil="true" a="1" />`), warned: list(control.TPDExtra, control.TPDNull)},
	"entry in a namespace":       {change: replace("{TEMPLATES}", `{TEMPLATES}<string xmlns="urn:x">x</string>`), warned: list(control.TPDExtra)},
	"GUID in a namespace":        {change: replace("<strID>", `<strID xmlns="urn:x">x</strID><strID>`), warned: list(control.TPDExtra)},
	"key by legacy derivation":   {change: func(t *testing.T, d *draft) { d.keyKDF = LegacyKey }, warned: list(control.TPDLegacyKDF)},
	"document by legacy":         {change: func(t *testing.T, d *draft) { d.documentKDF = LegacyKey }, warned: list(control.TPDLegacyKDF)},
	"key under another password": {change: func(t *testing.T, d *draft) { d.keyKDF = func([]byte) []byte { return CurrentKey([]byte("x")) } }, refused: list(control.TPDKeyDecrypt)},
	"key is no base64":           {change: damageKey("*"), refused: list(control.TPDKeyDecrypt)},
	"key is no whole base64":     {change: damageKey("A"), refused: list(control.TPDKeyDecrypt)},
	"key is no whole blocks":     {change: damageKey("AAAA"), refused: list(control.TPDKeyDecrypt)},
	"key is nothing but space":   {change: func(t *testing.T, d *draft) { d.outer = strings.Replace(d.outer, "{KEY}", " \r\n", 1) }, refused: list(control.TPDKeyAbsent)},
	"key is truncated":           {change: func(t *testing.T, d *draft) { d.blob = d.blob[:1000] }, refused: list(control.TPDKeyBlob)},
	"key with a public magic":    {change: func(t *testing.T, d *draft) { d.blob[11] = '1' }, refused: list(control.TPDKeyBlob)},
	"key with reserved bits":     {change: func(t *testing.T, d *draft) { d.blob[2] = 1 }, refused: list(control.TPDKeyBlob)},
	"key with both, by legacy": {change: func(t *testing.T, d *draft) {
		d.blob[2], d.blob[11], d.keyKDF = 1, '1', LegacyKey
	}, refused: list(control.TPDKeyBlob), warned: list(control.TPDLegacyKDF)},
	"prefixed, public magic":  {change: func(t *testing.T, d *draft) { d.blob = append(make([]byte, 12), d.blob...); d.blob[12+11] = '1' }, refused: list(control.TPDKeyBlob)},
	"key behind a prefix":     {change: func(t *testing.T, d *draft) { d.blob = append(make([]byte, 12), d.blob...) }},
	"key of mode 1, prefixed": {vector: "contoso-mode1", change: func(t *testing.T, d *draft) { d.blob = append(make([]byte, 12), d.blob...) }, refused: list(control.TPDKeyBlob, control.TPDMode1)},

	"certificate is no XrML": {change: func(t *testing.T, d *draft) { d.chain[2] = "<x/>" }, refused: list(control.TPDCertificate)},
	"no XrML, SLC is changed": {change: func(t *testing.T, d *draft) {
		d.chain[0], d.chain[3] = strings.Replace(d.chain[0], "2044", "2045", 1), "<x/>"
	}, refused: list(control.TPDCertificate, control.TPDSLCDigest)},
	"no XrML, SLC of another": {change: func(t *testing.T, d *draft) {
		d.chain[0], d.chain[1] = reissue(t, d.chain[0], "2044", "2045", otherIssuer(), false), ""
	}, refused: list(control.TPDCertificate, control.TPDSLCSignature)},
	"no SLC, CA is changed": {change: func(t *testing.T, d *draft) {
		d.chain[0], d.chain[2] = "", strings.Replace(d.chain[2], "2044", "2045", 1)
	}, refused: list(control.TPDCertificate, control.TPDChainSignature)},
	"changed leaf is no SLC": {change: func(t *testing.T, d *draft) {
		d.chain = []string{strings.Replace(d.chain[3], "2044", "2045", 1)}
	}, refused: list(control.TPDCertificate, control.TPDChainSignature)},
	"SLC is no XrML":            {change: func(t *testing.T, d *draft) { d.chain[0] = "" }, refused: list(control.TPDCertificate)},
	"chain in the wrong order":  {change: func(t *testing.T, d *draft) { d.chain[0], d.chain[3] = d.chain[3], d.chain[0] }, refused: list(control.TPDCertificate, control.TPDChainLink, control.TPDChainLink)},
	"chain with a gap":          {change: func(t *testing.T, d *draft) { d.chain = slices.Delete(d.chain, 1, 2) }, refused: list(control.TPDChainLink)},
	"chain is cut":              {change: func(t *testing.T, d *draft) { d.chain = d.chain[:2] }, warned: list(control.TPDHierarchy)},
	"CA certificate is changed": {change: func(t *testing.T, d *draft) { d.chain[2] = strings.Replace(d.chain[2], "2044", "2045", 1) }, refused: list(control.TPDChainSignature)},
	"CA signature of another": {change: func(t *testing.T, d *draft) {
		d.chain[3] = reissue(t, d.chain[3], "2044", "2045", otherIssuer(), false)
	}, refused: list(control.TPDChainSignature)},
	"SLC is changed": {change: func(t *testing.T, d *draft) { d.chain[0] = strings.Replace(d.chain[0], "2044", "2045", 1) }, refused: list(control.TPDSLCDigest)},
	"SLC signed by another": {change: func(t *testing.T, d *draft) {
		d.chain[0] = reissue(t, d.chain[0], "2044", "2045", otherIssuer(), false)
	}, refused: list(control.TPDSLCSignature)},
	"issued under another root":  {change: reissueSLC("2044", "2045"), warned: list(control.TPDHierarchy)},
	"SLC without server URL":     {change: reissueSLC("https://rms.contoso.com/_wmcs", "rms"), warned: list(control.TPDHierarchy, control.TPDURL)},
	"SLC without GUID":           {change: reissueSLC("{3142861a", "{"), refused: list(control.TPDCertificate)},
	"SLC of something else":      {change: reissueSLC(`<OBJECT type="Server-Licensor-Certificate">`, `<OBJECT type="DRM-CA-Certificate">`), refused: list(control.TPDCertificate)},
	"SLC issued to a machine":    {change: reissueSLC(`<PRINCIPAL internal-id="1"><OBJECT type="MS-DRM-Server">`, `<PRINCIPAL internal-id="1"><OBJECT type="Machine">`), refused: list(control.TPDCertificate)},
	"SLC not valid yet":          {now: time.Date(2013, 1, 1, 0, 0, 0, 0, time.UTC), change: func(*testing.T, *draft) {}, warned: list(control.TPDValidity, control.TPDValidity, control.TPDValidity, control.TPDValidity, control.TPDValidity)},
	"SLC may not issue any more": {change: reissueSLC("<RANGETIME><FROM>2014-05-06T07:08</FROM><UNTIL>2044", "<RANGETIME><FROM>2014-05-06T07:08</FROM><UNTIL>2024"), warned: list(control.TPDHierarchy, control.TPDValidity)},
	"2048 bits under SHA-1": {change: func(t *testing.T, d *draft) {
		d.chain = []string{reissue(t, strings.ReplaceAll(d.chain[0], "SHA256", "SHA1"), "2044", "2045", otherIssuer(), true)}
	}, refused: list(control.TPDMode), warned: list(control.TPDHierarchy)},

	"template is no XrML":       {change: func(t *testing.T, d *draft) { d.templates[2] = "x" }, refused: list(control.TPDTemplate)},
	"template is a certificate": {change: func(t *testing.T, d *draft) { d.templates[2] = d.chain[0] }, refused: list(control.TPDTemplate)},
	"template with a comment": {change: func(t *testing.T, d *draft) {
		d.templates[2] = strings.Replace(d.templates[2], "<BODY", "<!-- x --><BODY", 1)
	}},
	"template with CDATA":     {change: reissueTemplate("Confidential 2:", "<![CDATA[Confidential 2]]>:")},
	"SLC with an instruction": {change: reissueSLC("<WORK>", "<?x y?><WORK>"), warned: list(control.TPDHierarchy)},
	"template without GUID":   {change: reissueTemplate("{2e4ad387", "{"), refused: list(control.TPDTemplate)},
	"template is changed":     {change: func(t *testing.T, d *draft) { d.templates[0] = strings.Replace(d.templates[0], "staff0", "staff9", 1) }, refused: list(control.TPDTemplateSignature)},
	"template of another server": {change: func(t *testing.T, d *draft) {
		d.templates[1] = reissue(t, d.templates[1], "2", "2", otherIssuer(), true)
	}, refused: list(control.TPDTemplateSignature)},
	"SLC with a control character in its name": {change: reissueSLC("<NAME>contoso-rms</NAME>", "<NAME>contoso\trms</NAME>"), refused: list(control.TPDName), warned: list(control.TPDHierarchy, control.TPDTemplateIssuer, control.TPDTemplateIssuer, control.TPDTemplateIssuer)},
	"SLC with odd letters in its name":         {change: reissueSLC("<NAME>contoso-rms</NAME>", "<NAME>株式\u3000会社\u00a0\u200c</NAME>"), warned: list(control.TPDHierarchy, control.TPDTemplateIssuer, control.TPDTemplateIssuer, control.TPDTemplateIssuer)},
	"template that has expired":                {change: reissueTemplate("<DESCRIPTOR>", "<VALIDITYTIME><UNTIL>2020-01-01T00:00</UNTIL></VALIDITYTIME><DESCRIPTOR>"), warned: list(control.TPDTemplateExpired)},
	"template without a time": {change: func(t *testing.T, d *draft) {
		d.templates[1] = regexp.MustCompile(`<ISSUEDTIME>[^<]*</ISSUEDTIME>`).ReplaceAllString(d.templates[1], "")
		d.templates[1] = reissue(t, d.templates[1], "<DESCRIPTOR>", "<DESCRIPTOR>", d.slcKey, false)
	}},
	"template of another spelling of the GUID": {change: reissueTemplate("{3142861a-a534-477a-8cf5-fa7b35a5192f}", "{3142861A-A534-477A-8CF5-FA7B35A5192F}")},
	"template of the former name":              {change: reissueTemplate("contoso-rms", "contoso-old"), warned: list(control.TPDTemplateIssuer)},
	"template twice":                           {change: func(t *testing.T, d *draft) { d.templates[1] = d.templates[0] }, warned: list(control.TPDTemplateDuplicate)},
	"template with a name each":                {change: reissueTemplate("<NAME>LCID", "<NAME>LCID 1031:NAME Vertraulich:DESCRIPTION nur wir;</NAME><NAME>LCID")},
	"template without sizes":                   {change: reissueTemplate(` size="2048"`, "")},
	"template for anyone":                      {change: reissueTemplate(`type="Unspecified" /><NAME>staff1@contoso.com</NAME>`, `type="Internal">Anyone</ID>`), warned: list(control.TPDTemplateAnyone)},
	"template with a semicolon":                {change: reissueTemplate("Confidential 2:", "Confidential; 2:"), warned: list(control.TPDTemplateName)},
	"template without a license URL":           {change: reissueTemplate("https://rms.contoso.com/_wmcs/licensing", "ftp://rms"), warned: list(control.TPDURL)},
	"templates of a domain unchecked":          {change: func(t *testing.T, d *draft) { d.chain = nil }, refused: list(control.TPDChainAbsent)},
}

func TestCheckReportsEachFault(t *testing.T) {
	ids := func(cs []control.Control) []string {
		all := []string{}
		for _, c := range cs {
			all = append(all, c.ID)
		}
		return all
	}
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			if c.vector == "" {
				c.vector = "contoso-mode2"
			}
			if c.now.IsZero() {
				c.now = now
			}
			draft := takeApart(t, vectors.OneTPD(t, c.vector))
			c.change(t, draft)
			d, err := decryptDraft(t, draft)
			if err != nil {
				t.Fatal(err)
			}
			r := inspect.NewReport(d.Check(Terms{Now: c.now}))
			if got := controlsOf(r, false); !slices.Equal(got, ids(c.refused)) {
				t.Errorf("refused by %v, expected %v", got, ids(c.refused))
			}
			if got := controlsOf(r, true); !slices.Equal(got, ids(c.warned)) {
				t.Errorf("warned by %v, expected %v", got, ids(c.warned))
			}
			for _, f := range r.Findings {
				if f.Hint == "" || f.Message == "" || strings.Contains(f.Message, "%!") || strings.HasSuffix(f.Message, ".") {
					t.Errorf("finding %+v", f)
				}
			}
		})
	}
}

// Every problem is reported, in the order of the checks.
func TestCheckReportsAll(t *testing.T) {
	draft := takeApart(t, vectors.OneTPD(t, "contoso-mode1"))
	replace("<nCSPType>1<", "<nCSPType>3<")(t, draft)
	replace("{ae734a3f", "{be734a3f")(t, draft)
	draft.chain[0] = strings.Replace(draft.chain[0], "2044", "2045", 1)
	draft.templates[0] = "x"
	draft.blob = draft.blob[:100]
	d, err := decryptDraft(t, draft)
	if err != nil {
		t.Fatal(err)
	}
	r := inspect.NewReport(d.Check(terms))
	want := []string{
		control.TPDCSPMode.ID, control.TPDKeyBlob.ID, control.TPDSLCDigest.ID, control.TPDSLCID.ID,
		control.TPDTemplate.ID, control.TPDMode1.ID,
	}
	if got := controlsOf(r, false); !slices.Equal(got, want) || r.Verdict != inspect.VerdictRefused || r.Reason != want[0] {
		t.Errorf("refused by %v because of %s, expected %v", got, r.Reason, want)
	}
}

func TestRSA3072IsNoMode(t *testing.T) {
	draft := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	// Name the new key as the licensor's, which is the second modulus.
	at := modulusValue.FindAllStringSubmatchIndex(draft.chain[0], 2)[1]
	draft.chain[0] = draft.chain[0][:at[3]] + modulusText(key.N) + draft.chain[0][at[1]:]
	reissueSLC("2044", "2045")(t, draft)
	d, err := decryptDraft(t, draft)
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Check(terms); r.Public.N.BitLen() != 3072 || r.Mode != 0 || !control.Is(r.Err(), control.TPDMode) {
		t.Errorf("%d bits, mode %d, %v", r.Public.N.BitLen(), r.Mode, r.Err())
	}
}

func TestKeylessTPD(t *testing.T) {
	for _, v := range vectors.AllTPD(t) {
		if !strings.HasPrefix(v.Name, "contoso-") || v.Bits != 2048 {
			continue
		}
		_, d := open(t, v)
		_, err := d.CheckedKeyless(terms)
		refusedBy(t, err, control.TPDKeyPresent)
		v.XML = keylessOf(t, d, OmitElement)
		e, d := open(t, v)
		if e.HasKey() || e.KeyBits() != 0 || d.Key != nil || d.KeyDerivation != "" {
			t.Errorf("%s: the keyless TPD has a key", v.Name)
		}
		keyless, err := d.CheckedKeyless(terms)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if guid, _ := xrml.GUID(v.GUID); keyless.GUID() != guid || !keyless.Public().Equal(&v.Key.PublicKey) {
			t.Errorf("%s: GUID %s, or another key", v.Name, keyless.GUID())
		}
		if r := d.Check(terms); !control.Is(r.Err(), control.TPDKeyAbsent) || r.HasKey {
			t.Errorf("%s: %v", v.Name, r.Err())
		}
	}
	v := vectors.OneTPD(t, "bad-slc-signature")
	_, d := open(t, v)
	v.XML = keylessOf(t, d, OmitElement)
	_, d = open(t, v)
	_, err := d.CheckedKeyless(terms)
	refusedBy(t, err, control.TPDSLCSignature)
}
