// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// expected is what a token is known to do. What is not named, it does not do.
type expected struct {
	imports []string          // ways that are exact, in order; the first is taken
	flawed  []string          // ways by which a key comes in, but not as it should
	wraps   map[string]Result // but none
	uses    []Result          // signing, decryption, random numbers
	lies    Attributes        // what it says of a kept key beyond Token, Private and Sensitive
	signs   bool              // a signing key can be made in it
}

var (
	works     = []Result{Exact, Exact, Exact, Exact}
	onlyRolls = []Result{None, None, None, Exact}
)

// The tokens of the suite, and what each is known to do. candidates_test.go
// says how each is brought up.
var tokens = []struct {
	name     string
	packages string // of Debian
	open     func(t *testing.T, packages string) (module.Choice, func(cryptoki) cryptoki)
	expected
}{
	{"SoftHSM 2.6.1", "softhsm2", softHSMToken, expected{
		imports: []string{"C_UnwrapKey CKM_AES_KEY_WRAP_PAD", "C_UnwrapKey CKM_AES_KEY_WRAP_PAD under an AES key", "C_CreateObject"},
		wraps:   map[string]Result{aesPad.name: Flawed},
		uses:    works,
		signs:   true,
	}},
	// What SoftHSM 2.7 does, on top of 2.6.1: 0x1054, exact.
	{"fake of SoftHSM 2.7", "softhsm2", exactFake, expected{
		imports: []string{"C_UnwrapKey CKM_AES_KEY_WRAP_PAD", "C_UnwrapKey CKM_AES_KEY_WRAP_PAD under an AES key", "C_CreateObject"},
		wraps:   map[string]Result{rsaAES.name: Exact, aesPad.name: Flawed},
		uses:    works,
		signs:   true,
	}},
	// What its 0x210A makes is RFC 3394 over PKCS#7, and its length query for
	// 0x210B is 8 bytes short.
	{"NSS softokn", "libnss3 libnss3-tools", nssToken, expected{
		imports: []string{
			"C_UnwrapKey CKM_AES_KEY_WRAP_KWP", "C_UnwrapKey CKM_AES_CBC_PAD",
			"C_UnwrapKey CKM_AES_KEY_WRAP_KWP under an AES key", "C_UnwrapKey CKM_AES_CBC_PAD under an AES key", "C_CreateObject",
		},
		wraps: map[string]Result{aesKWP.name: Exact, aesPad.name: Flawed},
		uses:  works,
		signs: true,
	}},
	// It unwraps by CBC only what is not to be extractable, and then makes it
	// readable; it calls an imported key always sensitive.
	{"opencryptoki 3.8.1", "opencryptoki", opencryptokiToken, expected{
		imports: []string{"C_CreateObject"},
		uses:    works,
		lies:    Attributes{AlwaysSensitive: true},
	}},
	{"tpm2-pkcs11 1.9.0", "libtpm2-pkcs11-1 libtpm2-pkcs11-tools swtpm tpm2-abrmd tpm2-tools libtss2-tcti-swtpm0 libtss2-tcti-tabrmd0 dbus-daemon", tpm2Token, expected{
		uses:  onlyRolls,
		signs: true,
	}},
}

// TestTokens is the one suite, over every token that can be had.
func TestTokens(t *testing.T) {
	for _, token := range tokens {
		t.Run(token.name, func(t *testing.T) {
			cfg, over := token.open(t, token.packages)
			if over == nil {
				return // it ran in a process of its own
			}
			s := &suite{t, cfg, over, token.expected}
			t.Run("login", s.login)
			if !strings.HasPrefix(token.name, "fake") { // which no other process can have
				t.Run("nothing unasked", s.unasked)
			}
			s.run("probe", s.probe)
			s.run("import", s.importKey)
			s.run("wrap", s.wrap)
			s.run("stored key", s.stored)
			s.run("signer", s.signer)
		})
	}
}

