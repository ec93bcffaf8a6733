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
// already starts at token.Stored. token.Probe shows what a token can do.
//
// A token that keeps all it is given ([Token.Keeps]) has no session objects: the
// YubiHSM 2 declines them, the NetHSM stores what it is asked to forget. There
// the way is shorter, and nothing is tried on it unasked:
//
//	token.CheckFree    as above
//	token.Store        the key is stored under its own label at once, then proven: Kept
//	token.CheckAlone   as above
//
// [Token.TryStore] rehearses that with one throw-away key, whose label says that
// it is one and names its own public key: whoever meets it later may remove it.
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
// Calls go through miekg/pkcs11; the login is this package's. crypto11 finds the
// signing key and signs bundles where it can serve. Where it can't (NSS, which
// takes parameters; a token of one session or of one login for each session;
// p11-kit's client, where each C_GetFunctionList is an instance of its own) the
// token's own session signs.
//
// Key material in Go memory is cleared after use. Where the token takes keys by
// C_UnwrapKey, none crosses into C memory in the clear; C_CreateObject and the
// login leave copies in freed C memory, which neither library lets us clear.
package hsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
)

// Config says which token to open. What is given of TokenLabel, TokenSerial and
// TokenURI must all fit one token, and only one.
type Config struct {
	Module      string // path of the PKCS#11 module, as by FindModule
	TokenLabel  string
	TokenSerial string
	TokenURI    *module.URI
	PIN         []byte // the user PIN, for Open; the caller clears it after. Empty for a PIN pad
	Parameters  string // what the module takes at C_Initialize, such as NSS's configdir=…; usually empty

	// Officer asks for the secret of the second role, the administrator or
	// security officer, when a token wants it to make or destroy keys. It is
	// called once at most. Nil: there is none.
	Officer func() ([]byte, error) `json:"-"`
	// Tell tells a person what takes long and what went wrong on the side. Nil: nobody.
	Tell func(format string, args ...any) `json:"-"`
	// Step is told what the token is asked to do next, as what follows "to"; empty
	// at the end. A token may take its time, and a call to its module can't be broken off. Nil: nobody is.
	Step func(name string) `json:"-"`
	// Context ends a run between two steps. Nil: nothing does.
	Context context.Context `json:"-"`
}

func (cfg *Config) tell(format string, args ...any) {
	if cfg.Tell != nil {
		cfg.Tell(format, args...)
	}
}

// Info describes a token, in its own words.
type Info struct {
	Module       string `json:"module"` // path
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Label        string `json:"label"`
	Serial       string `json:"serial"` // empty where the token does not tell
	Firmware     string `json:"firmware"`
}

// Token is an open token with its user logged in. It serves one goroutine.
type Token struct {
	ck      cryptoki
	session pkcs11.SessionHandle
	found   *Found // as it was before the login

	objects   []object                     // the token's keys, once listed
	listed    bool                         // whether objects holds
	before    []object                     // what was there first
	temporary map[pkcs11.ObjectHandle]bool // session objects of this run
	keeps     *bool                        // see Keeps
	officer   bool                         // the second role was asked for
	trial     *trial                       // throw-away keys, once drawn
	transport *transportPair               // under which keys come in, once made
	ways      []Verdict                    // of the first importWays, as far as they were tried
}

// Found is a token that was chosen and is not open yet. Its module is loaded and
// initialised: Open or Close ends it.
type Found struct {
	Slot
	cfg      Config
	module   *module.Module
	crypto11 *crypto11.Context // nil where crypto11 can't open the token
	flags    uint              // of the token
}

