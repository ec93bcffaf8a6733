// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rsa"
	"errors"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
)

// cryptoki is the edge to the token: the calls of a [module] that a Token
// makes. Tests put a fake in its place that fails where a real token rarely does.
type cryptoki interface {
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	Login(sh pkcs11.SessionHandle, user uint, pin string) error
	LoginAtPad(pkcs11.SessionHandle) error
	CloseSession(pkcs11.SessionHandle) error

	FindObjectsInit(pkcs11.SessionHandle, template) error
	FindObjects(pkcs11.SessionHandle, int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, template) (template, error)
	SetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, template) error

	CreateObject(pkcs11.SessionHandle, template) (pkcs11.ObjectHandle, error)
	CopyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle, template) (pkcs11.ObjectHandle, error)
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error
	GenerateKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, template) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private template) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	WrapKey(sh pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	WrapKeyInto(sh pkcs11.SessionHandle, mechanism uint, wrapping, key pkcs11.ObjectHandle, size int) ([]byte, error)
	UnwrapKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle, []byte, template) (pkcs11.ObjectHandle, error)

	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	GenerateRandom(pkcs11.SessionHandle, int) ([]byte, error)
}

// drop destroys a session object.
func (t *Token) drop(h pkcs11.ObjectHandle) error {
	delete(t.temporary, h)
	return module.Failed("destroy a session object", t.ck.DestroyObject(t.session, h))
}

// destroy does so at the end of a function: defer t.destroy(h, &err).
func (t *Token) destroy(h pkcs11.ObjectHandle, err *error) {
	if e := t.drop(h); *err == nil {
		*err = e
	}
}

// brief notes a session object, which a list of what is stored leaves out.
func (t *Token) brief(h pkcs11.ObjectHandle, err error) (pkcs11.ObjectHandle, error) {
	if err == nil {
		t.temporary[h] = true
	}
	return h, err
}

// firstOf makes an object by the first template that the token does not decline.
// Tokens disagree on what must stand in a template, and on what must not.
func firstOf(make func(template) (pkcs11.ObjectHandle, error), templates ...template) (h pkcs11.ObjectHandle, err error) {
	for _, asked := range templates {
		if h, err = make(asked); err == nil || !Declines(err) {
			break
		}
	}
	return h, err
}

// without is a template without some attributes.
func without(asked template, types ...uint) template {
	return slices.DeleteFunc(slices.Clone(asked), func(a *pkcs11.Attribute) bool { return slices.Contains(types, a.Type) })
}

// template is what an object is made by or asked for.
type template = []*pkcs11.Attribute

var attr = pkcs11.NewAttribute

// publicTemplate describes an RSA public key as an object.
func publicTemplate(key *rsa.PublicKey, more ...*pkcs11.Attribute) template {
	return append(template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		attr(pkcs11.CKA_MODULUS, key.N.Bytes()),
		attr(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
	}, more...)
}

// oaepParams are those of RSA-OAEP with SHA-1, MGF1-SHA-1 and no source data,
// which the vault asks for. SoftHSM 2.6.1 knows no other.
var oaepParams = pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)

// mechanism is one mechanism for a call.
func mechanism(id uint, params any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(id, params)}
}

func oaep() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_RSA_PKCS_OAEP, oaepParams) }

// What a token's return values mean for what is done next.

// is reports whether a call ended with one of the return values.
func is(err error, codes ...pkcs11.Error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(codes, code)
}

// Declines reports whether a token declined to make an object as the template
// asks, before it did anything: another template may do.
func Declines(err error) bool {
	return is(err, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, module.ActionProhibited)
}

// gone reports whether an object is no longer there.
func gone(err error) bool {
	return is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID)
}

// MayHaveStored reports whether a call that failed may have stored something that a list
// of this run does not show: a NetHSM's module lists once and remembers that, and an
// answer may have been lost.
func (t *Token) MayHaveStored(err error) bool {
	return t.keeps != nil && *t.keeps && is(err, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED)
}
