// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xrml"
	"keyferry/test/vectors"
)

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

func randomStyle(r *rand.Rand) style {
	s := style{
		encoding: pick(r, "utf-8", "utf-8", "bom", "utf-16le", "utf-16be"), lineEnd: pick(r, "", "\n", "\r\n"),
		xsdFirst: r.IntN(2) == 0, singleQuotes: r.IntN(4) == 0,
	}
	if r.IntN(6) == 0 {
		s.extra = pick(r, `<m_unknown xsi:type="xsd:int">1</m_unknown>`, `<m_strKeyData xmlns="urn:x"><m_strKeyData>AAAA</m_strKeyData></m_strKeyData>`, `<p:m_ttdki xmlns:p="urn:p" />`, "<schlüssel/>", "<!-- <m_ttdki> -->", "<?x y?>")
	}
	declared := map[string]string{
		"utf-8": "utf-8", "bom": "UTF-8",
		"utf-16le": pick(r, "utf-16", "utf-16LE", "Unicode", "ISO-10646-UCS-2"), "utf-16be": pick(r, "utf-16", "utf-16BE"),
	}[s.encoding]
	s.declaration = pick(r, "", `<?xml version="1.0"?>`, `<?xml version="1.0" encoding="`+declared+`"?>`, `<?xml version="1.0" encoding="`+declared+`" standalone="yes" ?>`)
	s.noMark = s.declaration != "" && r.IntN(4) == 0 // without a mark, it begins with <
	return s
}

func randomGUID(r *rand.Rand) (g [16]byte) {
	for i := range g {
		g[i] = byte(r.Uint32())
	}
	return g
}

// randomSpec varies all that a TPD export may have.
func randomSpec(r *rand.Rand) *spec {
	yes := func() bool { return r.IntN(2) == 0 }
	s := &spec{
		outer: randomStyle(r), inner: randomStyle(r), keyFirst: yes(), sections: r.Perm(3), fields: r.Perm(7),
		embedded: pick(r, absent, empty, isNil), keyless: pick[null](r, "", "", "", absent, empty, isNil), noTemplates: pick(r, absent, empty, isNil),
		documentKDF: pick(r, Current, Current, Legacy), keyKDF: pick(r, Current, Current, Legacy), password: pick(r, "Passw0rd!", "Pässw0rd €𝄞", "", " "),
		strongName: yes(), signatureKey: yes(), mode1: r.IntN(4) == 0, guid: randomGUID(r),
		strID: guidForm{yes(), yes()}, slcID: guidForm{yes(), yes()}, preProduction: r.IntN(4) == 0, selfEnrolled: yes(), digestLast: yes(),
	}
	s.strongName = s.strongName && !s.mode1 // else its TPD travels as it is
	for i := range r.IntN(4) {
		t := templateSpec{guid: randomGUID(r), principals: r.IntN(3), anyone: r.IntN(6) == 0, rights: pick(r, []string{"VIEW"}, []string{"OWNER", "VIEW", "EDIT"}, nil)}
		for range 1 + r.IntN(3) {
			t.names = append(t.names, [3]string{pick(r, "1033", "1031", "1041"), fmt.Sprint("Vertraulich ", i), pick(r, "nur für uns", "社外秘", "a b & c")})
		}
		for n := range t.names { // as XML in the certificate
			t.names[n][2] = escape.Replace(t.names[n][2])
		}
		s.templates = append(s.templates, t)
	}
	return s
}

