// SPDX-License-Identifier: Apache-2.0

// Package hsm takes a key into a PKCS#11 token and out again under the key
// exchange key (KEK) of a key vault, and never on the token's word alone.
//
// The way of a key:
//
//	token.CheckFree    label and CKA_ID are not in use
//	token.Import       the key becomes a session object: nothing is stored yet
//	SessionKey.Prove   it signs and decrypts what the certificate's public key says: ProvenKey
//	token.ProveWrap    a throw-away key shows that the token wraps exactly: ProvenWrap
//	ProvenWrap.Wrap    the ciphertext for the vault
//	ProvenKey.Keep     the key and its public half become token objects: Kept
//	token.CheckAlone   no other program stored the same one meanwhile
//	Kept.Remove        the caller's way back
//
// All before Keep works on session objects, which end with the session: a dry
// run stops there and leaves the token as it was. A key that is in the token
// already starts at token.Stored.
//
// A token that keeps all it is given ([Token.Keeps]) has no session objects: the
// YubiHSM 2 declines them, the NetHSM stores what it is asked to forget. There
// the way is shorter, and nothing is tried on it unasked:
//
//	token.CheckFree    as above
//	token.Store        the key is stored under its own label at once, then proven: Kept
//	token.CheckAlone   as above
//
// That is tried with one throw-away key, whose label says that it is one and names
// its own public key: whoever meets it later may remove it ([Token.Sweep]).
//
// The label decides which key is which. CKA_ID is the SHA-256 of the public key
// as PKIX DER where the token takes it, else the bytes of the label, else the
// token's own. No search is believed: objects are listed by their class alone,
// and compared here.
//
// # Nothing half done
//
// Each call may fail with nothing done, fail though done, or be the last one
// before the process is killed. The caller writes down that it begins before
// it calls Keep or Store, and that it has finished after; as long as it has begun,
// it calls CheckFree and Keep or Store with Resume, which take up or complete what
// is there. When they fail they take back what they made. A refusal by
// KF-HSM-LEFTOVER says that something may be there still; only after any other one
// may the caller write down that nothing is begun. So there is at most one pair of
// objects under the label and CKA_ID at any time, and never half a pair for
// good. Only two programs that store the same key at the same time can make
// two pairs: CheckAlone tells each of them.
//
// # Libraries
//
// Calls go through miekg/pkcs11; the login is this package's.
// Key material in Go memory is cleared after use. Where the token takes keys by
// C_UnwrapKey, none crosses into C memory in the clear; C_CreateObject and the
// login leave copies in freed C memory, which neither library lets us clear.
package hsm

import (
	"context"
	"errors"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
)

// Config says how an open token speaks to the run that opened it.
type Config struct {
	// Officer asks for the secret of the second role, the administrator or
	// security officer, when a token wants it to make or destroy keys. It is
	// called once at most. Nil: there is none.
	Officer func() ([]byte, error)
	// Tell tells a person what takes long and what went wrong on the side. Nil: nobody.
	Tell func(format string, args ...any)
	// Step is told what the token is asked to do next, as what follows "to"; empty
	// at the end. A token may take its time, and a call to its module can't be broken off. Nil: nobody is.
	Step func(name string)
	// Context ends a run between two steps. Nil: nothing does.
	Context context.Context
}

// Token is an open token with its user logged in. It serves one goroutine.
type Token struct {
	cfg     Config
	ck      cryptoki
	session pkcs11.SessionHandle
	chosen  *module.Chosen // as it was before the login

	objects   []Object                     // the token's keys, once listed
	listed    bool                         // whether objects holds
	before    []Object                     // what was there first
	temporary map[pkcs11.ObjectHandle]bool // session objects of this run
	keeps     *bool                        // see Keeps
	officer   bool                         // the second role was asked for
	trial     *trial                       // throw-away keys, once drawn
	transport *transportPair               // under which keys come in, once made
	ways      []Verdict                    // of the first importWays, as far as they were tried
}

// Open logs in to the token that was chosen, which it closes if that fails. The PIN
// is tried once; it is empty for a PIN pad, and the caller clears it after. Refusals,
// all of class Environment: KF-HSM-PIN, KF-HSM-PIN-LOCKED, KF-HSM-CALL.
func Open(chosen *module.Chosen, cfg Config, pin []byte) (t *Token, err error) {
	t = &Token{cfg: cfg, ck: chosen, chosen: chosen, temporary: map[pkcs11.ObjectHandle]bool{}}
	t.next("log in")
	if t.session, err = chosen.NewSession(); err == nil {
		err = t.login(pin)
	}
	if err != nil {
		t.next("")
		chosen.Close()
		return nil, err
	}
	return t, nil
}