// Find loads the module and describes the one token that cfg chooses, without a
// login. Refuses as [Open] does before it tries the PIN, so that none is asked for
// in vain. Where signs is true the token is to sign bundles.
func Find(cfg Config, signs bool) (found *Found, err error) {
	f := &Found{cfg: cfg}
	if _, fault := module.Open(cfg.Module); fault == "" && signs && cfg.Parameters == "" {
		f.crypto11 = share(&cfg) // first: it insists on initialising the module
	}
	if f.module, err = module.Load(cfg.Module, cfg.Parameters); err != nil {
		return nil, err
	}
	slot, info, err := choose(f.module, &cfg)
	if err == nil {
		f.Slot, f.flags = *slotOf(cfg.Module, slot, &info), info.Flags
		err = admissible(&info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// share has crypto11 initialise the module and open the token, to sign. It gets no
// PIN: the session that logs in is the Token's. Nil where it can't: it panics on a
// token of one session.
func share(cfg *Config) (shared *crypto11.Context) {
	defer func() { _ = recover() }()
	label := cfg.TokenLabel
	if cfg.TokenURI != nil {
		label = cmp.Or(label, cfg.TokenURI.Token)
	}
	choice := crypto11.Config{Path: module.Loaded(cfg.Module), TokenLabel: label, MaxSessions: 2, LoginNotSupported: true}
	if serial := told(cfg.TokenSerial); serial != "" {
		choice.TokenLabel, choice.TokenSerial = "", serial
	}
	shared, err := crypto11.Configure(&choice)
	if err != nil {
		return nil
	}
	return shared
}

// Close unloads the module. What a module answers to that changes nothing any
// more: it is told, and no error.
func (f *Found) Close() {
	if f.module == nil {
		return
	}
	var err error
	if f.crypto11 != nil {
		err = f.crypto11.Close() // which finalises the module, unless each user has a module of its own
	}
	if e := f.module.Unload(); !is(e, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED) {
		err = errors.Join(err, e)
	}
	if err != nil {
		f.cfg.tell("the PKCS#11 module did not end in order; what was done in the HSM is done: %v", err)
	}
	f.module, f.crypto11 = nil, nil
}

// Open logs in to the one token that cfg chooses. The PIN is tried once, and
// only on that token. Refusals, all of class Environment: KF-HSM-MODULE,
// KF-HSM-NO-TOKEN, KF-HSM-TOKEN-LABEL, KF-HSM-TOKEN-TWICE, KF-HSM-PIN,
// KF-HSM-PIN-LOCKED, KF-HSM-CALL. A process can have one Token of a module open
// at a time.
func Open(cfg Config) (*Token, error) {
	f, err := Find(cfg, true)
	if err != nil {
		return nil, err
	}
	return f.Open(cfg.PIN)
}

// Open is the function Open, of the token that was found.
func (f *Found) Open(pin []byte) (t *Token, err error) {
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := f.needs(pin); err != nil {
		return nil, err
	}
	t = &Token{ck: f.module, found: f, temporary: map[pkcs11.ObjectHandle]bool{}}
	t.next("log in")
	const flags = pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION
	t.session, err = f.module.OpenSession(f.ID, flags)
	if is(err, pkcs11.CKR_SESSION_COUNT) && f.crypto11 != nil { // crypto11 has taken the last
		_ = f.crypto11.Close() // the module is started anew
		f.crypto11 = nil
		if err = f.module.Start(f.cfg.Parameters); err == nil || is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			t.session, err = f.module.OpenSession(f.ID, flags)
		}
	}
	if err == nil {
		err = t.login(pin)
	} else {
		err = failed("open a session", err)
	}
	if err != nil {
		t.next("")
		return nil, err
	}
	return t, nil
}

// needs refuses a login without a PIN, before it is tried.
func (f *Found) needs(pin []byte) error {
	if len(pin) > 0 || !f.NeedPIN || f.PINPad {
		return nil
	}
	// Some tokens take no PIN for a wish to be asked at a keypad of their own.
	return control.HSMPIN.Refuse("the PIN for token %s is empty, and the token has no PIN pad", control.Quote(f.Label))
}

// Info describes the token.
func (t *Token) Info() Info { return t.found.Info }

// Slot describes the token as it was before the login.
func (t *Token) Slot() Slot { return t.found.Slot }

// Module is the token's module, to ask it about itself.
func (t *Token) Module() *module.Module { return t.found.module }

// Close ends the session, with which all session objects end, logs out and
// unloads the module. The Token and what came from it are then of no use.
// Closing again does nothing.
func (t *Token) Close() error {
	if t.ck == nil {
		return nil
	}
	t.next("")
	err := t.ck.CloseSession(t.session)
	if err != nil {
		t.found.cfg.tell("the HSM did not end the session in order; what was done in it is done: %v", err)
	}
	t.ck = nil
	t.found.Close()
	return nil
}

// next tells what is done next.
func (t *Token) next(name string) {
	if t.found != nil && t.found.cfg.Step != nil {
		t.found.cfg.Step(name)
	}
}

// interrupted refuses to begin something where the run was interrupted. What is
// begun is brought to its end, or taken back.
func (t *Token) interrupted() error {
	if t.found == nil || t.found.cfg.Context == nil || t.found.cfg.Context.Err() == nil {
		return nil
	}
	return control.Interrupted.Refuse("interrupted before the next step in the HSM")
}

// asOfficer makes or destroys an object that is stored, and once more in the
// second role where the token wants that.
func (t *Token) asOfficer(do func() error) error {
	err := do()
	if !is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) || t.officer || t.found.cfg.Officer == nil {
		return err
	}
	t.officer = true
	pin, e := t.found.cfg.Officer()
	if e != nil {
		return errors.Join(err, e)
	}
	defer clear(pin)
	var text string // the library asks for one
	secret.Do(func() { text = string(pin) })
	if e := t.ck.Login(t.session, pkcs11.CKU_SO, text); e != nil && !is(e, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return control.HSMPIN.Refuse("the token %s does not accept the secret of its administrator or security officer, which was tried once: %w", control.Quote(t.found.Label), e).
			WithHint("check that secret (--hsm-so-pin-file); an HSM in a network wants a second of rest before the next try")
	}
	return do()
}

// readyToStore asks for the second role, where a token that keeps all it is given wants
// it, by a call that can make nothing: what a key pair is refused with says less.
func (t *Token) readyToStore() error {
	if keeps, err := t.Keeps(); err != nil || !keeps {
		return err
	}
	err := t.asOfficer(t.MakeNothing)
	var refusal *control.Refusal
	if errors.As(err, &refusal) || is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) {
		return failed("make a key", err)
	}
	return nil
}

// MakeNothing asks for a private key without a key: a call that can make nothing, but
// says whether the token takes keys, and in which role.
func (t *Token) MakeNothing() error {
	_, err := t.ck.CreateObject(t.session, template{attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)})
	return err
}

func infoOf(path string, info *pkcs11.TokenInfo) Info {
	return Info{
		Module:       path,
		Manufacturer: filled(info.ManufacturerID),
		Model:        filled(info.Model),
		Label:        filled(info.Label),
		Serial:       told(filled(info.SerialNumber)),
		Firmware:     fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}
}

// told is a serial number; empty for what a module says while it knows none.
func told(serial string) string {
	if strings.EqualFold(serial, "unknown") {
		return ""
	}
	return serial
}

// filled takes off what a field is filled up with: blanks by the standard,
// zeros by tpm2-pkcs11.
func filled(field string) string { return strings.TrimRight(field, " \x00") }