// expected is the report that the spec's export must have, less the findings'
// messages.
func (s *spec) expected() *inspect.Report {
	from, until := time.Date(2014, 5, 6, 7, 8, 0, 0, time.UTC), time.Date(2044, 5, 6, 7, 8, 0, 0, time.UTC)
	parties := s.parties()
	r := &inspect.Report{
		KeyGUID: guidForm{bare: true}.write(s.guid), Bits: 2048, Mode: 2, HasKey: s.keyless == "",
		Fingerprint: fingerprint.OfKey(&s.key().PublicKey).Hex(), Derivation: inspect.Derivations{Document: s.documentKDF},
		CSPType: 24, CSPName: "Provider & Co", KeyContainer: "DRMS-1", KeyNumber: 1,
		SLC: &inspect.SLC{
			ServerName: serverName, ServerURL: serverURL, Issued: from, ValidFrom: from, ValidUntil: until, IssuingFrom: from, IssuingUntil: until,
			DigestAlgorithm: "SHA-256", IssuerName: parties[1].name, SelfEnrolled: s.selfEnrolled, ChainLength: 4,
			Hierarchy: inspect.Production, RootFingerprint: fingerprint.OfKey(parties[4].key).Hex(),
		},
		Templates: []inspect.Template{}, Accepted: []string{}, Verdict: inspect.VerdictHSM,
	}
	r.FingerprintWords = strings.Join(fingerprint.OfKey(&s.key().PublicKey).Words(), " ")
	if r.HasKey {
		r.Derivation.Key = s.keyKDF
	}
	if s.mode1 {
		r.Bits, r.Mode, r.CSPType, r.SLC.DigestAlgorithm = 1024, 1, 1, "SHA-1"
		r.Verdict, r.Reason = inspect.VerdictMicrosoftManaged, control.TPDMode1.ID
	}
	if !r.HasKey { // its CSP is not one of Windows
		r.Verdict, r.Reason = inspect.VerdictInHSM, control.TPDKeyInHSM.ID
		if s.mode1 {
			r.Verdict, r.Reason = inspect.VerdictRefused, control.TPDMode1.ID
		}
	}
	if s.signatureKey {
		r.KeyNumber = 2
	}
	if s.preProduction {
		r.SLC.Hierarchy = inspect.PreProduction
	}
	r.LicensingURLs = []string{serverURL}
	for _, t := range s.templates {
		r.Templates = append(r.Templates, t.expected())
		r.LicensingURLs = []string{serverURL, serverURL + "/licensing"}
	}
	return r
}

func (t templateSpec) expected() inspect.Template {
	e := inspect.Template{
		GUID: guidForm{bare: true}.write(t.guid), Issued: time.Date(2015, 3, 2, 10, 0, 0, 0, time.UTC), Names: []inspect.LocalizedName{},
		DistributionPoints: []inspect.DistributionPoint{{Type: "Publishing-URL", URL: serverURL + "/licensing"}}, Rights: append([]string{}, t.rights...),
		Anyone: t.anyone && len(t.rights) > 0,
	}
	for _, n := range t.names {
		e.Names = append(e.Names, inspect.LocalizedName{LCID: n[0], Name: n[1], Description: strings.ReplaceAll(n[2], "&amp;", "&")})
	}
	return e
}

// warnings are the controls that must warn, in their order.
func (s *spec) warnings() []string {
	all := []string{}
	if s.preProduction {
		all = append(all, control.TPDHierarchy.ID)
	}
	for _, t := range s.templates {
		if t.expected().Anyone {
			all = append(all, control.TPDTemplateAnyone.ID)
		}
	}
	if s.documentKDF == Legacy || s.keyKDF == Legacy && s.keyless == "" {
		all = append(all, control.TPDLegacyKDF.ID)
	}
	for _, style := range []style{s.outer, s.inner} {
		if style.extra != "" {
			all = append(all, control.TPDExtra.ID)
		}
	}
	return all
}

// TestVariedExports writes exports that differ in everything that may differ,
// and asserts what is reported of each, and of its keyless forms.
func TestVariedExports(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 150 {
		s := randomSpec(r)
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			file := s.write()
			e, err := Parse(file)
			if err != nil {
				t.Fatalf("%+v\n%v", s, err)
			}
			d, err := e.Decrypt([]byte(s.password))
			if err != nil {
				t.Fatalf("%+v\n%v", s, err)
			}
			report := inspect.NewReport(d.Check(terms))
			got, want := *report, s.expected()
			if warned := controlsOf(report, true); !slices.Equal(warned, s.warnings()) {
				t.Errorf("%+v\nwarned by %v, expected %v", s, warned, s.warnings())
			}
			got.Findings, want.ModulusBase64 = nil, got.ModulusBase64
			if !reflect.DeepEqual(got, *want) {
				t.Errorf("%+v\nreported\n%+v %+v, expected\n%+v %+v", s, got, got.SLC, want, want.SLC)
			}
			if s.keyless != "" {
				if e.HasKey() || e.KeyBits() != 0 {
					t.Error("a keyless TPD has a key")
				}
			} else if !d.Key.Equal(s.key()) || e.KeyBits() != want.Bits && !s.strongName {
				t.Errorf("another key, or another size: %d", e.KeyBits())
			}
			checkKeylessForms(t, s, d)
		})
	}
}

