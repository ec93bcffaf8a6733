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
//	Kept.Remove        the caller's way back
//
// All before Keep works on session objects, which end with the session: a dry
// run stops there and leaves the token as it was.
//
// A token key is found by its label, the key identifier, and by its CKA_ID, the
// SHA-256 of the public key as PKIX DER. The public key object carries both
// too, since crypto11 pairs the halves by them.
//
// crypto11 logs in, holds the login and signs bundles; the calls that it lacks
// (import, wrap, copy) go through miekg/pkcs11 beside it in the same process.
//
// Key material in Go memory is cleared after use. Where the token takes keys by
// C_UnwrapKey, none crosses into C memory in the clear; C_CreateObject and the
// login leave copies in freed C memory, which neither library lets us clear.
package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Config says which token to open.
type Config struct {
	Module     string // path of the PKCS#11 module, as by FindModule
	TokenLabel string
	PIN        []byte // the user PIN; the caller clears it after Open
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
	ck       cryptoki
	session  pkcs11.SessionHandle
	crypto11 *crypto11.Context
	info     Info

	objects   []object       // the token's keys, once listed
	listed    bool           // whether objects holds
	transport *transportPair // under which keys come in, once made
	way       int            // the first of importWays that this token has not declined
	declined  []string       // why it declined those before
}

// Open logs in to the one token with the label. The PIN is tried once, and only
// on that token. Refusals, all of class Environment: KF-HSM-MODULE,
// KF-HSM-NO-TOKEN, KF-HSM-TOKEN-LABEL, KF-HSM-TOKEN-TWICE, KF-HSM-PIN,
// KF-HSM-CALL. A process can have one Token of a module open at a time.
func Open(cfg Config) (*Token, error) {
	if len(cfg.PIN) == 0 {
		// Tokens take no PIN for a wish to be asked at a keypad of their own.
		return nil, control.HSMPIN.Refuse("the PIN for token %s is empty", control.Quote(cfg.TokenLabel))
	}
	var slot uint
	var info pkcs11.TokenInfo
	// crypto11 insists on initialising the module itself and takes the first
	// token that fits, so the choice is made in a visit of its own before.
	err := visit(cfg.Module, func(ctx *pkcs11.Ctx) (err error) {
		slot, info, err = findToken(ctx, cfg.TokenLabel)
		return err
	})
	if err != nil {
		return nil, err
	}
	slotNumber := int(slot)
	config := &crypto11.Config{Path: cfg.Module, SlotNumber: &slotNumber, Pin: string(cfg.PIN), MaxSessions: 2}
	login, err := crypto11.Configure(config)
	config.Pin = "" // crypto11 keeps config
	if err != nil {
		return nil, loginRefusal(cfg.TokenLabel, err)
	}
	ctx := pkcs11.New(cfg.Module)
	if ctx == nil {
		return nil, errors.Join(moduleRefusal(cfg.Module), login.Close())
	}
	session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		ctx.Destroy()
		return nil, errors.Join(failed("open a session", err), login.Close())
	}
	return &Token{ck: ctx, session: session, crypto11: login, info: Info{
		Module:       cfg.Module,
		Manufacturer: info.ManufacturerID,
		Model:        info.Model,
		Label:        info.Label,
		Serial:       info.SerialNumber,
		Firmware:     fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}}, nil
}

// Info describes the token.
func (t *Token) Info() Info { return t.info }

// Close ends the session, with which all session objects end, logs out and
// unloads the module. The Token and what came from it are then of no use.
// Closing again does nothing.
func (t *Token) Close() error {
	if t.ck == nil {
		return nil
	}
	err := failed("close the session", t.ck.CloseSession(t.session))
	// crypto11 last: its Close finalises the module for everybody.
	err = errors.Join(err, failed("log out", t.crypto11.Close()))
	t.ck.Destroy()
	t.ck = nil
	return err
}

// findToken finds the one initialised token with the label.
func findToken(ck cryptoki, label string) (slot uint, info pkcs11.TokenInfo, err error) {
	slots, err := ck.GetSlotList(true)
	if err != nil {
		return 0, info, failed("list its slots", err)
	}
	var labels []string
	matches := 0
	for _, s := range slots {
		i, err := ck.GetTokenInfo(s)
		if err != nil {
			return 0, info, failed("describe a token", err)
		}
		if i.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		labels = append(labels, control.Quote(i.Label))
		if i.Label == label {
			slot, info = s, i
			matches++
		}
	}
	switch {
	case len(labels) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module has no initialised token in its %d slots", len(slots))
	case matches == 0:
		return 0, info, control.HSMTokenLabel.Refuse("no token is labelled %s; there are: %s", control.Quote(label), strings.Join(labels, ", "))
	case matches > 1:
		return 0, info, control.HSMTokenTwice.Refuse("%d tokens are labelled %s", matches, control.Quote(label))
	}
	return slot, info, nil
}

// pinErrors are the answers to a login that mean the PIN, not the token.
var pinErrors = []pkcs11.Error{
	pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
	pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED,
}

// loginRefusal tells a wrong PIN from a token that cannot be used.
func loginRefusal(label string, err error) error {
	answer := err
	// crypto11's errors are of a time before Unwrap.
	for c, ok := answer.(interface{ Cause() error }); ok; c, ok = answer.(interface{ Cause() error }) {
		answer = c.Cause()
	}
	if code, ok := answer.(pkcs11.Error); ok && slices.Contains(pinErrors, code) {
		return control.HSMPIN.Refuse("token %s does not accept the PIN, which was tried once: %w", control.Quote(label), code)
	}
	return failed("log in", answer)
}
