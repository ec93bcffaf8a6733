// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

// createWay is the index of C_CreateObject among importWays.
var createWay = len(importWays) - 1

func TestImport(t *testing.T) {
	token, _ := newToken(t)
	for _, bits := range byok.KeyBits {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		for first, want := range map[int]string{0: "C_UnwrapKey CKM_AES_KEY_WRAP_PAD", createWay: "C_CreateObject"} {
			t.Run(fmt.Sprint(bits, " ", want), func(t *testing.T) {
				token.ways = make([]Verdict, first) // all but Exact
				proven := imported(t, token, key)
				if proven.session.Way != want {
					t.Errorf("came in by %s, want %s", proven.session.Way, want)
				}
				if err := proven.session.Destroy(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestImportRefuses(t *testing.T) {
	token, _ := newToken(t)
	good := vectorKey(t, "contoso-mode2")
	three := *good
	three.Primes = append(three.Primes[:2:2], three.Primes[0])
	for name, key := range map[string]*rsa.PrivateKey{"1024 bits": vectorKey(t, "contoso-mode1"), "three primes": &three} {
		t.Run(name, func(t *testing.T) {
			_, err := token.Import(key)
			refused(t, err, control.HSMKeySize)
		})
	}

	real := token.ck
	defer func() { token.ck = real }()
	no := pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
	token.ck = &fake{cryptoki: real, unwrapKey: func(uint) error { return no }, createObject: func(template) error { return no }}
	_, err := token.Import(good)
	refused(t, err, control.HSMImport)
	token.ck, token.keeps = real, nil
	if _, err := token.Import(good); err != nil {
		t.Errorf("a token that takes keys again is not tried again: %v", err)
	}
}

// A token may say one thing and do another: each lie is refused at import and
// at keeping, and the object is gone.
func TestAttributes(t *testing.T) {
	token, _ := newToken(t)
	real := token.ck
	defer func() { token.ck = real }()
	key := vectorKey(t, "contoso-mode2")
	proven := imported(t, token, key)
	before := allObjects(t, token)
	yes, no := []byte{1}, []byte{0}
	for _, test := range []struct {
		name     string
		typ      uint
		value    []byte
		err      error
		keepOnly bool
		want     control.Control
	}{
		{"not sensitive", pkcs11.CKA_SENSITIVE, no, nil, false, control.HSMAttributes},
		{"not private", pkcs11.CKA_PRIVATE, no, nil, false, control.HSMAttributes},
		{"extractable", pkcs11.CKA_EXTRACTABLE, yes, nil, true, control.HSMAttributes},
		{"not stored", pkcs11.CKA_TOKEN, no, nil, true, control.HSMAttributes},
		{"attribute not told", pkcs11.CKA_EXTRACTABLE, nil, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID), false, control.HSMAttributes},
		{"attribute empty", pkcs11.CKA_SENSITIVE, nil, nil, false, control.HSMAttributes},
		{"private exponent readable", pkcs11.CKA_PRIVATE_EXPONENT, []byte{42}, nil, false, control.HSMAttributes},
		{"prime readable", pkcs11.CKA_PRIME_2, []byte{42}, nil, false, control.HSMAttributes},
		{"token lost", pkcs11.CKA_PRIME_1, nil, pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), false, control.HSMCall},
	} {
		t.Run(test.name, func(t *testing.T) {
			token.ck = &fake{cryptoki: real, getAttribute: func(_ pkcs11.ObjectHandle, a *pkcs11.Attribute) ([]byte, error, bool) {
				return bytes.Clone(test.value), test.err, a.Type == test.typ
			}}
			if !test.keepOnly {
				_, err := token.Import(key)
				refused(t, err, test.want)
			}
			_, err := proven.Keep(KeepOptions{Label: "lied-about"})
			refused(t, err, test.want)
			if after := allObjects(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
	token.ck = real
	if _, err := proven.Keep(KeepOptions{Label: "lied-about"}); err != nil {
		t.Errorf("the honest token: %v", err)
	}
}

func TestPossession(t *testing.T) {
	token, _ := newToken(t)
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	session, err := token.Import(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Prove(&key.PublicKey); err != nil {
		t.Errorf("the right key: %v", err)
	}
	_, err = session.Prove(&other.PublicKey)
	refused(t, err, control.HSMPossession)

	real := token.ck
	defer func() { token.ck = real }()
	flip := func(b []byte) ([]byte, error) { b[0] ^= 1; return b, nil }
	fail := func([]byte) ([]byte, error) { return nil, pkcs11.Error(pkcs11.CKR_FUNCTION_FAILED) }
	for name, f := range map[string]*fake{
		"wrong signature":  {sign: flip},
		"no signature":     {sign: fail},
		"wrong decryption": {decrypt: flip},
		"no decryption":    {decrypt: fail},
	} {
		t.Run(name, func(t *testing.T) {
			f.cryptoki = real
			token.ck = f
			_, err := session.Prove(&key.PublicKey)
			refused(t, err, control.HSMPossession)
		})
	}
}

// vectorTrial draws vector keys for a trial: the first of whole blocks, which
// newTrial must pass over.
func vectorTrial(t testing.TB) *trial {
	t.Helper()
	whole := vectorOfLength(t, true)
	other := vectorOfLength(t, false)
	keys := []*rsa.PrivateKey{whole, whole, other}
	trial, err := newTrial(func() (*rsa.PrivateKey, error) {
		key := keys[0]
		keys = keys[1:]
		return key, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !trial.key.Equal(other) {
		t.Fatal("the trial key's PKCS#8 is of whole blocks")
	}
	return trial
}

// The expected verdicts of SoftHSM 2.6.1: its CKM_AES_KEY_WRAP_PAD is RFC 5649,
// but of the PKCS#8 filled up with zeros to whole blocks.
func TestWrapUnproven(t *testing.T) {
	token, _ := newToken(t)
	if token.Info().Firmware != "2.6" {
		t.Fatalf("this table is of SoftHSM 2.6.1, and this is %s: extend it", token.Info().Firmware)
	}
	der, err := x509.MarshalPKCS8PrivateKey(token.trial.key)
	if err != nil {
		t.Fatal(err)
	}
	proven, verdicts, err := token.ProveWrap()
	refused(t, err, control.HSMWrapUnproven)
	if proven != nil {
		t.Error("a mechanism was proven")
	}
	invalid := "pkcs11: 0x70: CKR_MECHANISM_INVALID"
	want := []Verdict{
		{Mechanism: "CKM_RSA_AES_KEY_WRAP", ID: "0x00001054", Result: None, Reason: invalid},
		{Mechanism: "CKM_AES_KEY_WRAP_KWP", ID: "0x0000210B", Result: None, Reason: invalid},
		{Mechanism: "CKM_AES_KWP (Luna)", ID: "0x80000171", Result: None, Reason: invalid},
		{Mechanism: "CKM_CLOUDHSM_AES_KEY_WRAP_ZERO_PAD", ID: "0x8000216F", Result: None, Reason: invalid},
		{Mechanism: "CKM_WRAP_RSA_CRT_COMPONENTS (nShield)", ID: "0xDE436973", Result: None, Reason: invalid},
		{Mechanism: "CKM_AES_KEY_WRAP_PAD", ID: "0x0000210A", Result: Flawed, Reason: fmt.Sprintf("%d zero bytes follow the PKCS#8 document of %d bytes", 8-len(der)%8, len(der))},
	}
	for i, v := range verdicts {
		if v.Cause = nil; v != want[i] {
			t.Errorf("got  %+v\nwant %+v", v, want[i])
		}
	}
	if len(verdicts) != len(want) {
		t.Errorf("%d verdicts", len(verdicts))
	}
}

// vectorOfLength finds a vector key whose PKCS#8 has, or has not, a length
// that is a multiple of 8.
func vectorOfLength(t testing.TB, whole bool) *rsa.PrivateKey {
	for _, v := range vectors.AllTPD(t) {
		der, err := x509.MarshalPKCS8PrivateKey(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		if v.Bits == 2048 && len(der)%8 == 0 == whole {
			return v.Key
		}
	}
	t.Fatalf("no vector with a PKCS#8 length of whole blocks: %t", whole)
	return nil
}

// On a trial key of whole blocks the flawed mechanism passes: this is the
// exact wrap of a real token, and why newTrial wants another length.
func TestWrap(t *testing.T) {
	token, _ := newToken(t)
	kek, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	whole := vectorOfLength(t, true)
	token.trial = &trial{key: whole, kek: kek}
	wrap, verdicts, err := token.ProveWrap()
	if err != nil {
		t.Fatal(err, verdicts)
	}
	if wrap.Mechanism() != "CKM_AES_KEY_WRAP_PAD" || verdicts[5].Result != Exact {
		t.Errorf("proven %s, %+v", wrap.Mechanism(), verdicts)
	}
	before := allObjects(t, token)
	for _, key := range []*rsa.PrivateKey{whole, vectorOfLength(t, false)} {
		proven := imported(t, token, key)
		ciphertext, err := wrap.Wrap(proven, &kek.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := byok.Unwrap(ciphertext, kek)
		switch {
		case key == whole && (err != nil || !opened.Equal(key)):
			t.Errorf("the wrapped key does not come out: %v", err)
		case key != whole && !errors.Is(err, byok.ErrStray):
			t.Errorf("the flaw is gone: %v", err)
		}
		if err := proven.session.Destroy(); err != nil {
			t.Error(err)
		}
	}
	if after := allObjects(t, token); after != before {
		t.Errorf("%d objects before, %d after", before, after)
	}
}

func TestWrapJudge(t *testing.T) {
	trial := vectorTrial(t)
	wrapped := func(key *rsa.PrivateKey) []byte {
		ciphertext, err := byok.Wrap(rand.Reader, key, &trial.kek.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return ciphertext
	}
	for _, test := range []struct {
		name       string
		ciphertext []byte
		flaw       string
	}{
		{"exact", wrapped(trial.key), "<nil>"},
		{"another key", wrapped(trial.kek), "it wraps another key"},
		{"cut", wrapped(trial.key)[:400], byok.ErrKWP.Error()},
		{"empty", nil, byok.ErrShort.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			if flaw := fmt.Sprint(trial.judge(test.ciphertext)); flaw != test.flaw {
				t.Errorf("%s, want %s", flaw, test.flaw)
			}
		})
	}
}

// What a dry run calls leaves nothing in the token, in the session or on disk.
func TestDryRun(t *testing.T) {
	parent := t.TempDir()
	path, tokens := softHSM(t, parent)
	if err := module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN); err != nil {
		t.Fatal(err)
	}
	filesBefore := files(t, tokens)
	token := openToken(t, path)
	before := allObjects(t, token)
	key := vectorKey(t, "contoso-mode2")
	if err := token.CheckFree("dry", &key.PublicKey, false); err != nil {
		t.Fatal(err)
	}
	proven := imported(t, token, key)
	_, _, err := token.ProveWrap()
	refused(t, err, control.HSMWrapUnproven)
	if err := proven.session.Destroy(); err != nil {
		t.Fatal(err)
	}
	// The transport pair stays for further keys, as a session object.
	if after := allObjects(t, token); after != before+1 {
		t.Errorf("%d objects before, %d after", before, after)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	token = openToken(t, path)
	if after := allObjects(t, token); after != before {
		t.Errorf("%d objects before, %d in a new session", before, after)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if filesAfter := files(t, tokens); filesAfter != filesBefore {
		t.Errorf("files before:\n%safter:\n%s", filesBefore, filesAfter)
	}
}

// Where the length query lies, the wrap gets a buffer of ours.
func TestWrapWithBufferOfItsOwn(t *testing.T) {
	token, _ := newToken(t)
	whole := vectorOfLength(t, true)
	token.trial = &trial{key: whole, kek: token.trial.kek}
	real := token.ck
	token.ck = &fake{cryptoki: real, wrapKey: func(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
		if m[0].Mechanism == aesPad.id {
			return nil, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)
		}
		return real.WrapKey(s, m, wrapping, key)
	}}
	wrap, verdicts, err := token.ProveWrap()
	if err != nil || wrap.Mechanism() != aesPad.name {
		t.Errorf("%v, %+v", err, verdicts)
	}
}

// A token that is given the primes makes its own private exponent, and may give the
// primes back in the other order: it is the same key all the same.
func TestEqual(t *testing.T) {
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	swapped := &rsa.PrivateKey{PublicKey: key.PublicKey, D: new(big.Int).Add(key.D, big.NewInt(2)), Primes: []*big.Int{key.Primes[1], key.Primes[0]}}
	if !equal(key, swapped) || !equal(swapped, key) {
		t.Error("the primes in the other order, with another private exponent, are told as another key")
	}
	if equal(key, other) || equal(key, &rsa.PrivateKey{PublicKey: key.PublicKey, D: key.D, Primes: other.Primes}) {
		t.Error("another key is told as the same")
	}
}
