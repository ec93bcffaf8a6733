// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
)

// Slot is a token that can be told without a login: what is to be known before
// the PIN is asked for.
type Slot struct {
	Info
	ID      uint  `json:"slot"`
	NeedPIN bool  `json:"need_pin"` // it asks for a login
	PINPad  bool  `json:"pin_pad"`  // the PIN is entered at the token: open it with an empty one
	PIN     Tries `json:"pin_tries"`
}

// Tries is what a token tells of the tries that its user PIN has left. Many
// tell nothing.
type Tries string

const (
	TriesUntold Tries = ""
	TriesLow    Tries = "a wrong PIN was given since the last right one"
	TriesLast   Tries = "one more wrong PIN locks it"
	TriesLocked Tries = "the PIN is locked"
)

func slotOf(path string, slot uint, info *pkcs11.TokenInfo) *Slot {
	return &Slot{
		Info: infoOf(path, info), ID: slot, PIN: tries(info),
		NeedPIN: info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0,
		PINPad:  info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0,
	}
}

func tries(info *pkcs11.TokenInfo) Tries {
	switch {
	case info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return TriesLocked
	case info.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return TriesLast
	case info.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return TriesLow
	}
	return TriesUntold
}

// choose finds the one initialised token that cfg chooses.
func choose(ck cryptoki, cfg *Config) (slot uint, info pkcs11.TokenInfo, err error) {
	slots, err := ck.GetSlotList(true)
	if err != nil {
		return 0, info, failed("list its slots", err)
	}
	var there, matching, mute []string
	for _, s := range slots {
		i, err := ck.GetTokenInfo(s)
		if err != nil { // it is named only if it may be the one that is looked for
			mute = append(mute, fmt.Sprintf("one in slot %d that the module can't describe (%v)", s, err))
			continue
		}
		if i.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		about := fmt.Sprintf("%s with the serial number %s in slot %d", control.Quote(filled(i.Label)), serialOf(&i), s)
		there = append(there, about)
		if cfg.fits(s, &i) {
			slot, info = s, i
			matching = append(matching, about)
		}
	}
	switch {
	case len(there)+len(mute) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module has no initialised token in its slots, %d of them", len(slots)).
			WithHint("connect the HSM, see that what stands between it and the module runs (a connector, a service, an address that the module's configuration names), and initialise its token; then run the same command again")
	case len(there) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module does not reach its HSM; there is %s", strings.Join(mute, ", ")).
			WithHint("see that the HSM is on and provisioned, that the address in the module's configuration is right, and that the module trusts its certificate: the module's own log says which; then run the same command again")
	case len(matching) == 0:
		return 0, info, control.HSMTokenLabel.Refuse("no token is %s; there are: %s", cfg.wanted(), strings.Join(append(there, mute...), ", "))
	case len(matching) > 1:
		return 0, info, control.HSMTokenTwice.Refuse("%d tokens are %s: %s", len(matching), cfg.wanted(), strings.Join(matching, ", "))
	}
	return slot, info, nil
}

// fits reports whether a token is what cfg chooses.
func (cfg *Config) fits(slot uint, info *pkcs11.TokenInfo) bool {
	uri := cfg.TokenURI
	if uri == nil {
		uri = &module.URI{}
	}
	if cfg.TokenLabel == "" && cfg.TokenSerial == "" && *uri == (module.URI{}) {
		return false
	}
	for _, is := range []struct{ wanted, found string }{
		{cfg.TokenLabel, info.Label}, {uri.Token, info.Label},
		{told(cfg.TokenSerial), told(filled(info.SerialNumber))}, {uri.Serial, told(filled(info.SerialNumber))},
		{uri.Manufacturer, info.ManufacturerID}, {uri.Model, info.Model},
	} {
		if is.wanted != "" && is.wanted != filled(is.found) && (is.found != "" || is.wanted != told(cfg.TokenSerial)) {
			return false
		}
	}
	return uri.SlotID == nil || *uri.SlotID == slot
}

// wanted is what cfg chooses, in words.
func (cfg *Config) wanted() string {
	var words []string
	if cfg.TokenLabel != "" {
		words = append(words, "labelled "+control.Quote(cfg.TokenLabel))
	}
	if cfg.TokenSerial != "" {
		words = append(words, "of the serial number "+control.Quote(cfg.TokenSerial))
	}
	if cfg.TokenURI != nil {
		words = append(words, "of the URI "+control.Quote(cfg.TokenURI.String()))
	}
	if len(words) == 0 {
		return "chosen, neither by label nor by serial number nor by URI"
	}
	return strings.Join(words, " and ")
}

// serialOf is a token's serial number for people.
func serialOf(info *pkcs11.TokenInfo) string {
	if told(filled(info.SerialNumber)) == "" {
		return "that it does not tell"
	}
	return control.Quote(filled(info.SerialNumber))
}

// admissible refuses a token that can't be logged in to now, before its PIN is asked for.
func admissible(info *pkcs11.TokenInfo) error {
	label := control.Quote(filled(info.Label))
	switch {
	case tries(info) == TriesLocked:
		return control.HSMPINLocked.Refuse("token %s has locked its user PIN after too many wrong ones; none was tried", label)
	case info.Flags&pkcs11.CKF_USER_PIN_TO_BE_CHANGED != 0:
		return control.HSMPIN.Refuse("token %s wants its user PIN to be changed before it is used; none was tried", label).
			WithHint("change the PIN with the HSM's own tools first: a new partition has one that is only good for that")
	}
	return nil
}

// login logs the user in, by one try. A token that asks for none is spared it.
func (t *Token) login(pin []byte) error {
	var err error
	switch {
	case len(pin) > 0:
		var text string // the library asks for one
		secret.Do(func() { text = string(pin) })
		err = t.ck.Login(t.session, pkcs11.CKU_USER, text)
	case t.found.PINPad:
		err = t.ck.LoginAtPad(t.session)
	}
	if err == nil || is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		return nil
	}
	var code pkcs11.Error
	errors.As(err, &code)
	refused, known := loginRefusals[code]
	if !known {
		return failed("log in", err)
	}
	left := TriesUntold
	if after, e := t.ck.GetTokenInfo(t.found.ID); e == nil && refused.tried {
		left = tries(&after)
	}
	label := control.Quote(t.found.Label)
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
	case !refused.tried, strings.Contains(t.found.Manufacturer, "Yubico"):
		refusal.WithHint("%s", formOf(t.found))
	}
	return refusal
}

// loginRefusals are the return values of C_Login that are about the PIN. Without a hint
// of its own, the form of the PIN is the hint where none was tried.
var loginRefusals = map[pkcs11.Error]struct {
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

// formOf is the form of a PIN, by vendor.
func formOf(f *Found) string {
	switch m := f.Manufacturer + " " + f.Model; {
	case strings.Contains(m, "Yubico"):
		return "the PIN of a YubiHSM 2 is the number of the authentication key in four hex digits, then its password of 8 to 64 characters, without a blank between: 0001password"
	case strings.Contains(m, "Marvell"), strings.Contains(m, "Cavium"), strings.Contains(m, "CloudHSM"):
		return "the PIN of an AWS CloudHSM is the name of a crypto user, a colon and the password: user:password"
	}
	return "see the HSM's own manual for the form of its PIN: the length, and whether a user's name stands before it"
}