// Above are the parts of the suite that test what stands on this package, from hsm_test.
var Above struct {
	Probe  func(*Token) (imports, wraps, uses []Verdict, noSigner string, err error)
	Signer func(t *testing.T, token *Token, signs bool)
}

type suite struct {
	t    *testing.T
	cfg  module.Choice
	over func(cryptoki) cryptoki
	want expected
}

// run runs a part of the suite on the token, opened anew, and wants nothing
// left of it.
func (s *suite) run(name string, part func(*testing.T, *Token)) {
	s.t.Run(name, func(t *testing.T) {
		token := s.open(t)
		before := allStored(t, token)
		part(t, token)
		if after := allStored(t, token); after != before {
			t.Errorf("%d stored objects before, %d after", before, after)
		}
	})
}

func (s *suite) open(t *testing.T) *Token {
	t.Helper()
	token, err := open(s.cfg, testPIN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	token.ck = s.over(token.ck)
	token.trial = vectorTrial(t)
	return token
}

func allStored(t testing.TB, token *Token) int {
	t.Helper()
	count := 0
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_SECRET_KEY} {
		found, err := token.find(class)
		if err != nil {
			t.Fatal(err)
		}
		count += len(found)
	}
	return count
}

func (s *suite) login(t *testing.T) {
	token := s.open(t)
	info := token.Info()
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	for name, choice := range map[string]module.Choice{
		"serial": {TokenLabel: info.Label, TokenSerial: info.Serial},
		"URI":    {TokenURI: &module.URI{Token: info.Label, Serial: info.Serial, Manufacturer: info.Manufacturer, Model: info.Model}},
	} {
		choice.Module, choice.Parameters = s.cfg.Module, s.cfg.Parameters
		slot, err := module.Choose(choice)
		if err != nil || slot.Info != info || !slot.NeedPIN || slot.PINPad || slot.PIN != module.TriesUntold {
			t.Fatalf("by %s: %+v, %v", name, slot, err)
		}
		slot.Close()
	}
	_, err := open(s.cfg, []byte("00000000"))
	refused(t, err, control.HSMPIN)
	s.open(t) // the right PIN still does
}

