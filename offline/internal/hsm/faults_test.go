// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/test/memdir"
)

// journal is what outlives a run, as the offline side's ledger does.
type journal struct {
	begun   bool
	wrapped []byte // and done
}

// runImport imports and wraps a key, with the journal as the offline side
// keeps it: it knows before the token does, a run that is killed is resumed,
// and a run that fails and leaves nothing is forgotten.
func runImport(token *Token, j *journal, key, kek *rsa.PrivateKey) (err error) {
	if err := token.CheckFree(testKey, &key.PublicKey, j.begun); err != nil {
		return err
	}
	wrap, _, err := token.ProveWrap()
	if err != nil {
		return err
	}
	session, err := token.Import(key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Destroy()) }()
	proven, err := session.Prove(&key.PublicKey)
	if err != nil {
		return err
	}
	ciphertext, err := wrap.Wrap(proven, &kek.PublicKey)
	if err != nil {
		return err
	}
	resumed := j.begun
	j.begun = true
	if _, err := proven.Keep(KeepOptions{Label: testKey, Resume: resumed}); err != nil {
		if !resumed && !control.Is(err, control.HSMLeftover) {
			j.begun = false
		}
		return err
	}
	j.wrapped = ciphertext
	return nil
}

const testKey = "contoso"

// faultBed is a token on which imports go wrong.
type faultBed struct {
	cfg      module.Choice
	key, kek *rsa.PrivateKey
	trial    *trial
	pair     *rsa.PrivateKey // stands for the pair that the token would make each time
}

func newFaultBed(t *testing.T) *faultBed {
	path, _ := softHSM(t, memdir.New(t))
	if err := module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN); err != nil {
		t.Fatal(err)
	}
	// Of whole blocks, so that SoftHSM wraps them exactly.
	whole := vectorOfLength(t, true)
	kek := vectorKey(t, "contoso-anyone")
	return &faultBed{
		cfg: module.Choice{Module: path, TokenLabel: testLabel},
		key: whole, kek: kek, trial: &trial{key: whole, kek: kek}, pair: vectorKey(t, "contoso-utf16"),
	}
}

// open opens the token, as a run finds it.
func (b *faultBed) open(t *testing.T) *Token {
	t.Helper()
	token, err := open(b.cfg, testPIN)
	if err != nil {
		t.Fatal(err)
	}
	token.trial = b.trial
	token.ck = &quickPair{token.ck, b.pair}
	return token
}

// run makes a run in which a call goes wrong, and says which it was; how it
// ends is the error.
func (b *faultBed) run(t *testing.T, j *journal, at int, how fault) (name string, calls int, err error) {
	t.Helper()
	return b.runFaulty(t, at, how, func(token *Token) error { return runImport(token, j, b.key, b.kek) })
}

func (b *faultBed) runFaulty(t *testing.T, at int, how fault, run func(*Token) error) (name string, calls int, err error) {
	t.Helper()
	token := b.open(t)
	f := &faulty{cryptoki: token.ck, at: at, how: how}
	token.ck = f
	defer func() {
		p := recover()
		// Without Token.Close, which a killed process does not reach: the
		// session's objects end, the token's stay.
		token.chosen.Close()
		if calls = len(f.names); at > 0 && at <= calls {
			name = f.names[at-1]
		}
		if _, ok := p.(kill); ok {
			err = errors.New("killed")
		} else if p != nil {
			panic(p)
		}
	}()
	return "", 0, run(token)
}

// quickPair brings a key pair in where one would be made, which takes long.
type quickPair struct {
	cryptoki
	pair *rsa.PrivateKey
}

func (q *quickPair) GenerateKeyPair(s session, _ mechs, public, private template) (handle, handle, error) {
	t := &Token{ck: q.cryptoki, session: s}
	publicHandle, err := q.cryptoki.CreateObject(s, publicTemplate(&q.pair.PublicKey, attr(pkcs11.CKA_TOKEN, false)))
	if err != nil {
		return 0, 0, err
	}
	privateHandle, err := t.create(q.pair, append(template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
	}, private...))
	return publicHandle, privateHandle, err
}

