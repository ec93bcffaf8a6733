// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// throwAwayPrefix heads the label of a key that is stored for a trial. What follows
// is the head of its own KeyID, so that a key that a run has left can be told for
// certain: nobody labels another key so.
const throwAwayPrefix = "keyferry-throw-away-"

// ThrowAwaySigner labels a signing key that is made for a trial.
const ThrowAwaySigner = throwAwayPrefix + "signer"

func throwAway(public *rsa.PublicKey) string {
	return throwAwayPrefix + hex.EncodeToString(KeyID(public)[:8])
}

// Sweep removes the throw-away keys that an earlier run has left, and returns how
// many. It changes nothing else.
func (t *Token) Sweep() (swept int, err error) {
	if err := t.list(); err != nil {
		return 0, err
	}
	var left []Object
	for _, o := range t.objects { // the private ones first: the other half may go with them
		if !strings.HasPrefix(o.Label, throwAwayPrefix) || o.Class == pkcs11.CKO_SECRET_KEY {
			continue
		}
		if o.Label == ThrowAwaySigner {
			left = append(left, o)
			continue
		}
		public, err := t.PublicKey(o.Handle)
		if err == nil && (public.E == 0 || o.Label == throwAway(public)) {
			public.E = 65537 // of any throw-away key, where the token does not tell it
			if o.Label == throwAway(public) {
				left = append(left, o)
			}
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	t.next("remove what an earlier run has left")
	if err := t.Destroy(left); err != nil {
		return 0, err
	}
	t.listed = false
	return len(left), t.list()
}

// TryStore brings a throw-away key into a token that keeps all it is given, by the
// way that Store takes, and removes it again: name, proof, public half, removal.
func (t *Token) TryStore() (verdict Verdict, err error) {
	verdict = Verdict{Mechanism: StoredWay, Result: None}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return verdict, err
	}
	kept, err := t.Store(key, &key.PublicKey, KeepOptions{Label: throwAway(&key.PublicKey)})
	switch {
	case control.Is(err, control.HSMLeftover), control.Is(err, control.Interrupted):
		return verdict, err
	case control.Is(err, control.HSMAttributes), control.Is(err, control.HSMPossession):
		verdict.Result, verdict.Reason = Flawed, err.Error()
		return verdict, nil
	case err != nil:
		verdict.Reason, verdict.cause = err.Error(), err
		return verdict, err
	}
	if err := errors.Join(kept.Remove(), t.CheckUnchanged()); err != nil {
		hint := "the next run removes it; or remove it with the HSM's own tools: nothing needs it"
		if is(err, module.FunctionRejected) {
			hint += ". " + module.Hint(err)
		}
		return verdict, control.HSMLeftover.Refuse("the throw-away key %s was stored for the trial and can't be removed: %w", kept.Label, err).WithHint("%s", hint)
	}
	verdict.Result = Exact
	return verdict, nil
}

// What a key that came in is used for, as verdicts name it.
const (
	SignUse    = "C_Sign, PKCS#1 v1.5 with SHA-256"
	DecryptUse = "C_Decrypt, OAEP with SHA-1"
	KeepUse    = "storing: copy, name, public half, removal"
)

// Untried are the verdicts of the mechanisms out and of the uses where none was tried.
func Untried(result Result, reason string) (wraps, uses []Verdict) {
	for _, m := range wrapMechanisms {
		wraps = append(wraps, Verdict{Mechanism: m.name, ID: m.number(), Result: result, Reason: reason})
	}
	for _, use := range []string{SignUse, DecryptUse, KeepUse} {
		uses = append(uses, Verdict{Mechanism: use, Result: result, Reason: reason})
	}
	return wraps, uses
}

// NoKey is the reason where no key came in that could be tried.
const NoKey = "no key came in to try it on"

// TryAll has a token with session objects do with a throw-away key all that an import
// does: each way in, each mechanism out, storing. Nothing is stored. What the token
// can't do is a verdict, not an error.
func (t *Token) TryAll() (imports, wraps, uses []Verdict, err error) {
	for i := range importWays {
		if _, err := t.proveWay(i); err != nil {
			return nil, nil, nil, err
		}
	}
	imports = slices.Clone(t.ways) // Import forgets them if all fail
	session, err := t.Import(t.trial.key)
	if control.Is(err, control.HSMImport) {
		wraps, uses = Untried(None, NoKey)
		return imports, wraps, uses, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	defer t.destroy(session.handle, &err)
	_, wraps = t.tryWraps(session.handle)
	_, uses = Untried(Exact, "") // the way in has shown that it signs and decrypts
	proven := &ProvenKey{token: t, handle: session.handle, public: &t.trial.key.PublicKey, session: session}
	if err := proven.RehearseKeep(false); err != nil {
		uses[2].Result, uses[2].Reason = None, err.Error()
	}
	return imports, wraps, uses, nil
}

// Random draws random numbers twice.
func (t *Token) Random() Verdict {
	v := Verdict{Mechanism: "C_GenerateRandom", Result: Exact}
	var draws [2][]byte
	for i := range draws {
		var err error
		if draws[i], err = t.ck.GenerateRandom(t.session, 32); err != nil {
			v.Result, v.Reason = None, err.Error()
			return v
		}
	}
	if len(draws[0]) != 32 || bytes.Equal(draws[0], draws[1]) {
		v.Result, v.Reason = Flawed, fmt.Sprintf("two draws of 32 bytes gave %d bytes, the same ones: %t", len(draws[0]), bytes.Equal(draws[0], draws[1]))
	}
	return v
}
