// SPDX-License-Identifier: Apache-2.0

package module

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// This file says to the person who reads them what a token's return values mean.
// Modules disagree on many; the standard's meaning comes first.

// Return values of PKCS#11 that miekg/pkcs11 does not name: the first is of 2.40.
const (
	ActionProhibited = pkcs11.Error(0x1B)
	FunctionRejected = pkcs11.Error(0x200)
)

// hints say what to do about a return value, where there is more to say than
// that the HSM should be looked at.
var hints = map[pkcs11.Error]string{
	pkcs11.CKR_SESSION_COUNT: "all sessions of the HSM are taken: end the other programs that use it, or wait half a minute until the HSM drops the sessions of programs that were killed, then run the same command again",
	pkcs11.CKR_DEVICE_MEMORY: "the HSM's storage is full, or the domain or partition has no room left: remove what is no longer needed with the HSM's own tools, then run the same command again",
	pkcs11.CKR_USER_NOT_LOGGED_IN: "the HSM wants another role for this: give the secret of its administrator or security officer by --hsm-so-pin-file, or let the HSM's own configuration hold it; " +
		"a NetHSM wants the passphrase of a user of the role Administrator",
	FunctionRejected: "the user that logged in lacks a capability for this; on a YubiHSM 2 the authentication key needs put-asymmetric-key, generate-asymmetric-key, delete-asymmetric-key, put-opaque, get-opaque, " +
		"delete-opaque, sign-pkcs, sign-ecdsa and decrypt-oaep, as its own capabilities and as delegated ones",
	pkcs11.CKR_PIN_EXPIRED:                    "change the PIN with the HSM's own tools first, then run the same command again",
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: "another role is logged in to the token, by another program: end that, then run the same command again",
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:          "the token or the partition is write-protected: allow writing with the HSM's own tools, then run the same command again",
	pkcs11.CKR_DEVICE_REMOVED:                 "see that the HSM is connected and that its service runs (a YubiHSM's connector, a NetHSM's address), then run the same command again",
}

// Hint says what to do about a call that failed, if there is more to say than that the
// HSM should be looked at.
func Hint(err error) string {
	var code pkcs11.Error
	errors.As(err, &code)
	return hints[code]
}

// Reasons say why each of several things can't be done.
type Reasons []Reason

type Reason struct {
	What string
	Why  error
}

// Error is a table: each reason once, with what it stops.
func (rs Reasons) Error() string {
	var reasons []string
	stopped := map[string][]string{}
	for _, r := range rs {
		why := r.Why.Error()
		if stopped[why] == nil {
			reasons = append(reasons, why)
		}
		stopped[why] = append(stopped[why], r.What)
	}
	var table strings.Builder
	for _, why := range reasons {
		fmt.Fprintf(&table, "\n  %s:\n    %s", why, strings.Join(stopped[why], "\n    "))
	}
	return table.String()
}

// Is has errors.Is find the tokens' answers among the reasons.
func (rs Reasons) Is(target error) bool {
	code, is := target.(pkcs11.Error)
	return is && slices.ContainsFunc(rs, func(r Reason) bool { return errors.Is(r.Why, code) })
}

// Hint is the first that an answer has.
func (rs Reasons) Hint() (hint string) {
	for _, r := range rs {
		hint = cmp.Or(hint, Hint(r.Why))
	}
	return hint
}

// Failed is the refusal of a call that the token did not carry out; nil for nil.
func Failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if refusal, told := err.(*control.Refusal); told { // it says more
		return refusal
	}
	refusal := control.HSMCall.Refuse("the token failed to %s: %w", what, err)
	if hint := Hint(err); hint != "" {
		refusal.WithHint("%s", hint)
	}
	return refusal
}

// logins are the return values of C_Login that are about the PIN. Without a hint of its
// own, the form of the PIN is the hint where none was tried.
var logins = map[pkcs11.Error]struct {
	says, hint string
	tried      bool
}{
	pkcs11.CKR_PIN_INCORRECT: {"does not accept the PIN, which was tried once", "", true},
	pkcs11.CKR_PIN_LOCKED:    {"", "", true},
	pkcs11.CKR_USER_TYPE_INVALID: {"does not accept the PIN, which was tried once: the PIN, the user's name or the device's state is not right", // a NetHSM says nothing more
		"check the passphrase and the user's name in the module's configuration, and that the HSM is provisioned and unlocked (its state is Operational); wait a second before the next try, since it answers none sooner", true},
	pkcs11.CKR_PIN_EXPIRED:              {"says that its user PIN has expired", "change the PIN with the HSM's own tools first", false},
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: {"has no user PIN yet", "the HSM's security officer sets the user PIN first, with the HSM's own tools", false},
	pkcs11.CKR_PIN_LEN_RANGE:            {"takes no PIN of this form, and tried none", "", false},
	pkcs11.CKR_PIN_INVALID:              {"takes no PIN of this form, and tried none", "", false},
	pkcs11.CKR_ARGUMENTS_BAD:            {"takes no PIN of this form, and tried none", "", false},
	pkcs11.CKR_OBJECT_HANDLE_INVALID:    {"has no authentication key of the number that the PIN begins with, and tried none", "", false},
}

// LoginFailed is the refusal of a login, with what the token tells of it afterwards.
func (s Slot) LoginFailed(ck interface {
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
}, err error) error {
	var code pkcs11.Error
	errors.As(err, &code)
	refused, known := logins[code]
	if !known {
		return Failed("log in", err)
	}
	left := TriesUntold
	if after, e := ck.GetTokenInfo(s.ID); e == nil && refused.tried {
		left = tries(&after)
	}
	label := control.Quote(s.Label)
	if code == pkcs11.CKR_PIN_LOCKED || left == TriesLocked {
		return control.HSMPINLocked.Refuse("token %s does not accept the PIN, which was tried once, and has locked it: %w", label, err)
	}
	says := refused.says
	if left != TriesUntold {
		says += fmt.Sprintf(" (it tells: %s)", left)
	}
	refusal := control.HSMPIN.Refuse("token %s %s: %w", label, says, err)
	switch {
	case refused.hint != "":
		refusal.WithHint("%s", refused.hint)
	case !refused.tried, strings.Contains(s.Manufacturer, "Yubico"):
		refusal.WithHint("%s", s.formOfPIN())
	}
	return refusal
}

// formOfPIN is the form of a PIN, by vendor.
func (s Slot) formOfPIN() string {
	switch m := s.Manufacturer + " " + s.Model; {
	case strings.Contains(m, "Yubico"):
		return "the PIN of a YubiHSM 2 is the number of the authentication key in four hex digits, then its password of 8 to 64 characters, without a blank between: 0001password"
	case strings.Contains(m, "Marvell"), strings.Contains(m, "Cavium"), strings.Contains(m, "CloudHSM"):
		return "the PIN of an AWS CloudHSM is the name of a crypto user, a colon and the password: user:password"
	}
	return "see the HSM's own manual for the form of its PIN: the length, and whether a user's name stands before it"
}