// stored is what a token has under any name.
func stored(t *testing.T, token *Token) (private, public int, state string) {
	t.Helper()
	token.listed = false
	if err := token.list(); err != nil {
		t.Fatal(err)
	}
	for _, o := range token.objects {
		if o.Class == pkcs11.CKO_PUBLIC_KEY {
			public++
			state += fmt.Sprintf("public %s %x\n", o.Label, o.ID)
			continue
		}
		private++
		a, err := token.inspect(o.Handle, protection{token: true})
		if err != nil {
			t.Error(err)
		}
		state += fmt.Sprintf("private %s %x %+v\n", o.Label, o.ID, a)
	}
	return private, public, state
}

// empty removes what stored found, and closes the token.
func empty(t *testing.T, token *Token) {
	t.Helper()
	for _, o := range token.objects {
		if err := token.ck.DestroyObject(token.session, o.Handle); err != nil {
			t.Fatal(err)
		}
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
}

// check lets a call of a run go wrong, looks at what is there, runs again and
// wants the end state of a run in which nothing goes wrong.
func (b *faultBed) check(t *testing.T, j journal, at int, how fault, want string) (name string, failed bool) {
	t.Helper()
	name, _, err := b.run(t, &j, at, how)
	about := fmt.Sprintf("call %d, %s, %s", at, name, how)
	token := b.open(t)
	private, public, _ := stored(t, token)
	if private > 1 || public > 1 {
		t.Errorf("%s: %d private and %d public keys after it", about, private, public)
	}
	if private+public > 0 && !j.begun {
		t.Errorf("%s: %d private and %d public keys are left, and the journal knows nothing of it: %v", about, private, public, err)
	}
	if j.wrapped == nil {
		if err := runImport(token, &j, b.key, b.kek); err != nil {
			t.Errorf("%s: the second run: %v", about, err)
		}
	}
	if _, _, got := stored(t, token); got != want {
		t.Errorf("%s: ends in\n%swant\n%s", about, got, want)
	}
	if opened, err := byok.Unwrap(j.wrapped, b.kek); err != nil || !opened.Equal(b.key) {
		t.Errorf("%s: the ciphertext: %v", about, err)
	}
	empty(t, token)
	return name, err != nil
}

// Every PKCS#11 call of an import and a wrap goes wrong in every way: then there
// is one pair of objects of the key at most, and a second run ends like a
// run in which nothing goes wrong. So does a third one, when the first was killed
// with half the pair stored and a call of the second goes wrong.
func TestFaults(t *testing.T) {
	b := newFaultBed(t)
	var j journal
	_, calls, err := b.run(t, &j, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	token := b.open(t)
	_, _, want := stored(t, token)
	empty(t, token)
	cases, failures := 0, map[string]int{}
	copies := 0 // the call that stores the private key
	for _, how := range []fault{nothingDone, thoughDone, killed, cutOff} {
		for at := 1; at <= calls; at++ {
			name, failed := b.check(t, journal{}, at, how, want)
			if cases++; failed {
				failures[name]++
			}
			if name == "C_CopyObject" {
				copies = at
			}
		}
	}
	if calls < 100 || len(failures) < 12 {
		t.Errorf("only %d calls, and %d kinds of them failed a run: %v", calls, len(failures), failures)
	}
	for _, how := range []fault{thoughDone, killed} {
		for at := 1; at <= calls; at++ {
			j := journal{}
			if name, _, _ := b.run(t, &j, copies, killed); name != "C_CopyObject" {
				t.Fatalf("killed at %s", name)
			}
			b.check(t, j, at, how, want)
			cases++
		}
	}
	t.Logf("count: %d calls, %d cases; runs that failed, by call: %v", calls, cases, failures)
	fmt.Fprintf(os.Stderr, "hsm: %d faults in an import and a wrap of %d calls\n", cases, calls)
}
