// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
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

// now is a moment in which the vectors' certificates are valid.
var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

var terms = Terms{Now: now}

func open(t testing.TB, v vectors.TPD) (*Export, *Domain) {
	t.Helper()
	e, err := Parse(v.XML)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	d, err := e.Decrypt(v.Password)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return e, d
}

// controlsOf returns the IDs of the findings, warnings or refusals.
func controlsOf(r *inspect.Report, warnings bool) []string {
	ids := []string{}
	for _, f := range r.Findings {
		if f.Warning == warnings {
			ids = append(ids, f.Control)
		}
	}
	return ids
}

func TestGoodVectors(t *testing.T) {
	warnings := map[string][]string{
		"contoso-anyone":       {control.TPDTemplateAnyone.ID},
		"contoso-colon-name":   {control.TPDTemplateName.ID},
		"contoso-legacy-kdf":   {control.TPDLegacyKDF.ID},
		"contoso-legacy-mode1": {control.TPDLegacyKDF.ID},
	}
	good := 0
	for _, v := range vectors.AllTPD(t) {
		if !strings.HasPrefix(v.Name, "contoso-") {
			continue
		}
		good++
		t.Run(v.Name, func(t *testing.T) {
			e, d := open(t, v)
			if !e.HasKey() || e.KeyBits() != v.Bits {
				t.Errorf("without the password: has key %v, %d bits", e.HasKey(), e.KeyBits())
			}
			if !d.Key.Equal(v.Key) {
				t.Error("another private key came out")
			}
			r := inspect.NewReport(d.Check(terms))
			guid, err := xrml.GUID(v.GUID)
			if err != nil {
				t.Fatal(err)
			}
			if r.KeyGUID != guid || r.Bits != v.Bits || r.Fingerprint != fingerprint.OfKey(&v.Key.PublicKey).Hex() {
				t.Errorf("GUID %s, %d bits, fingerprint %s", r.KeyGUID, r.Bits, r.Fingerprint)
			}
			if modulus, err := base64.StdEncoding.DecodeString(r.ModulusBase64); err != nil || !slices.Equal(modulus, v.Key.N.Bytes()) {
				t.Errorf("modulus %s, %v", r.ModulusBase64, err)
			}
			if want := (inspect.Derivations{Document: Derivation(v.KDF), Key: Derivation(v.KDF)}); r.Derivation != want {
				t.Errorf("derivations %+v, expected %+v", r.Derivation, want)
			}
			if r.Mode != v.Bits/1024 || r.CSPType != v.CSP || r.KeyNumber != v.KeyNumber {
				t.Errorf("mode %d, CSP type %d, key number %d", r.Mode, r.CSPType, r.KeyNumber)
			}
			if len(r.Templates) != v.Templates || slices.ContainsFunc(r.Templates, func(t inspect.Template) bool { return t.Anyone }) != v.Anyone {
				t.Errorf("%d templates, anyone expected %v", len(r.Templates), v.Anyone)
			}
			if got := controlsOf(r, true); !slices.Equal(got, warnings[v.Name]) {
				t.Errorf("warnings %v, expected %v", got, warnings[v.Name])
			}
			checkGoodVerdict(t, v, d, r)
		})
	}
	if good != 12 {
		t.Errorf("%d good vectors, expected 12", good)
	}
}

func checkGoodVerdict(t *testing.T, v vectors.TPD, d *Domain, r *inspect.Report) {
	checked, err := d.Checked(terms)
	if v.Bits == 1024 {
		if r.Verdict != inspect.VerdictMicrosoftManaged || r.Reason != control.TPDMode1.ID || !control.Is(err, control.TPDMode1) {
			t.Errorf("verdict %q because of %q, %v", r.Verdict, r.Reason, err)
		}
		return
	}
	if r.Verdict != inspect.VerdictHSM || r.Reason != "" || d.Check(terms).Err() != nil || err != nil {
		t.Fatalf("verdict %q because of %q, %v", r.Verdict, r.Reason, err)
	}
	if checked.Key() != d.Key || !checked.Public().Equal(&v.Key.PublicKey) || checked.GUID() != r.KeyGUID || inspect.NewReport(checked.Result()).Verdict != inspect.VerdictHSM {
		t.Error("the checked domain is not the domain's")
	}
	d.Clear()
	if d.Key != nil || checked.Key().D != nil {
		t.Error("Clear leaves the private key")
	}
}

func TestSLCAndTemplateFacts(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	_, d := open(t, v)
	r := inspect.NewReport(d.Check(terms))
	from, until := time.Date(2014, 5, 6, 7, 8, 0, 0, time.UTC), time.Date(2044, 5, 6, 7, 8, 0, 0, time.UTC)
	root := v.Key.PublicKey
	root.N = v.RootModulus
	want := inspect.SLC{
		ServerName: "contoso-rms", ServerURL: "https://rms.contoso.com/_wmcs", Issued: from, ValidFrom: from, ValidUntil: until,
		IssuingFrom: from, IssuingUntil: until, DigestAlgorithm: "SHA-256",
		IssuerName: "Microsoft DRM Server Self Enrollment Service", SelfEnrolled: true, ChainLength: 4,
		Hierarchy: inspect.Production, RootFingerprint: fingerprint.OfKey(&root).Hex(),
	}
	if *r.SLC != want {
		t.Errorf("SLC\n%+v, expected\n%+v", *r.SLC, want)
	}
	if r.CSPName != "Microsoft Enhanced RSA and AES Cryptographic Provider" || r.KeyContainer != "DRMS-contoso-mode2" {
		t.Errorf("CSP %q, container %q", r.CSPName, r.KeyContainer)
	}
	got, err := json.Marshal(r.Templates[0])
	if err != nil {
		t.Fatal(err)
	}
	const template = `{"guid":"1f47c602-476f-43de-8675-a15e8b5f3d0b","issued":"2015-03-02T10:00:00Z",` +
		`"names":[{"lcid":"1033","name":"Contoso Confidential 1","description":"Rights for Contoso Confidential 1"}],"ambiguous_names":false,` +
		`"distribution_points":[{"type":"Publishing-URL","url":"https://rms.contoso.com/_wmcs/licensing"}],"rights":["OWNER","VIEW"],"anyone":false}`
	if string(got) != template {
		t.Errorf("template\n%s, expected\n%s", got, template)
	}
}

