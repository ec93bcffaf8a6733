// SPDX-License-Identifier: Apache-2.0

// Package probe has an open token show what it can do, before the day: each way in and
// out, on throw-away keys, as an import makes its proof.
package probe

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/signer"
	"keyferry/pkg/control"
)

// Report is what a token says of itself, and what it was shown to do.
type Report struct {
	Library    module.Library     `json:"module"`
	Token      module.Slot        `json:"token"`
	Mechanisms []module.Mechanism `json:"mechanisms"` // as it says
	Imports    []hsm.Verdict      `json:"imports"`    // in the order in which an import prefers them
	Wraps      []hsm.Verdict      `json:"wraps"`      // likewise
	Uses       []hsm.Verdict      `json:"uses"`       // of an imported key, and random numbers
	NoSigner   string             `json:"no_signer"`  // why bundles can't be signed in the token
	Keeps      bool               `json:"keeps"`      // it keeps all it is given: it has no session objects
	Unproven   []string           `json:"unproven"`   // what was not tried, since it would store something
}

// Run makes the report. Nothing is stored, but by leave on a token that keeps all it is
// given: one throw-away key, and another for the signer, each removed again. What
// the token can't do is a verdict, not an error.
func Run(t *hsm.Token, mayStore bool) (report *Report, err error) {
	report = &Report{Token: t.Chosen().Slot, Unproven: []string{}}
	if report.Library, report.Mechanisms, err = t.Chosen().Describe(report.Token.ID); err != nil {
		return nil, err
	}
	if report.Keeps, err = t.Keeps(); err != nil {
		return nil, err
	}
	switch {
	case report.Keeps && mayStore:
		err = report.byStoring(t)
	case report.Keeps:
		err = report.byWord(t)
	default:
		report.Imports, report.Wraps, report.Uses, err = t.TryAll()
	}
	if err != nil {
		return nil, err
	}
	signerStored := report.Keeps
	if !signerStored {
		err = signer.Try(t, false)
		signerStored = hsm.Declines(err) // it makes no pair for a session
	}
	if signerStored && mayStore {
		err = signer.Try(t, true)
	}
	switch {
	case control.Is(err, control.HSMLeftover), control.Is(err, control.Interrupted):
		return nil, err
	case signerStored && !mayStore:
		report.Unproven = append(report.Unproven, "that the signing key can be made in the token and signs")
	case err != nil:
		report.NoSigner = err.Error()
	}
	report.Uses = append(report.Uses, t.Random())
	return report, t.CheckUnchanged()
}

// byWord fills in what can be said of a token that keeps all it is given, without
// storing anything.
func (r *Report) byWord(t *hsm.Token) error {
	const reason = "not tried: the token keeps all it is given"
	r.Imports = []hsm.Verdict{{Mechanism: hsm.StoredWay, Result: hsm.Unproven, Reason: reason}}
	r.Wraps, r.Uses = hsm.Untried(hsm.Unproven, reason)
	r.Unproven = []string{"that a private key comes in, is named, is protected, signs and decrypts, and can be removed again"}
	switch err := t.MakeNothing(); {
	case slices.ContainsFunc(unreachable, func(code pkcs11.Error) bool { return errors.Is(err, code) }):
		return control.HSMCall.Refuse("the token does not say whether it takes a key in: %w", err)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)):
		r.Imports[0].Result, r.Imports[0].Reason = hsm.None, err.Error()
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)):
		r.Unproven = append(r.Unproven, "that the secret of its administrator, which it wants for making and destroying keys, is right (--hsm-so-pin-file)")
	}
	return nil
}

// unreachable are answers that say nothing of the token, but that the module does not reach it.
var unreachable = []pkcs11.Error{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED}

// byStoring proves what byWord leaves open, on a key that is stored for it.
func (r *Report) byStoring(t *hsm.Token) error {
	verdict, err := t.TryStore()
	if control.Is(err, control.HSMLeftover) || control.Is(err, control.Interrupted) || control.Is(err, control.HSMPIN) || errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)) {
		return err
	}
	r.Imports = []hsm.Verdict{verdict}
	if verdict.Result != hsm.Exact {
		r.Wraps, r.Uses = hsm.Untried(hsm.None, hsm.NoKey)
		return nil
	}
	r.Wraps, _ = hsm.Untried(hsm.None, hsm.NothingLeaves)
	_, r.Uses = hsm.Untried(hsm.Exact, "")
	return nil
}

// Storable reports why a key that comes in can't be stored; empty if it can.
func (r *Report) Storable() string {
	for _, v := range r.Uses {
		if v.Mechanism == hsm.KeepUse && v.Result == hsm.None && v.Reason != hsm.NoKey {
			return v.Reason
		}
	}
	return ""
}
