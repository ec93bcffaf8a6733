// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// ProvenWrap is a wrap mechanism that has been shown to be exact on this token.
// Only [Token.ProveWrap] makes one.
type ProvenWrap struct {
	token     *Token
	mechanism wrapMechanism
}

// Mechanism is the PKCS#11 name of the mechanism.
func (w *ProvenWrap) Mechanism() string { return w.mechanism.name }

// ProveWrap tries every wrap mechanism on a throw-away key, under a KEK whose
// private half it holds itself, and opens each result as strictly as the vault:
// the token makes the AES key, so nothing can be said of what it wraps
// otherwise. It returns the first mechanism that is exact and all verdicts;
// with none, KF-HSM-WRAP-UNPROVEN beside the verdicts.
//
// All objects are session objects and gone when it returns. It is to be called
// once, not for each key. A token that keeps all it is given is not tried.
func (t *Token) ProveWrap() (proven *ProvenWrap, verdicts []Verdict, err error) {
	keeps, err := t.Keeps()
	if err != nil {
		return nil, nil, err
	}
	if keeps {
		return nil, untried(nothingLeaves), control.HSMWrapUnproven.Refuse("the token %s %s", control.Quote(t.chosen.Label), nothingLeaves).
			WithHint("choose --wrap software: the key is wrapped at the moment of its import, which the ceremony records")
	}
	trial, err := t.trialKeys()
	if err != nil {
		return nil, nil, err
	}
	session, err := t.Import(trial.key)
	if control.Is(err, control.HSMImport) {
		return nil, untried("no key came in to try it on"), err
	}
	if err != nil {
		return nil, nil, err
	}
	defer t.destroy(session.handle, &err)
	for _, m := range wrapMechanisms {
		t.next("wrap a throw-away key by " + m.name)
		v := Verdict{Mechanism: m.name, ID: m.number(), Result: None}
		ciphertext, err := t.wrap(m, session.handle, &trial.kek.PublicKey)
		if err == nil {
			v.Result, err = Flawed, trial.judge(ciphertext)
		}
		v.Judged(err)
		if v.Result == Exact && proven == nil {
			proven = &ProvenWrap{token: t, mechanism: m}
		}
		verdicts = append(verdicts, v)
	}
	if proven == nil {
		return nil, verdicts, control.HSMWrapUnproven.Refuse("the token wraps by no mechanism as the vault asks:%w", reasonsOf(verdicts))
	}
	return proven, verdicts, nil
}

// nothingLeaves says why no key goes out of a token that keeps all it is given.
const nothingLeaves = "keeps all it is given, the KEK included, and can't be shown to wrap without storing more than the key: here a key goes out in software"

// untried are the verdicts where no mechanism can be tried.
func untried(reason string) (verdicts []Verdict) {
	for _, m := range wrapMechanisms {
		verdicts = append(verdicts, Verdict{Mechanism: m.name, ID: m.number(), Result: None, Reason: reason})
	}
	return verdicts
}

// Wrap has the token wrap key under kek, in the layout that byok.Unwrap opens.
func (w *ProvenWrap) Wrap(key *ProvenKey, kek *rsa.PublicKey) ([]byte, error) {
	ciphertext, err := w.token.wrap(w.mechanism, key.handle, kek)
	return ciphertext, module.Failed("wrap the key", err)
}

// wrap wraps a private key by m, in one step or in two.
func (t *Token) wrap(m wrapMechanism, key pkcs11.ObjectHandle, kek *rsa.PublicKey) (ciphertext []byte, err error) {
	asked := publicTemplate(kek, attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_ENCRYPT, true))
	outer, err := t.brief(firstOf(func(asked template) (pkcs11.ObjectHandle, error) { return t.ck.CreateObject(t.session, asked) },
		asked, append(slices.Clone(asked), attr(pkcs11.CKA_PRIVATE, true))))
	if err != nil {
		return nil, fmt.Errorf("bring the KEK in: %w", err)
	}
	defer t.destroy(outer, &err)
	if m.oneStep() {
		return t.ck.WrapKey(t.session, m.call(), outer, key)
	}
	aes, err := t.ck.GenerateKey(t.session, mechanism(pkcs11.CKM_AES_KEY_GEN, nil), template{
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_VALUE_LEN, 32),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, true), // the KEK is to wrap it
		attr(pkcs11.CKA_WRAP, true),
	})
	if err != nil {
		return nil, fmt.Errorf("make an AES key: %w", err)
	}
	defer t.destroy(aes, &err)
	head, err := t.ck.WrapKey(t.session, oaep(), outer, aes)
	if err != nil {
		return nil, fmt.Errorf("wrap the AES key under the KEK: %w", err)
	}
	body, err := t.ck.WrapKey(t.session, m.call(), aes, key)
	if is(err, pkcs11.CKR_BUFFER_TOO_SMALL) { // NSS asks for 8 bytes too few when it is asked for the length
		const enough = 8 << 10 // a wrapped RSA-4096 key takes some 2.4 KiB
		body, err = t.ck.WrapKeyInto(t.session, m.id, aes, key, enough)
	}
	if err != nil {
		return nil, err
	}
	return append(head, body...), nil
}
