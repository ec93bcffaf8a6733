// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/test/vectors"
)

// The tests run on a real SoftHSM 2 in a token directory of their own. The
// module is global to the process, so they run one after the other (t.Setenv
// sees to that) and close their token before the next opens one.

var testPIN, testSOPIN = []byte("31415926"), []byte("27182818")

const testLabel = "keyferry rehearsal"

// softHSM points SoftHSM at a fresh token directory under parent and returns
// the module and the directory. Without SoftHSM there is nothing to test.
func softHSM(t testing.TB, parent string) (path, tokens string) {
	t.Helper()
	path, err := module.Find("")
	if err != nil {
		t.Fatalf("these tests need SoftHSM 2 (Debian: apt install softhsm2): %v", err)
	}
	tokens = filepath.Join(parent, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(parent, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", tokens)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	return path, tokens
}

// newToken makes a rehearsal token and opens it; the test's end closes it.
func newToken(t testing.TB) (token *Token, tokens string) {
	t.Helper()
	return newTokenIn(t, t.TempDir())
}

func newTokenIn(t testing.TB, parent string) (*Token, string) {
	t.Helper()
	path, tokens := softHSM(t, parent)
	if err := module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN); err != nil {
		t.Fatal(err)
	}
	return openToken(t, path), tokens
}

// open logs in to the one token of a choice.
func open(choice module.Choice, pin []byte) (*Token, error) {
	choice.Signs = true
	chosen, err := module.Choose(choice)
	if err != nil {
		return nil, err
	}
	return Open(chosen, Config{}, pin)
}

func openToken(t testing.TB, path string) *Token {
	t.Helper()
	token, err := open(module.Choice{Module: path, TokenLabel: testLabel}, testPIN)
	if err != nil {
		t.Fatal(err)
	}
	token.trial = vectorTrial(t) // drawing one takes its time
	t.Cleanup(func() {
		if err := token.Close(); err != nil {
			t.Error(err)
		}
	})
	return token
}

// vectorKey reads the private key of a TPD vector.
func vectorKey(t testing.TB, name string) *rsa.PrivateKey {
	t.Helper()
	return vectors.OneTPD(t, name).Key
}

// imported brings a key in and proves it.
func imported(t testing.TB, token *Token, key *rsa.PrivateKey) *ProvenKey {
	t.Helper()
	session, err := token.Import(key)
	if err != nil {
		t.Fatal(err)
	}
	proven, err := session.Prove(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return proven
}

// allObjects counts the objects of every class that a session sees, its own
// session objects included.
func allObjects(t testing.TB, token *Token) int {
	t.Helper()
	if err := token.ck.FindObjectsInit(token.session, nil); err != nil {
		t.Fatal(err)
	}
	handles, _, err := token.ck.FindObjects(token.session, 10000)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.ck.FindObjectsFinal(token.session); err != nil {
		t.Fatal(err)
	}
	return len(handles)
}

// files is the token directory: each file's path and digest. The first eight
// bytes of token.object are left out: SoftHSM counts the logins there.
func files(t testing.TB, dir string) string {
	t.Helper()
	var list string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if info.Name() == "token.object" {
			data = data[8:]
		}
		list += fmt.Sprintf("%s %x\n", path, sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// fake stands before the real token, with a function for each call that a test
// makes go wrong.
type fake struct {
	cryptoki
	getTokenInfo  func(slot uint) (pkcs11.TokenInfo, error)
	getAttribute  func(pkcs11.ObjectHandle, *pkcs11.Attribute) (value []byte, err error, faked bool)
	setAttribute  func() error
	createObject  func(template) error
	copyObject    func() error
	destroyObject func(pkcs11.ObjectHandle) error
	unwrapKey     func(mechanism uint) error
	sign          func([]byte) ([]byte, error)
	decrypt       func([]byte) ([]byte, error)
	login         func(pin string) error
	loginAtPad    func() error
	wrapKey       func(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	random        func(int) ([]byte, error)
}

func (f *fake) Login(s pkcs11.SessionHandle, user uint, pin string) error {
	if f.login != nil {
		return f.login(pin)
	}
	return f.cryptoki.Login(s, user, pin)
}

func (f *fake) LoginAtPad(s pkcs11.SessionHandle) error {
	if f.loginAtPad != nil {
		return f.loginAtPad()
	}
	return f.cryptoki.LoginAtPad(s)
}

func (f *fake) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	if f.wrapKey != nil {
		return f.wrapKey(s, m, wrapping, key)
	}
	return f.cryptoki.WrapKey(s, m, wrapping, key)
}

func (f *fake) GenerateRandom(s pkcs11.SessionHandle, n int) ([]byte, error) {
	if f.random != nil {
		return f.random(n)
	}
	return f.cryptoki.GenerateRandom(s, n)
}

func (f *fake) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	if f.getTokenInfo != nil {
		return f.getTokenInfo(slot)
	}
	return f.cryptoki.GetTokenInfo(slot)
}

func (f *fake) GetAttributeValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t template) (template, error) {
	got, err := f.cryptoki.GetAttributeValue(s, h, t)
	if f.getAttribute == nil {
		return got, err
	}
	for i, a := range t {
		if value, fakedErr, faked := f.getAttribute(h, a); faked {
			if err != nil { // a secret component: hidden in truth
				got = make(template, len(t))
			}
			got[i], err = attr(a.Type, value), fakedErr
		}
	}
	return got, err
}

func (f *fake) SetAttributeValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t template) error {
	if f.setAttribute != nil {
		return f.setAttribute()
	}
	return f.cryptoki.SetAttributeValue(s, h, t)
}

func (f *fake) CreateObject(s pkcs11.SessionHandle, t template) (pkcs11.ObjectHandle, error) {
	if f.createObject != nil {
		if err := f.createObject(t); err != nil {
			return 0, err
		}
	}
	return f.cryptoki.CreateObject(s, t)
}

func (f *fake) CopyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, t template) (pkcs11.ObjectHandle, error) {
	if f.copyObject != nil {
		if err := f.copyObject(); err != nil {
			return 0, err
		}
	}
	return f.cryptoki.CopyObject(s, h, t)
}

func (f *fake) DestroyObject(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) error {
	if f.destroyObject != nil {
		if err := f.destroyObject(h); err != nil {
			return err
		}
	}
	return f.cryptoki.DestroyObject(s, h)
}

func (f *fake) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, k pkcs11.ObjectHandle, w []byte, t template) (pkcs11.ObjectHandle, error) {
	if f.unwrapKey != nil {
		if err := f.unwrapKey(m[0].Mechanism); err != nil {
			return 0, err
		}
	}
	return f.cryptoki.UnwrapKey(s, m, k, w, t)
}

func (f *fake) Sign(s pkcs11.SessionHandle, m []byte) ([]byte, error) {
	out, err := f.cryptoki.Sign(s, m)
	if f.sign != nil && err == nil {
		return f.sign(out)
	}
	return out, err
}

func (f *fake) Decrypt(s pkcs11.SessionHandle, c []byte) ([]byte, error) {
	out, err := f.cryptoki.Decrypt(s, c)
	if f.decrypt != nil && err == nil {
		return f.decrypt(out)
	}
	return out, err
}