// TestReportIsStable holds the names that programs read.
func TestReportIsStable(t *testing.T) {
	_, d := open(t, vectors.OneTPD(t, "contoso-legacy-mode1"))
	text, err := json.Marshal(inspect.NewReport(d.Check(terms)))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	onlyFields(t, fields, "key_guid", "fingerprint", "fingerprint_words", "modulus_base64", "bits", "mode", "has_key", "derivation", "csp_type", "csp_name", "key_container", "key_number",
		"slc", "templates", "accepted_templates", "licensing_urls", "findings", "verdict", "reason")
	onlyFields(t, fields["slc"], "server_name", "server_url", "issued", "valid_from", "valid_until", "issuing_from", "issuing_until", "digest_algorithm",
		"issuer_name", "self_enrolled", "chain_length", "hierarchy", "root_fingerprint", "root_pinned")
	onlyFields(t, fields["templates"].([]any)[0], "guid", "issued", "names", "ambiguous_names", "distribution_points", "rights", "anyone")
	onlyFields(t, fields["findings"].([]any)[0], "control", "warning", "message", "hint")
	for _, want := range []string{`"fingerprint_words":"` + strings.Join(fingerprintOf(t, fields["fingerprint"]).Words(), " ") + `"`, `"derivation":{"document":"legacy","key":"legacy"}`, `{"control":"KF-TPD-LEGACY-KDF","warning":true,"message":"`, `"reason":"KF-TPD-MODE1"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %s", want)
		}
	}
}

func fingerprintOf(t *testing.T, hex any) fingerprint.Fingerprint {
	t.Helper()
	print, err := fingerprint.Parse(hex.(string))
	if err != nil {
		t.Fatal(err)
	}
	return print
}

// onlyFields asserts that an object has these fields and no other.
func onlyFields(t *testing.T, object any, names ...string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(object.(map[string]any)))
	if slices.Sort(names); !slices.Equal(got, names) {
		t.Errorf("the fields are %v, expected %v", got, names)
	}
}

// Each bad vector is refused with the control of what was broken in it, and
// with no other.
func TestBadVectors(t *testing.T) {
	want := map[string]control.Control{
		"bad-crt-parameter":      control.TPDKeyCRT,
		"bad-csp-for-mode":       control.TPDCSPMode,
		"bad-no-chain":           control.TPDChainAbsent,
		"bad-no-key-id":          control.TPDKeyID,
		"bad-no-key":             control.TPDKeyAbsent,
		"bad-other-key":          control.TPDKeyMismatch,
		"bad-slc-digest":         control.TPDSLCDigest,
		"bad-slc-signature":      control.TPDSLCSignature,
		"bad-template-signature": control.TPDTemplateSignature,
		"bad-truncated-blob":     control.TPDKeyBlob,
		"bad-two-domains":        control.TPDOneDomain,
	}
	for _, v := range vectors.AllTPD(t) {
		if !strings.HasPrefix(v.Name, "bad-") {
			continue
		}
		t.Run(v.Name, func(t *testing.T) {
			c, ok := want[v.Name]
			if !ok {
				t.Fatal("no control is expected of this vector")
			}
			delete(want, v.Name)
			e, err := Parse(v.XML)
			if err != nil {
				if c.ID != control.TPDOneDomain.ID || !control.Is(err, c) {
					t.Fatalf("got %v, expected %s", err, c.ID)
				}
				return
			}
			d, err := e.Decrypt(v.Password)
			if err != nil {
				t.Fatal(err)
			}
			r := inspect.NewReport(d.Check(terms))
			if got := controlsOf(r, false); !slices.Equal(got, []string{c.ID}) {
				t.Errorf("refused by %v, expected %s: %+v", got, c.ID, r.Findings)
			}
			if r.Verdict != inspect.VerdictRefused || r.Reason != c.ID || !control.Is(d.Check(terms).Err(), c) {
				t.Errorf("verdict %q because of %q, %v", r.Verdict, r.Reason, d.Check(terms).Err())
			}
			if checked, err := d.Checked(terms); checked != nil || !control.Is(err, c) {
				t.Errorf("Checked gives %v, %v", checked, err)
			}
		})
	}
	if len(want) > 0 {
		t.Errorf("no vectors for %v", want)
	}
}

func TestEveryRefusalHasAHint(t *testing.T) {
	for _, c := range control.All() {
		if strings.HasPrefix(c.ID, "KF-TPD-") && (c.Hint == "" || c.Class != control.Refused) {
			t.Errorf("%s: hint %q, class %d", c.ID, c.Hint, c.Class)
		}
	}
	r := new(Result)
	if r.Err() != nil {
		t.Error(r.Err())
	}
	r.Refusals = append(r.Refusals, control.TPDMode.Refuse("x"), control.TPDKeyCRT.Refuse("z"))
	r.Accepted = append(r.Accepted, control.TPDExtra.Refuse("y"))
	if err := r.Err(); !control.Is(err, control.TPDMode) || !control.Is(err, control.TPDKeyCRT) || control.Is(err, control.TPDExtra) {
		t.Errorf("not all refusals, or more: %v", err)
	}
}
