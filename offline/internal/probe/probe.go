// SPDX-License-Identifier: Apache-2.0

// Package probe has an open token show what it can do, before the day: each way in and
// out, on throw-away keys, as an import makes its proof.
package probe

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
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
	Nameless   []string           `json:"nameless"`   // stored keys that tell neither label nor CKA_ID

	Storable error `json:"-"` // why a key that comes in can't be stored
}

// Run makes the report. Nothing is stored, but by leave: one throw-away key and, on a token
// that keeps all it is given, another for the signer, each removed again. What the
// token can't do is a verdict, not an error.
func Run(t *hsm.Token, mayStore bool) (report *Report, err error) {
	report = &Report{Token: t.Chosen().Slot, Unproven: []string{}, Nameless: []string{}}
	if report.Library, report.Mechanisms, err = t.Chosen().Describe(report.Token.ID); err != nil {
		return nil, err
	}
	if report.Keeps, err = t.Keeps(); err != nil {
		return nil, err
	}
	all, err := t.Objects()
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.Label == "" && len(o.ID) == 0 {
			report.Nameless = append(report.Nameless, o.String())
		}
	}
	switch {
	case report.Keeps && mayStore:
		err = report.byStoring(t)
	case report.Keeps:
		err = report.byWord(t)
	default:
		err = report.inSession(t, mayStore)
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
	report.Uses = append(report.Uses, random(t))
	return report, t.CheckUnchanged()
}

// inSession has a token with session objects do with a throw-away key all that an
// import does; by leave it stores one as well.
func (r *Report) inSession(t *hsm.Token, mayStore bool) (err error) {
	if r.Imports, err = t.ProveWays(); err != nil {
		return err
	}
	_, r.Wraps, err = t.ProveWrap()
	if control.Is(err, control.HSMImport) {
		r.uses(hsm.None, noKey)
		return nil
	}
	if err != nil && !control.Is(err, control.HSMWrapUnproven) {
		return err
	}
	key, err := t.ThrowAwayKey()
	if err != nil {
		return err
	}
	session, err := t.Import(key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Destroy()) }()
	proven, err := session.Prove(&key.PublicKey)
	if err != nil {
		return err
	}
	r.uses(hsm.Exact, "")
	if r.Storable = proven.RehearseKeep(false); r.Storable == nil && mayStore {
		r.Storable = TryStore(t)
	}
	if control.Is(r.Storable, control.HSMLeftover) || control.Is(r.Storable, control.Interrupted) {
		return r.Storable
	}
	if r.Storable != nil {
		r.Uses[2].Result = hsm.None
		r.Uses[2].Judged(r.Storable)
	}
	return nil
}

// byWord fills in what can be said of a token that keeps all it is given, without
// storing anything.
func (r *Report) byWord(t *hsm.Token) (err error) {
	const reason = "not tried: the token keeps all it is given"
	r.Imports = []hsm.Verdict{{Mechanism: hsm.StoredWay, Result: hsm.Unproven, Reason: reason}}
	if _, r.Wraps, err = t.ProveWrap(); !control.Is(err, control.HSMWrapUnproven) {
		return err
	}
	for i := range r.Wraps {
		r.Wraps[i].Result, r.Wraps[i].Reason = hsm.Unproven, reason
	}
	r.uses(hsm.Unproven, reason)
	r.Unproven = []string{"that a private key comes in, is named, is protected, signs and decrypts, and can be removed again"}
	switch err := t.MakeNothing(); {
	case slices.ContainsFunc(unreachable, func(code pkcs11.Error) bool { return errors.Is(err, code) }):
		return module.Failed("say whether it takes a key in", err)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)):
		r.Imports[0].Result = hsm.None
		r.Imports[0].Judged(err)
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)):
		r.Unproven = append(r.Unproven, "that the secret of its administrator, which it wants for making and destroying keys, is right (--hsm-so-pin-file)")
	}
	return nil
}

// unreachable are answers that say nothing of the token, but that the module does not reach it.
var unreachable = []pkcs11.Error{pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED}

// byStoring proves what byWord leaves open, on a key that is stored for it.
func (r *Report) byStoring(t *hsm.Token) error {
	err := TryStore(t)
	if control.Is(err, control.HSMLeftover) || control.Is(err, control.Interrupted) || control.Is(err, control.HSMPIN) || errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)) {
		return err
	}
	verdict := hsm.Verdict{Mechanism: hsm.StoredWay, Result: hsm.None}
	if control.Is(err, control.HSMAttributes) || control.Is(err, control.HSMPossession) {
		verdict.Result = hsm.Flawed
	}
	verdict.Judged(err)
	r.Imports = []hsm.Verdict{verdict}
	if _, r.Wraps, err = t.ProveWrap(); !control.Is(err, control.HSMWrapUnproven) {
		return err
	}
	if verdict.Result == hsm.Exact {
		r.uses(hsm.Exact, "")
		return nil
	}
	for i := range r.Wraps {
		r.Wraps[i].Reason = noKey
	}
	r.uses(hsm.None, noKey)
	return nil
}

// noKey is the reason where no key came in that could be tried.
const noKey = "no key came in to try it on"

// uses fills in one verdict on all that an imported key is used for.
func (r *Report) uses(result hsm.Result, reason string) {
	for _, use := range []string{"C_Sign, PKCS#1 v1.5 with SHA-256", "C_Decrypt, OAEP with SHA-1", "storing: copy, name, public half, removal"} {
		r.Uses = append(r.Uses, hsm.Verdict{Mechanism: use, Result: result, Reason: reason})
	}
}

// TryStore stores a throw-away key by the way that an import takes, and removes it again:
// name, proof, public half, removal.
func TryStore(t *hsm.Token) error {
	key, err := t.ThrowAwayKey()
	if err != nil {
		return err
	}
	label := hsm.ThrowAway(&key.PublicKey)
	kept, err := store(t, key, hsm.KeepOptions{Label: label})
	if err != nil {
		return err
	}
	if err := errors.Join(kept.Remove(), t.CheckUnchanged()); err != nil {
		hint := "the next run removes it; or remove it with the HSM's own tools: nothing needs it"
		if errors.Is(err, module.FunctionRejected) {
			hint += ". " + module.Hint(err)
		}
		return control.HSMLeftover.Refuse("the throw-away key %s was stored for the trial and can't be removed: %w", label, err).WithHint("%s", hint)
	}
	return nil
}

// store stores a key as an import does, on a token of either kind.
func store(t *hsm.Token, key *rsa.PrivateKey, o hsm.KeepOptions) (kept *hsm.Kept, err error) {
	if keeps, err := t.Keeps(); err != nil || keeps {
		return t.Store(key, &key.PublicKey, o)
	}
	session, err := t.Import(key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Destroy()) }()
	proven, err := session.Prove(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return proven.Keep(o)
}

// random has a token draw random numbers twice.
func random(t *hsm.Token) hsm.Verdict {
	v := hsm.Verdict{Mechanism: "C_GenerateRandom", Result: hsm.Exact}
	var draws [2][]byte
	for i := range draws {
		var err error
		if draws[i], err = t.Random(32); err != nil {
			v.Result, v.Reason = hsm.None, err.Error()
			return v
		}
	}
	if len(draws[0]) != 32 || bytes.Equal(draws[0], draws[1]) {
		v.Result, v.Reason = hsm.Flawed, fmt.Sprintf("two draws of 32 bytes gave %d bytes, the same ones: %t", len(draws[0]), bytes.Equal(draws[0], draws[1]))
	}
	return v
}
