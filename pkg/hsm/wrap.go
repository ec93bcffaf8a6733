// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/pkg/byok"
	"keyferry/pkg/control"
)

// Result is what a mechanism made of the throw-away key.
type Result string

const (
	Exact  Result = "exact"  // byte for byte what the vault takes
	Flawed Result = "flawed" // something, but not that
	None   Result = "none"   // nothing
)

// Verdict is the outcome of a mechanism's trial.
type Verdict struct {
	Mechanism string `json:"mechanism"` // PKCS#11 name
	ID        string `json:"id"`        // its number, as 0x0000210A
	Result    Result `json:"result"`
	Reason    string `json:"reason,omitempty"` // how it is flawed, or why there is none
}

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
// All objects are session objects and gone when it returns. It makes two RSA
// keys in software, so it is to be called once, not for each key.
func (t *Token) ProveWrap() (proven *ProvenWrap, verdicts []Verdict, err error) {
	trial, err := newWrapTrial(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	if err != nil {
		return nil, nil, err
	}
	return t.proveWrap(trial)
}

// proveWrap is ProveWrap on the keys of trial.
func (t *Token) proveWrap(trial *wrapTrial) (proven *ProvenWrap, verdicts []Verdict, err error) {
	session, err := t.Import(trial.key)
	if err != nil {
		return nil, nil, err
	}
	defer t.destroy(session.handle, &err)
	for _, m := range wrapMechanisms {
		v := Verdict{Mechanism: m.name, ID: fmt.Sprintf("0x%08X", m.id)}
		ciphertext, err := t.wrap(m, session.handle, &trial.kek.PublicKey)
		if err != nil {
			v.Result, v.Reason = None, err.Error()
		} else {
			v.Result, v.Reason = trial.judge(ciphertext)
		}
		if v.Result == Exact && proven == nil {
			proven = &ProvenWrap{token: t, mechanism: m}
		}
		verdicts = append(verdicts, v)
	}
	if proven == nil {
		return nil, verdicts, control.HSMWrapUnproven.Refuse("the token wraps by no mechanism as the vault asks: %s", summary(verdicts))
	}
	return proven, verdicts, nil
}

func summary(verdicts []Verdict) string {
	var parts []string
	for _, v := range verdicts {
		parts = append(parts, fmt.Sprintf("%s %s (%s)", v.Mechanism, v.Result, v.Reason))
	}
	return strings.Join(parts, "; ")
}

// Wrap has the token wrap key under kek, in the layout that byok.Unwrap opens.
func (w *ProvenWrap) Wrap(key *ProvenKey, kek *rsa.PublicKey) ([]byte, error) {
	ciphertext, err := w.token.wrap(w.mechanism, key.session.handle, kek)
	return ciphertext, failed("wrap the key", err)
}

// wrap wraps a private key by m, in one step or in two.
func (t *Token) wrap(m wrapMechanism, key pkcs11.ObjectHandle, kek *rsa.PublicKey) (ciphertext []byte, err error) {
	outer, err := t.ck.CreateObject(t.session, publicTemplate(kek,
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_ENCRYPT, true)))
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
	if err != nil {
		return nil, err
	}
	return append(head, body...), nil
}

// wrapTrial holds the keys on which a mechanism is tried.
type wrapTrial struct {
	key *rsa.PrivateKey // to be thrown away
	der []byte          // key as PKCS#8
	kek *rsa.PrivateKey
}

// newWrapTrial draws a KEK, then keys up to one whose PKCS#8 length is no
// multiple of 8: with any other, a mechanism that pads to whole blocks first
// would pass.
func newWrapTrial(draw func() (*rsa.PrivateKey, error)) (*wrapTrial, error) {
	kek, err := draw()
	if err != nil {
		return nil, err
	}
	for {
		key, err := draw()
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		if len(der)%8 != 0 {
			return &wrapTrial{key: key, der: der, kek: kek}, nil
		}
	}
}

// judge opens what a mechanism made, strictly, and says how it is flawed.
func (w *wrapTrial) judge(ciphertext []byte) (Result, string) {
	key, err := byok.Unwrap(ciphertext, w.kek)
	switch {
	case errors.Is(err, byok.ErrStray):
		return Flawed, w.stray(ciphertext)
	case err != nil:
		return Flawed, err.Error()
	case !key.Equal(w.key):
		return Flawed, "it wraps another key"
	}
	return Exact, ""
}

// stray counts the bytes that follow the PKCS#8 document. byok.Unwrap has
// opened the ciphertext before.
func (w *wrapTrial) stray(ciphertext []byte) string {
	head := w.kek.Size()
	aes, err := rsa.DecryptOAEP(sha1.New(), nil, w.kek, ciphertext[:head], nil)
	if err != nil {
		return err.Error()
	}
	kwp, err := subtle.NewKWP(aes)
	if err != nil {
		return err.Error()
	}
	opened, err := kwp.Unwrap(ciphertext[head:])
	if err != nil {
		return err.Error()
	}
	stray, kind := opened[len(w.der):], "stray"
	if len(bytes.Trim(stray, "\x00")) == 0 {
		kind = "zero"
	}
	return fmt.Sprintf("%d %s bytes follow the PKCS#8 document of %d bytes", len(stray), kind, len(w.der))
}
