// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// goodSeeds are the exports that every fuzz target starts from.
func goodSeeds(f *testing.F) []vectors.TPD {
	var seeds []vectors.TPD
	for _, v := range vectors.AllTPD(f) {
		if strings.HasPrefix(v.Name, "contoso-") && v.Name != "contoso-60-templates" { // too long to be changed in a useful place
			seeds = append(seeds, v)
		}
	}
	if len(seeds) != 11 {
		f.Fatalf("%d seeds, expected 11", len(seeds))
	}
	return seeds
}

// withExtras puts what .NET passes over before the element of that name, if it is
// there in UTF-8.
func withExtras(xml []byte, name string) []byte {
	const extras = `<!-- c --><?p i?><p:x xmlns:p="urn:p" p:a="1"><y xmlns="urn:y">1</y></p:x><é/>`
	return bytes.Replace(xml, []byte("<"+name), []byte(extras+"<"+name), 1)
}

func isRefusal(err error) bool { return errors.As(err, new(*control.Refusal)) }

// FuzzParse: what is accepted has a keyless form that is accepted too and is
// keyless; what isn't is refused under a control.
func FuzzParse(f *testing.F) {
	for _, v := range goodSeeds(f) {
		if e, err := Parse(v.XML); err != nil || !e.HasKey() {
			f.Fatalf("%s: the seed is refused: %v", v.Name, err)
		}
		f.Add(v.XML)
		extended := withExtras(v.XML, KeyField)
		if e, err := Parse(extended); err != nil || !e.HasKey() || v.Encoding != "utf16" && len(extended) == len(v.XML) {
			f.Fatalf("%s with extras: the seed is refused, or has none: %v", v.Name, err)
		}
		f.Add(extended)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Parse(raw)
		if err != nil {
			if !isRefusal(err) {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		d := e.Domain()
		for _, element := range []KeylessElement{OmitElement, EmptyElement} {
			form := keylessOf(t, d, element)
			keyless, err := Parse(form)
			if err != nil || keyless.HasKey() || string(keyless.Document()) != string(e.Document()) || len(keyless.Extra()) > 0 {
				t.Errorf("the keyless form %s is wrong: %v", element, err)
			}
		}
	})
}

// FuzzDocument: a decrypted document can be checked, or is refused under a
// control.
func FuzzDocument(f *testing.F) {
	for _, v := range goodSeeds(f) {
		e, d := open(f, v)
		plain, padded := DecryptField(e.Document(), keyOf(v.Password, d.DocumentDerivation))
		if _, err := ReadDocument(plain); err != nil || !padded {
			f.Fatalf("%s: the seed is refused: %v", v.Name, err)
		}
		f.Add(plain)
		f.Add(withExtras(plain, "m_ttdki"))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		d, err := ReadDocument(plain)
		if err != nil {
			if !isRefusal(err) {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		r := inspect.NewReport(d.Check(terms))
		if r.Verdict != inspect.VerdictRefused || r.Reason == "" {
			t.Errorf("a domain without a key gets the verdict %q because of %q", r.Verdict, r.Reason)
		}
		if keyless, err := d.CheckedKeyless(terms); err == nil && (keyless.GUID() == "" || keyless.Public() == nil) {
			t.Error("a checked domain has no GUID or no key")
		}
	})
}