func (s *suite) probe(t *testing.T, token *Token) {
	imports, wraps, uses, noSigner, err := Above.Probe(token)
	if err != nil {
		t.Fatal(err)
	}
	if (noSigner == "") != s.want.signs {
		t.Errorf("the signer: %s", noSigner)
	}
	library, mechanisms, err := token.Chosen().Describe(token.Chosen().ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range imports {
		want := None
		switch {
		case slices.Contains(s.want.imports, v.Mechanism):
			want = Exact
		case slices.Contains(s.want.flawed, v.Mechanism):
			want = Flawed
		}
		if v.Result != want || v.Result != Exact == (v.Reason == "") {
			t.Errorf("import: %+v, want %s", v, want)
		}
	}
	for _, v := range wraps {
		want := s.want.wraps[v.Mechanism]
		if want == "" {
			want = None
		}
		if v.Result != want || v.Result != Exact == (v.Reason == "") {
			t.Errorf("wrap: %+v, want %s", v, want)
		}
	}
	for i, v := range uses {
		if v.Result != s.want.uses[i] {
			t.Errorf("use: %+v, want %s", v, s.want.uses[i])
		}
	}
	if len(imports) != len(importWays) || len(wraps) != len(wrapMechanisms) || len(uses) != 4 || len(mechanisms) == 0 || library.Description == "" {
		t.Errorf("not all was tried: %+v, %+v, %+v, %+v", imports, wraps, uses, library)
	}
}

// in brings a key in as a session object, or ends the test where the token
// takes none.
func (s *suite) in(t *testing.T, token *Token, key *rsa.PrivateKey) *ProvenKey {
	t.Helper()
	session, err := token.Import(key)
	if len(s.want.imports) == 0 {
		refused(t, err, control.HSMImport)
		_, _, err = token.ProveWrap()
		refused(t, err, control.HSMImport)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if session.Way != s.want.imports[0] {
		t.Errorf("came in by %s, want %s", session.Way, s.want.imports[0])
	}
	_, err = session.Prove(&vectorKey(t, "contoso-anyone").PublicKey)
	refused(t, err, control.HSMPossession)
	proven, err := session.Prove(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return proven
}

func (s *suite) importKey(t *testing.T, token *Token) {
	key := vectorKey(t, "contoso-mode2")
	proven := s.in(t, token, key)
	if proven == nil {
		return
	}
	for _, retain := range []bool{false, true} {
		kept, err := proven.Keep(KeepOptions{Label: "contoso", RetainExtractable: retain})
		if err != nil {
			t.Fatal(err)
		}
		want := s.want.lies
		want.Token, want.Private, want.Sensitive, want.Extractable = true, true, true, retain
		if kept.Attributes.unwraps = false; kept.Attributes != want { // NSS takes no word on it
			t.Errorf("%+v, want %+v", kept.Attributes, want)
		}
		refused(t, token.CheckFree("contoso", &key.PublicKey, false), control.HSMExists)
		again, err := proven.Keep(KeepOptions{Label: "contoso", RetainExtractable: retain, Resume: true})
		if err != nil || !again.Adopted {
			t.Errorf("taken up: %+v, %v", again, err)
		}
		if err := kept.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if err := proven.session.Destroy(); err != nil {
		t.Error(err)
	}
}

func (s *suite) wrap(t *testing.T, token *Token) {
	key, kek := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	proven := s.in(t, token, key)
	if proven == nil {
		return
	}
	wrap, verdicts, err := token.ProveWrap()
	i := slices.IndexFunc(verdicts, func(v Verdict) bool { return v.Result == Exact })
	if i < 0 {
		refused(t, err, control.HSMWrapUnproven)
		return
	}
	if err != nil || wrap.Mechanism() != verdicts[i].Mechanism {
		t.Fatal(err, wrap)
	}
	ciphertext, err := wrap.Wrap(proven, &kek.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := byok.Unwrap(ciphertext, kek); err != nil || !opened.Equal(key) {
		t.Errorf("the wrapped key does not come out: %v", err)
	}
}

func (s *suite) stored(t *testing.T, token *Token) {
	key, kek := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	_, err := token.Stored(Name{Label: "contoso"}, &key.PublicKey)
	refused(t, err, control.HSMStored)
	proven := s.in(t, token, key)
	if proven == nil {
		return
	}
	kept, err := proven.Keep(KeepOptions{Label: "contoso", RetainExtractable: true})
	if err != nil {
		t.Fatal(err)
	}
	token.listed = false // as a later run would
	_, err = token.Stored(Name{Label: "contoso"}, &kek.PublicKey)
	refused(t, err, control.HSMStored)
	stored, err := token.Stored(Name{Label: "contoso"}, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	again, err := stored.Prove(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	_, err = again.Keep(KeepOptions{Label: "another"})
	refused(t, err, control.HSMExists)
	if wrap, _, err := token.ProveWrap(); err == nil {
		ciphertext, err := wrap.Wrap(again, &kek.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := byok.Unwrap(ciphertext, kek); err != nil || !opened.Equal(key) {
			t.Errorf("the wrapped key does not come out: %v", err)
		}
	}
	for range 2 { // the second time, there is nothing left to do
		if err := stored.Harden(); err != nil || stored.Attributes.Extractable {
			t.Fatalf("made non-extractable: %+v, %v", stored.Attributes, err)
		}
	}
	if stored, err = token.Stored(Name{Label: "contoso"}, &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	_, err = stored.Prove(&key.PublicKey)
	refused(t, err, control.HSMExtractable)
	if err := kept.Remove(); err != nil {
		t.Fatal(err)
	}
}

func (s *suite) signer(t *testing.T, token *Token) { Above.Signer(t, token, s.want.signs) }
