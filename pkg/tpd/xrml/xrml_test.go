// SPDX-License-Identifier: Apache-2.0

package xrml

import (
	"crypto"
	"encoding/base64"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/tpd/utf16le"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/test/vectors"
)

func published(t testing.TB) map[string]*Certificate {
	t.Helper()
	certs := map[string]*Certificate{}
	for _, v := range vectors.AllXrML(t) {
		c, err := readText(v.Text)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		certs[strings.TrimSuffix(strings.TrimPrefix(v.Name, "ms-rmpr-"), "-example")] = c
	}
	return certs
}

// Each published certificate names its issuer's key; for all but one of them
// another published file names the same issuer with the same key as the
// principal that it was issued to.
func TestPublishedCertificatesVerify(t *testing.T) {
	certs := published(t)
	issuers := map[string]string{ // certificate → where its issuer is the principal
		"client-licensor-certificate":    "publishing-license",
		"rms-account-certificate":        "publishing-license",
		"use-license":                    "publishing-license",
		"publishing-license":             "client-licensor-certificate",
		"security-processor-certificate": "", // its issuer, Microsoft's activation key, is in no other file
	}
	if len(issuers) != len(certs) {
		t.Fatalf("%d certificates, expected %d", len(certs), len(issuers))
	}
	for name, from := range issuers {
		t.Run(name, func(t *testing.T) {
			c := certs[name]
			if err := c.VerifyDigest(); err != nil {
				t.Errorf("digest: %v", err)
			}
			key := c.Issuer.Key
			if from != "" {
				issuer := certs[from].Principals[0]
				if !c.Issuer.Same(issuer) {
					t.Errorf("its issuer %+v is not the principal of %s", c.Issuer.Object, from)
				}
				key = issuer.Key
			}
			if err := c.Verify(key); err != nil {
				t.Errorf("signature: %v", err)
			}
			for other, o := range certs {
				if !o.Issuer.Key.Equal(key) {
					if err := c.Verify(o.Issuer.Key); !errors.Is(err, ErrSignature) {
						t.Errorf("verifies with the issuer key of %s: %v", other, err)
					}
				}
			}
		})
	}
}

// Every change in the body, white space too, breaks the digest; with the
// digest mended, the signature is broken.
func TestChangedBodyDoesNotVerify(t *testing.T) {
	text := vectors.AllXrML(t)[0].Text
	for _, edit := range [][2]string{
		{"CONTOSO-RMS", "CONTOSO-RMT"}, {"<DESCRIPTOR>", " <DESCRIPTOR>"}, {`value="6.0.0.0" />`, `value="6.0.0.0"/>`}, {"rms/_wmcs", "rms/_wmcß"},
	} {
		changed := strings.Replace(text, edit[0], edit[1], 1)
		if changed == text {
			t.Fatalf("%q is not in the certificate", edit[0])
		}
		c, err := readText(changed)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(c.Issuer.Key); !errors.Is(err, ErrDigest) {
			t.Errorf("%q: %v, expected %v", edit[1], err, ErrDigest)
		}
		h := c.DigestAlgorithm.New()
		h.Write(utf16le.Encode([]byte(c.body)))
		c.digest = h.Sum(nil)
		if err := c.Verify(c.Issuer.Key); !errors.Is(err, ErrSignature) {
			t.Errorf("%q with its digest mended: %v, expected %v", edit[1], err, ErrSignature)
		}
	}
}