// checkKeylessForms asserts that each keyless form is the spec's own.
func checkKeylessForms(t *testing.T, s *spec, d *Domain) {
	t.Helper()
	for element, form := range map[KeylessElement]null{OmitElement: absent, EmptyElement: empty} {
		want := *s
		want.keyless, want.keyFirst = form, false
		want.outer = style{declaration: `<?xml version="1.0"?>`, lineEnd: "\r\n"}
		file := want.write()
		if got := keylessOf(t, d, element); string(got) != string(file) {
			t.Errorf("%+v\n%s: got\n%.400q, expected\n%.400q", s, element, got, file)
		}
		fresh, oneTime, err := d.KeylessFresh(element)
		if err != nil {
			t.Fatal(err)
		}
		want.password, want.documentKDF = string(oneTime), Current
		if file := want.write(); string(fresh) != string(file) {
			t.Errorf("%+v\n%s, fresh: got\n%.400q, expected\n%.400q", s, element, fresh, file)
		}
	}
}

func TestTPDRoot(t *testing.T) {
	for _, preProduction := range []bool{false, true} {
		s := &spec{password: "p", preProduction: preProduction}
		e, err := Parse(s.write())
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Decrypt([]byte(s.password))
		if err != nil {
			t.Fatal(err)
		}
		root, err := fingerprint.Parse(inspect.NewReport(d.Check(terms)).SLC.RootFingerprint)
		if err != nil {
			t.Fatal(err)
		}
		other := fingerprint.Of([]byte("another"))
		if _, err := d.Checked(Terms{Now: now, PinnedRoots: []fingerprint.Fingerprint{other, root}}); err != nil {
			t.Errorf("with its root pinned: %v", err)
		}
		if r := inspect.NewReport(d.Check(Terms{Now: now, PinnedRoots: []fingerprint.Fingerprint{root}})); !r.SLC.RootPinned {
			t.Error("a pinned root is not reported")
		}
		_, err = d.Checked(Terms{Now: now, PinnedRoots: []fingerprint.Fingerprint{other}})
		refusedBy(t, err, control.TPDRoot)
		if r := inspect.NewReport(d.Check(Terms{Now: now, PinnedRoots: []fingerprint.Fingerprint{other}})); r.SLC.RootPinned || !slices.Equal(controlsOf(r, false), []string{control.TPDRoot.ID}) || len(controlsOf(r, true)) > 0 {
			t.Errorf("with another root pinned: %+v", r.Findings)
		}
		if inspect.NewReport(d.Check(terms)).SLC.RootPinned {
			t.Error("a root is pinned without pins")
		}
	}
}

// Only a key that nothing but its size stands against is Microsoft-managed.
func TestTPDNotMode1(t *testing.T) {
	for _, v := range vectors.AllTPD(t) {
		e, err := Parse(v.XML)
		if err != nil {
			continue // bad-two-domains
		}
		d, err := e.Decrypt(v.Password)
		if err != nil {
			t.Fatal(err)
		}
		managed, err := d.CheckedMicrosoftManaged(terms)
		switch {
		case strings.HasPrefix(v.Name, "bad-"):
			if err == nil || control.Is(err, control.TPDNotMode1) || managed != nil {
				t.Errorf("%s: %v, expected a refusal of its fault", v.Name, err)
			}
		case v.Bits == 2048:
			refusedBy(t, err, control.TPDNotMode1)
		case err != nil:
			t.Errorf("%s: %v", v.Name, err)
		default:
			if guid, _ := xrml.GUID(v.GUID); managed.GUID() != guid || !managed.Public().Equal(&v.Key.PublicKey) || inspect.NewReport(managed.Result()).Verdict != inspect.VerdictMicrosoftManaged {
				t.Errorf("%s: GUID %s, or another key", v.Name, managed.GUID())
			}
		}
	}
	draft := takeApart(t, vectors.OneTPD(t, "contoso-mode1"))
	draft.templates[0] = strings.Replace(draft.templates[0], "staff0", "staff9", 1)
	d, err := decryptDraft(t, draft)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.CheckedMicrosoftManaged(terms)
	refusedBy(t, err, control.TPDTemplateSignature)
}