// login logs the user in, by one try. A token that asks for none is spared it.
func (t *Token) login(pin []byte) (err error) {
	switch {
	case len(pin) > 0:
		var text string // the library asks for one
		secret.Do(func() { text = string(pin) })
		err = t.ck.Login(t.session, pkcs11.CKU_USER, text)
	case t.chosen.PINPad:
		err = t.ck.LoginAtPad(t.session)
	case t.chosen.NeedPIN: // some tokens take no PIN for a wish to be asked at a keypad of their own
		return control.HSMPIN.Refuse("the PIN for token %s is empty, and the token has no PIN pad", control.Quote(t.chosen.Label))
	}
	if err == nil || is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	return t.chosen.LoginFailed(t.ck, err)
}

// Info describes the token.
func (t *Token) Info() module.Info { return t.chosen.Info }

// Chosen is the token as it was before the login, with its module.
func (t *Token) Chosen() *module.Chosen { return t.chosen }

// Close ends the session, with which all session objects end, logs out and
// unloads the module. The Token and what came from it are then of no use.
// Closing again does nothing.
func (t *Token) Close() error {
	if t.ck == nil {
		return nil
	}
	t.next("")
	if err := t.ck.CloseSession(t.session); err != nil {
		t.tell("the HSM did not end the session in order; what was done in it is done: %v", err)
	}
	t.ck = nil
	t.chosen.Close()
	return nil
}

func (t *Token) tell(format string, args ...any) {
	if t.cfg.Tell != nil {
		t.cfg.Tell(format, args...)
	}
}

// next tells what is done next.
func (t *Token) next(name string) {
	if t.cfg.Step != nil {
		t.cfg.Step(name)
	}
}

// Interrupted refuses to begin something where the run was interrupted. What is
// begun is brought to its end, or taken back.
func (t *Token) Interrupted() error {
	if t.cfg.Context == nil || t.cfg.Context.Err() == nil {
		return nil
	}
	return control.Interrupted.Refuse("interrupted before the next step in the HSM")
}

// asOfficer makes or destroys an object that is stored, and once more in the
// second role where the token wants that.
func (t *Token) asOfficer(do func() error) error {
	err := do()
	if !is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) || t.officer || t.cfg.Officer == nil {
		return err
	}
	t.officer = true
	pin, e := t.cfg.Officer()
	if e != nil {
		return errors.Join(err, e)
	}
	defer clear(pin)
	var text string // the library asks for one
	secret.Do(func() { text = string(pin) })
	if e := t.ck.Login(t.session, pkcs11.CKU_SO, text); e != nil && !is(e, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return control.HSMPIN.Refuse("the token %s does not accept the secret of its administrator or security officer, which was tried once: %w", control.Quote(t.chosen.Label), e).
			WithHint("check that secret (--hsm-so-pin-file); an HSM in a network wants a second of rest before the next try")
	}
	return do()
}

// ReadyToStore asks for the second role, where a token that keeps all it is given wants
// it, by a call that can make nothing: what a key pair is refused with says less.
func (t *Token) ReadyToStore() error {
	if keeps, err := t.Keeps(); err != nil || !keeps {
		return err
	}
	err := t.asOfficer(t.MakeNothing)
	var refusal *control.Refusal
	if errors.As(err, &refusal) || is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) {
		return module.Failed("make a key", err)
	}
	return nil
}

// GeneratePair makes a key pair in the token, by a mechanism without parameters.
func (t *Token) GeneratePair(by uint, public, private []*pkcs11.Attribute) error {
	t.next("make a key pair")
	return t.asOfficer(func() error {
		_, _, err := t.ck.GenerateKeyPair(t.session, mechanism(by, nil), public, private)
		return err
	})
}

// Random draws random numbers.
func (t *Token) Random(length int) ([]byte, error) { return t.ck.GenerateRandom(t.session, length) }

// MakeNothing asks for a private key without a key: a call that can make nothing, but
// says whether the token takes keys, and in which role.
func (t *Token) MakeNothing() error {
	_, err := t.ck.CreateObject(t.session, template{attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)})
	return err
}