func TestFacts(t *testing.T) {
	c := published(t)["client-licensor-certificate"]
	at := func(s string) time.Time {
		m, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if c.BodyType != BodyLicense || c.DigestAlgorithm != crypto.SHA1 || !c.Issued.Equal(at("2010-06-11T20:52:00Z")) {
		t.Errorf("type %q, digest %v, issued %v", c.BodyType, c.DigestAlgorithm, c.Issued)
	}
	if want := (Object{"MS-DRM-Server", "MS-GUID", "{96c4ca87-b3ff-4ded-9c15-53272e26396f}", "CONTOSO-RMS", "HTTP://rms:80/_wmcs"}); c.Issuer.Object != want {
		t.Errorf("issuer %+v", c.Issuer.Object)
	}
	if c.Issuer.Key.N.BitLen() != 1024 || c.Issuer.Key.E != 65537 {
		t.Errorf("the issuer's key has %d bits", c.Issuer.Key.N.BitLen())
	}
	if c.Issuing.From != at("2010-06-10T20:50:00Z") || c.Issuing.Until != at("2011-06-11T20:50:00Z") || c.Valid != (Period{}) {
		t.Errorf("issuing %v, valid %v", c.Issuing, c.Valid)
	}
	if len(c.Principals) != 1 || c.Principals[0].ID != "S-1-5-21-3270430776-546919264-923996561-1118" {
		t.Errorf("principals %+v", c.Principals)
	}
	if rac := published(t)["rms-account-certificate"]; rac.Valid.Until != at("2011-06-11T20:50:00Z") {
		t.Errorf("valid %v", rac.Valid)
	}
}

// modulusOf is the first modulus of a certificate, with its size.
func modulusOf(text string) string {
	return regexp.MustCompile(`size="1024">[^<]*`).FindString(text)
}

func readText(text string) (*Certificate, error) {
	return Parse(xmltree.Text{AsIs: text, Normalised: text})
}

func TestParseRefuses(t *testing.T) {
	text := vectors.AllXrML(t)[0].Text
	for name, c := range map[string]struct{ old, new, because string }{
		"foreign root":             {"<XrML", "<Xrml", "without its start tag"},
		"other version":            {`version="1.2"`, `version="1.3"`, "XrML 1.2"},
		"two bodies":               {"<SIGNATURE>", "<BODY/><SIGNATURE>", "one BODY"},
		"time with seconds":        {"<ISSUEDTIME>2010-06-11T20:52", "<ISSUEDTIME>2010-06-11T20:52:00", "not a time"},
		"bad end of issuing":       {"<UNTIL>2011-", "<UNTIL>2011/", "not a time"},
		"no issuer":                {"ISSUER>", "ISSUERS>", "issuer's key"},
		"issuer without key":       {"PUBLICKEY>", "PRIVATEKEY>", "issuer's key"},
		"key is not RSA":           {"<ALGORITHM>RSA<", "<ALGORITHM>DSA<", "expected RSA"},
		"exponent 3":               {">65537<", ">3<", "expected 65537"},
		"modulus too short":        {`size="1024">q8uQpk4C`, `size="1024">pk4C`, "size attribute"},
		"modulus is even":          {`>q8uQ`, `>rMuQ`, "odd number"},
		"modulus is no base64":     {`>q8uQ`, `>*8uQ`, "base64"},
		"modulus is missing":       {`name="modulus"`, `name="module"`, "missing"},
		"two issuers' keys":        {"</PUBLICKEY>", "</PUBLICKEY><PUBLICKEY/>", "expected RSA"},
		"no signature":             {"SIGNATURE>", "SIGNED>", "one SIGNATURE"},
		"other signature":          {"RSA PKCS#1-V1.5", "RSA PSS", "expected RSA PKCS#1-V1.5"},
		"other digest":             {">SHA1<", ">MD5<", "expected SHA1 or SHA256"},
		"other coding":             {"surface-coding", "deep-coding", "surface-coding"},
		"digest size":              {`size="160"`, `size="161"`, "the digest"},
		"key of 8192 bits":         {modulusOf(text), `size="8192">` + base64.StdEncoding.EncodeToString(slices.Repeat([]byte{0xff}, 1024)), "at most 4096"},
		"signature is missing":     {`<VALUE encoding="base64" size="1024">Gayk`, `<VALUES/><V>Gayk`, "without its start tag"},
		"root in a namespace":      {`xmlns=""`, `xmlns="urn:x"`, `":XrML"`},
		"body in a namespace":      {"<BODY", `<BODY xmlns="urn:x"`, "one BODY"},
		"signed body in a comment": {"<BODY", "<!-- <BODY></BODY> --><BODY", "more than one BODY"},
		"document type before it":  {"<XrML", "<!DOCTYPE XrML><XrML", "document type"},
		"something after the root": {"</XrML>", "</XrML><XrML/>", "second document"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.ReplaceAll(text, c.old, c.new)
			if strings.HasPrefix(name, "two ") || strings.HasPrefix(name, "foreign") {
				changed = strings.Replace(text, c.old, c.new, 1)
			}
			if changed == text {
				t.Fatalf("%q is not in the certificate", c.old)
			}
			if _, err := readText(changed); err == nil || !strings.Contains(err.Error(), c.because) {
				t.Errorf("got %v, expected an error that says %q", err, c.because)
			}
		})
	}
}

