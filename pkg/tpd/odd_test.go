// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// oddPassword is the password of an odd export.
func oddPassword(t testing.TB, name string) []byte {
	if name == "legacy-collision" {
		return bytes.TrimSpace(vectors.OddFile(t, "legacy-collision.pw"))
	}
	return []byte(vectors.OddPassword)
}

// Each odd export gets the answer that testdata/vectors/odd/README.md gives.
func TestOddExports(t *testing.T) {
	c := func(controls ...control.Control) []string {
		ids := []string{}
		for _, c := range controls {
			ids = append(ids, c.ID)
		}
		return ids
	}
	want := map[string]struct {
		refused control.Control // by Parse or Decrypt
		says    string
		verdict string
		reason  control.Control
		warned  []string
	}{
		"cert-crlf-in-body":        {verdict: inspect.VerdictHSM},
		"chain-issuer-no-name":     {verdict: inspect.VerdictHSM, warned: c(control.TPDChainName)},
		"csptype-nbsp":             {refused: control.TPDDocument, says: "nCSPType"},
		"hide-comment":             {verdict: inspect.VerdictHSM, warned: c(control.TPDExtra)},
		"hide-container":           {verdict: inspect.VerdictRefused, reason: control.TPDKeyless},
		"hide-element":             {verdict: inspect.VerdictHSM, warned: c(control.TPDExtra)},
		"key-bversion-3":           {verdict: inspect.VerdictRefused, reason: control.TPDKeyBlob, says: "the version 3"},
		"keynumber-nil":            {refused: control.TPDDocument, says: "nKeyNumber"},
		"legacy-collision":         {verdict: inspect.VerdictRefused, reason: control.TPDLegacyCollision},
		"ncipher-cluster":          {verdict: inspect.VerdictInHSM, reason: control.TPDKeyInHSM, says: "nCipher"},
		"ser-us-ascii":             {verdict: inspect.VerdictHSM},
		"slc-9999":                 {verdict: inspect.VerdictHSM},
		"slc-expired-5templates":   {verdict: inspect.VerdictHSM, warned: c(control.TPDValidity, control.TPDValidity)},
		"slc-name-ideographic":     {verdict: inspect.VerdictHSM},
		"slc-renewed-2templates":   {verdict: inspect.VerdictHSM},
		"template-crlf-descr":      {verdict: inspect.VerdictHSM},
		"template-nul-after":       {refused: control.TPDDocument, says: "there is a NUL character in line"},
		"template-referral-mailto": {verdict: inspect.VerdictHSM},
		"templates-4300-empty":     {refused: control.TPDSize, says: "4300 rights policy templates"},
		"templates-one-null":       {verdict: inspect.VerdictHSM, warned: c(control.TPDNull)},
		"url-upper-port":           {verdict: inspect.VerdictHSM},
	}
	for name, file := range vectors.AllOdd(t) {
		t.Run(name, func(t *testing.T) {
			w, ok := want[name]
			if !ok {
				t.Fatal("nothing is expected of this export")
			}
			e, err := Parse(file)
			var d *Domain
			if err == nil {
				d, err = e.Decrypt(oddPassword(t, name))
			}
			if w.refused.ID != "" {
				if refusedBy(t, err, w.refused); err != nil && !strings.Contains(err.Error(), w.says) {
					t.Errorf("%v, expected it to say %s", err, w.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := inspect.NewReport(d.Check(terms))
			if r.Verdict != w.verdict || r.Reason != w.reason.ID {
				t.Errorf("%s because of %s, expected %s, %s: %+v", r.Verdict, r.Reason, w.verdict, w.reason.ID, r.Findings)
			}
			if got := controlsOf(r, true); !slices.Equal(got, append([]string{}, w.warned...)) {
				t.Errorf("warned by %v, expected %v", got, w.warned)
			}
			if err := d.Check(terms).Err(); w.says != "" && !strings.Contains(err.Error(), w.says) {
				t.Errorf("%v, expected it to say %s", err, w.says)
			}
		})
	}
}

// With a fresh password nobody takes the wrong key for the keyless copy.
func TestTPDLegacyCollision(t *testing.T) {
	e, err := Parse(vectors.Odd(t, "legacy-collision"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decrypt(oddPassword(t, "legacy-collision"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Checked(terms)
	refusedBy(t, err, control.TPDLegacyCollision)
	fresh := terms
	fresh.FreshPassword = true
	checked, err := d.Checked(fresh)
	if err != nil || !slices.Equal(controlsOf(inspect.NewReport(checked.Result()), true), []string{control.TPDLegacyKDF.ID}) {
		t.Errorf("with a fresh password: %v", err)
	}
	// A keyless copy under the same password collides all the same.
	if e, err = Parse(keylessOf(t, d, OmitElement)); err != nil {
		t.Fatal(err)
	}
	if d, err = e.Decrypt(oddPassword(t, "legacy-collision")); err != nil {
		t.Fatal(err)
	}
	_, err = d.CheckedKeyless(terms)
	refusedBy(t, err, control.TPDLegacyCollision)
}

// Findings of one kind are counted, not repeated.
func TestFindingsAreCounted(t *testing.T) {
	d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	for range 3000 {
		d.templates = append(d.templates, "")
	}
	domain, err := decryptDraft(t, d)
	if err != nil {
		t.Fatal(err)
	}
	r := inspect.NewReport(domain.Check(terms))
	last := r.Findings[len(r.Findings)-1]
	if len(r.Findings) != 10 || !strings.HasSuffix(last.Message, "; 2990 more are like it") || last.Control != control.TPDTemplate.ID {
		t.Errorf("%d findings, the last is %+v", len(r.Findings), last)
	}
}

// A template that does not verify, or can't be read, is taken where the operator
// names it as the refusal does.
func TestAcceptTemplate(t *testing.T) {
	d := takeApart(t, vectors.OneTPD(t, "contoso-mode2"))
	d.templates[0] = strings.Replace(d.templates[0], "staff0", "staff9", 1)
	d.templates[2] = "x"
	domain, err := decryptDraft(t, d)
	if err != nil {
		t.Fatal(err)
	}
	r := inspect.NewReport(domain.Check(terms))
	if got := controlsOf(r, false); !slices.Equal(got, []string{control.TPDTemplateSignature.ID, control.TPDTemplate.ID}) {
		t.Fatalf("refused by %v", got)
	}
	accept := terms
	for _, f := range r.Findings {
		_, id, ok := strings.Cut(f.Hint, "--accept-template ")
		if !ok || strings.Contains(f.Hint, "by whom") {
			t.Fatalf("the hint is %q", f.Hint)
		}
		if _, err := ParseTemplateID(id); err != nil {
			t.Fatal(err)
		}
		_, err := domain.Checked(accept)
		refusedBy(t, err, control.TPDTemplate)
		accept.AcceptTemplates = append(accept.AcceptTemplates, id)
	}
	checked, err := domain.Checked(accept)
	if err != nil {
		t.Fatal(err)
	}
	if got := controlsOf(inspect.NewReport(checked.Result()), true); !slices.Equal(got, []string{control.TPDTemplateSignature.ID, control.TPDTemplate.ID}) {
		t.Errorf("warned by %v", got)
	}
	if _, err := domain.Checked(Terms{Now: now, AcceptTemplates: []string{AnyTemplate}}); err != nil {
		t.Errorf("with any template: %v", err)
	}
}

// The keyless TPD and the PEM file that TpdUtil writes of an export are as good as
// the export; a key of another domain, or none, is refused.
func TestTPDKeyPEM(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	_, d := open(t, v)
	keyless := v
	keyless.XML = keylessOf(t, d, EmptyElement)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	one, eight := write("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(v.Key)), write("PRIVATE KEY", pkcs8)
	for _, file := range [][]byte{one, eight, bytes.ReplaceAll(eight, []byte("\n"), []byte("\r\n")), append([]byte("Bag Attributes\n"), one...)} {
		_, d := open(t, keyless)
		if err := d.UseKey(file); err != nil {
			t.Fatal(err)
		}
		checked, err := d.Checked(terms)
		if err != nil || !checked.Key().Equal(v.Key) || len(inspect.NewReport(checked.Result()).Findings) > 0 {
			t.Errorf("%v", err)
		}
		keylessOf(t, d, OmitElement)
	}
	for name, file := range map[string][]byte{
		"nothing": nil, "two": append(bytes.Clone(one), eight...), "public": write("PUBLIC KEY", pkcs8), "cut": write("PRIVATE KEY", pkcs8[:500]),
		"encrypted": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES"}, Bytes: pkcs8}),
	} {
		_, d := open(t, keyless)
		err := d.UseKey(file)
		if refusedBy(t, err, control.TPDKeyPEM); d.Key != nil {
			t.Errorf("%s: there is a key", name)
		}
	}
	_, d = open(t, keyless)
	other := vectors.OneTPD(t, "contoso-anyone").Key
	if err := d.UseKey(write("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(other))); err != nil {
		t.Fatal(err)
	}
	_, err = d.Checked(terms)
	refusedBy(t, err, control.TPDKeyMismatch)
	_, d = open(t, v)
	refusedBy(t, d.UseKey(one), control.TPDKeyPresent)
	// The key hidden in the document is found all the same.
	draft := takeApart(t, v)
	replace("<strKeyContainerName>", "<strKeyContainerName>"+base64.StdEncoding.EncodeToString(v.Key.D.Bytes()))(t, draft)
	draft.outer = keyElement.ReplaceAllString(draft.outer, "")
	if d, err = decryptDraft(t, draft); err != nil {
		t.Fatal(err)
	}
	if err := d.UseKey(one); err != nil {
		t.Fatal(err)
	}
	_, err = d.Checked(terms)
	refusedBy(t, err, control.TPDKeyless)
}
