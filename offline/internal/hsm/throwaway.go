// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// throwAwayPrefix heads the label of a key that is stored for a trial. What follows
// is the head of its own KeyID, so that a key that a run has left can be told for
// certain: nobody labels another key so.
const throwAwayPrefix = "keyferry-throw-away-"

// throwAwaySigner labels a signing key that is made for a trial.
const throwAwaySigner = throwAwayPrefix + "signer"

func throwAway(public *rsa.PublicKey) string {
	return throwAwayPrefix + hex.EncodeToString(KeyID(public)[:8])
}

// Sweep removes the throw-away keys that an earlier run has left, and returns how
// many. It changes nothing else.
func (t *Token) Sweep() (swept int, err error) {
	if err := t.list(); err != nil {
		return 0, err
	}
	var left []object
	for _, o := range t.objects { // the private ones first: the other half may go with them
		if !strings.HasPrefix(o.label, throwAwayPrefix) || o.class == pkcs11.CKO_SECRET_KEY {
			continue
		}
		if o.label == throwAwaySigner {
			left = append(left, o)
			continue
		}
		public, err := t.publicKey(o.handle)
		if err == nil && (public.E == 0 || o.label == throwAway(public)) {
			public.E = 65537 // of any throw-away key, where the token does not tell it
			if o.label == throwAway(public) {
				left = append(left, o)
			}
		}
	}
	if len(left) == 0 {
		return 0, nil
	}
	t.next("remove what an earlier run has left")
	if err := t.remove(left); err != nil {
		return 0, err
	}
	t.listed = false
	return len(left), t.list()
}

// TryStore brings a throw-away key into a token that keeps all it is given, by the
// way that Store takes, and removes it again: name, proof, public half, removal.
func (t *Token) TryStore() (verdict Verdict, err error) {
	verdict = Verdict{Mechanism: storedWay, Result: None}
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
		verdict.Reason = err.Error()
		var refusal *control.Refusal
		if errors.As(err, &refusal) && refusal.Hint != refusal.Control.Hint {
			verdict.Reason += ": " + refusal.Hint
		}
		return verdict, err
	}
	if err := errors.Join(kept.Remove(), t.CheckUnchanged()); err != nil {
		return verdict, control.HSMLeftover.Refuse("the throw-away key %s was stored for the trial and can't be removed: %w", kept.Label, err).
			WithHint("the next run removes it; or remove it with the HSM's own tools: nothing needs it")
	}
	verdict.Result = Exact
	return verdict, nil
}
