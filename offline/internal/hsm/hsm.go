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
// A token key is found by its label, the key identifier, and by its CKA_ID, the
// SHA-256 of the public key as PKIX DER. The public key object carries both
// too, since crypto11 pairs the halves by them.
//
// # Nothing half done
//
// Each call may fail with nothing done, fail though done, or be the last one
// before the process is killed. The caller writes down that it begins before
// it calls Keep, and that it has finished after; as long as it has begun, it
// calls CheckFree and Keep with Resume, which take up or complete what is there.
// When Keep fails it takes back what it made. A refusal by KF-HSM-LEFTOVER says
// that something may be there still; only after any other one may the
// caller write down that nothing is begun. So there is at most one pair of
// objects under the label and CKA_ID at any time, and never half a pair for
// good. Only two programs that store the same key at the same time can make
// two pairs: CheckAlone tells each of them.
//
// # Libraries
//
// Calls go through miekg/pkcs11; the login is this package's. crypto11 shares
// the session's login and signs bundles. A token that it cannot open, such as
// NSS, does all else.
//
// Tokens that take their settings from the environment get them so: nShield
// wants CKNFAST_LOADSHARING=1 for softcards, CKNFAST_FAKE_ACCELERATOR_LOGIN=1 for
// a PIN on its module-only slot (which has none of its own: leave the PIN empty
// there, or choose the slot by its slot-id), and import in
// CKNFAST_OVERRIDE_SECURITY_ASSURANCES before it takes a private key by
// C_CreateObject.
//
// Key material in Go memory is cleared after use. Where the token takes keys by
// C_UnwrapKey, none crosses into C memory in the clear; C_CreateObject and the
// login leave copies in freed C memory, which neither library lets us clear.
package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// Config says which token to open. What is given of TokenLabel, TokenSerial and
// TokenURI must all fit one token, and only one.
type Config struct {
	Module      string // path of the PKCS#11 module, as by FindModule
	TokenLabel  string
	TokenSerial string
	TokenURI    *URI
	PIN         []byte // the user PIN; the caller clears it after Open. Empty for a PIN pad
	Parameters  string // what the module takes at C_Initialize, such as NSS's configdir=…; usually empty
}

// Info describes a token, in its own words.
type Info struct {
	Module       string `json:"module"` // path
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Firmware     string `json:"firmware"`
}

// Token is an open token with its user logged in. It serves one goroutine.
type Token struct {
	ck      cryptoki
	module  *module
	slot    uint
	session pkcs11.SessionHandle
	found   Slot // as it was before the login

	crypto11  *crypto11.Context // nil where crypto11 can't open the token
	noSigning error             // why it can't

	objects   []object       // the token's keys, once listed
	listed    bool           // whether objects holds
	trial     *trial         // throw-away keys, once drawn
	transport *transportPair // under which keys come in, once made
	ways      []Verdict      // of the first importWays, as far as they were tried
}

// Open logs in to the one token that cfg chooses. The PIN is tried once, and
// only on that token. Refusals, all of class Environment: KF-HSM-MODULE,
// KF-HSM-NO-TOKEN, KF-HSM-TOKEN-LABEL, KF-HSM-TOKEN-TWICE, KF-HSM-PIN,
// KF-HSM-PIN-LOCKED, KF-HSM-CALL. A process can have one Token of a module open
// at a time.
func Open(cfg Config) (*Token, error) {
	m, err := load(cfg.Module, cfg.Parameters)
	if err != nil {
		return nil, err
	}
	slot, info, err := choose(m, &cfg)
	if err == nil {
		err = admit(&info, cfg.PIN)
	}
	if err != nil {
		return nil, errors.Join(err, m.unload())
	}
	t := &Token{ck: m, module: m, slot: slot, found: *slotOf(cfg.Module, slot, &info)}
	if err := t.share(cfg.Parameters); err != nil {
		m.Destroy()
		return nil, err
	}
	if t.session, err = m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
		return nil, errors.Join(failed("open a session", err), t.end())
	}
	if err := t.login(&info, cfg.PIN); err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

// share has crypto11 initialise the module, which it insists on and does
// without parameters. It is to sign, not to log in: so it gets no PIN. Where
// it can't, the token does all but sign.
func (t *Token) share(parameters string) error {
	if parameters != "" {
		t.noSigning = errors.New("the PKCS#11 module takes parameters, which the library that signs cannot hand to it")
		return nil
	}
	if err := t.module.Finalize(); err != nil {
		return failed("finalise the module", err)
	}
	slot := int(t.slot)
	t.crypto11, t.noSigning = crypto11.Configure(&crypto11.Config{
		Path: t.module.path, SlotNumber: &slot, MaxSessions: 2, LoginNotSupported: true,
	})
	if t.noSigning == nil {
		return nil
	}
	return failed("start again without crypto11", t.module.initialize(parameters))
}

// Info describes the token.
func (t *Token) Info() Info { return t.found.Info }

// Close ends the session, with which all session objects end, logs out and
// unloads the module. The Token and what came from it are then of no use.
// Closing again does nothing.
func (t *Token) Close() error {
	if t.ck == nil {
		return nil
	}
	err := failed("close the session", t.ck.CloseSession(t.session))
	t.ck = nil
	return errors.Join(err, t.end())
}

// end unloads the module, by crypto11 if that has initialised it.
func (t *Token) end() error {
	if t.crypto11 == nil {
		return t.module.unload()
	}
	defer t.module.Destroy()
	return failed("log out", t.crypto11.Close())
}

func infoOf(path string, info *pkcs11.TokenInfo) Info {
	return Info{
		Module:       path,
		Manufacturer: filled(info.ManufacturerID),
		Model:        filled(info.Model),
		Label:        filled(info.Label),
		Serial:       filled(info.SerialNumber),
		Firmware:     fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}
}

// filled takes off what a field is filled up with: blanks by the standard,
// zeros by tpm2-pkcs11.
func filled(field string) string { return strings.TrimRight(field, " \x00") }