// The comments, sections and instructions of a certificate are no part of what it
// says; within the body they are part of what is signed.
func TestPassedOver(t *testing.T) {
	text := vectors.AllXrML(t)[0].Text
	want, err := readText(text)
	if err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		"{96c4ca87":   "{96c4<!-- -->ca87",
		"<SIGNATURE>": "<!-- --><SIGNATURE>",
		"</XrML>":     "</XrML><?x y?>",
		"CONTOSO-RMS": "<![CDATA[CONTOSO-]]>RMS",
		"ISSUEDTIME>": "ISSUEDTIMES>",
	} {
		c, err := readText(strings.ReplaceAll(text, old, new))
		if err != nil {
			t.Fatalf("%s: %v", new, err)
		}
		if c.Issuer.Object != want.Issuer.Object || (c.VerifyDigest() == nil) != (old == "<SIGNATURE>" || old == "</XrML>") {
			t.Errorf("%s: %+v, %v", new, c.Issuer.Object, c.VerifyDigest())
		}
	}
}

// There may be white space in base64, as in that of an export.
func TestBase64WithWhiteSpace(t *testing.T) {
	text := vectors.AllXrML(t)[0].Text
	whole, err := readText(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, blank := range []string{" ", "\t", "\n", "\r\n", " \r\n\t "} {
		spaced := regexp.MustCompile(`(<VALUE encoding="base64"[^>]*>)(..)([^<]*)`).ReplaceAllString(text, "${1}"+blank+"$2"+blank+"$3"+blank)
		c, err := readText(spaced)
		if err != nil {
			t.Fatalf("%q: %v", blank, err)
		}
		if spaced == text || !c.Issuer.Key.Equal(whole.Issuer.Key) || string(c.digest) != string(whole.digest) || string(c.signature) != string(whole.signature) {
			t.Errorf("%q: other values come out", blank)
		}
	}
	if _, err := readText(strings.Replace(text, `size="160">`, `size="160">`+"\u00a0", 1)); err == nil {
		t.Error("white space outside of ASCII is accepted")
	}
}

func TestGUID(t *testing.T) {
	const want = "96c4ca87-b3ff-4ded-9c15-53272e26396f"
	for _, s := range []string{want, strings.ToUpper(want), "{" + want + "}", "{96C4CA87-b3ff-4DED-9c15-53272E26396F}"} {
		if got, err := GUID(s); err != nil || got != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "{}", "{" + want, want + "}", "{{" + want + "}}", want[1:], want + "0", " " + want, strings.ReplaceAll(want, "-", ""), strings.Replace(want, "c", "g", 1), want + "\n"} {
		if got, err := GUID(s); err == nil {
			t.Errorf("%q is accepted as %q", s, got)
		}
	}
}

func TestVerifyChainReportsEveryBreak(t *testing.T) {
	certs := published(t)
	// A use license from the server whose key the publishing license names,
	// which the client licensor certificate's holder issued: a real chain of
	// principals, though not one that a TPD has.
	good := []*Certificate{certs["use-license"], certs["publishing-license"], certs["client-licensor-certificate"]}
	if broken := VerifyChain(good); len(broken) != 0 {
		t.Errorf("a good chain is broken: %v", broken)
	}
	swapped := []*Certificate{good[1], good[0], good[2]}
	if broken := VerifyChain(swapped); len(broken) != 2 || broken[0].Err != ErrLink || broken[1] != (Link{1, ErrLink}) {
		t.Errorf("a chain in the wrong order: %v", broken)
	}
	changed := *good[1]
	changed.body += " "
	if broken := VerifyChain([]*Certificate{good[0], &changed, good[2]}); len(broken) != 1 || broken[0] != (Link{1, ErrDigest}) {
		t.Errorf("a changed certificate: %v", broken)
	}
	if broken := VerifyChain([]*Certificate{good[0], nil, &changed, nil}); len(broken) != 1 || broken[0] != (Link{2, ErrDigest}) {
		t.Errorf("a changed certificate between unreadable ones: %v", broken)
	}
}

func FuzzParse(f *testing.F) {
	seeds := vectors.AllXrML(f)
	for _, v := range seeds {
		if c, err := readText(v.Text); err != nil || c.Verify(c.Issuer.Key) != nil {
			f.Fatalf("%s: the seed is refused", v.Name)
		}
		f.Add(v.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := readText(text)
		if err != nil {
			return
		}
		if !strings.Contains(text, c.body) || !strings.HasPrefix(c.body, "<BODY") || c.Issuer.Key == nil {
			t.Errorf("the body %q is not the text's", c.body)
		}
		_ = VerifyChain([]*Certificate{c, c})
	})
}
