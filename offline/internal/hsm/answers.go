// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// This file says what a token's return values mean for the person who reads
// them. Modules disagree on many; the standard's meaning comes first.

// is reports whether a call ended with one of the return values.
func is(err error, codes ...pkcs11.Error) bool {
	var code pkcs11.Error
	return errors.As(err, &code) && slices.Contains(codes, code)
}

// actionProhibited is CKR_ACTION_PROHIBITED of PKCS#11 2.40, functionRejected CKR_FUNCTION_REJECTED.
const (
	actionProhibited = 0x1B
	functionRejected = 0x200
)

// Declines reports whether a token declined to make an object as the template
// asks, before it did anything: another template may do.
func Declines(err error) bool {
	return is(err, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_ATTRIBUTE_TYPE_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_TEMPLATE_INCOMPLETE, pkcs11.CKR_TEMPLATE_INCONSISTENT, actionProhibited)
}

// gone reports whether an object is no longer there.
func gone(err error) bool {
	return is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID)
}

// hidden reports whether a call that failed may have stored something that a list
// of this run does not show: a NetHSM's module lists once and remembers that, and an
// answer may have been lost.
func (t *Token) hidden(err error) bool {
	return t.keeps != nil && *t.keeps && is(err, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED)
}

// hints say what to do about a return value, where there is more to say than
// that the HSM should be looked at.
var hints = map[pkcs11.Error]string{
	pkcs11.CKR_SESSION_COUNT: "all sessions of the HSM are taken: end the other programs that use it, or wait half a minute until the HSM drops the sessions of programs that were killed, then run the same command again",
	pkcs11.CKR_DEVICE_MEMORY: "the HSM's storage is full, or the domain or partition has no room left: remove what is no longer needed with the HSM's own tools, then run the same command again",
	pkcs11.CKR_USER_NOT_LOGGED_IN: "the HSM wants another role for this: give the secret of its administrator or security officer by --hsm-so-pin-file, or let the HSM's own configuration hold it; " +
		"a NetHSM wants the passphrase of a user of the role Administrator",
	functionRejected: "the user that logged in lacks a capability for this; on a YubiHSM 2 the authentication key needs put-asymmetric-key, generate-asymmetric-key, delete-asymmetric-key, put-opaque, get-opaque, " +
		"delete-opaque, sign-pkcs, sign-ecdsa and decrypt-oaep, as its own capabilities and as delegated ones",
	pkcs11.CKR_PIN_EXPIRED:    "change the PIN with the HSM's own tools first, then run the same command again",
	pkcs11.CKR_DEVICE_REMOVED: "see that the HSM is connected and that its service runs (a YubiHSM's connector, a NetHSM's address), then run the same command again",
}

// failed is the refusal of a call that the token did not carry out; nil for nil.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if refusal, told := err.(*control.Refusal); told { // it says more
		return refusal
	}
	refusal := control.HSMCall.Refuse("the token failed to %s: %w", what, err)
	var code pkcs11.Error
	if errors.As(err, &code) && hints[code] != "" {
		refusal.WithHint("%s", hints[code])
	}
	return refusal
}
