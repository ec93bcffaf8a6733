// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
)

// This file says what a token's return values mean for what is done next.

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
