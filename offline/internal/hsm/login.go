// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

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

// Find describes the one token that cfg chooses, without a login. Refuses as
// [Open] does before it tries the PIN, so that none is asked for in vain.
func Find(cfg Config) (*Slot, error) {
	var found *Slot
	err := visit(cfg.Module, cfg.Parameters, func(m *module) error {
		slot, info, err := choose(m, &cfg)
		if err != nil {
			return err
		}
		found = slotOf(cfg.Module, slot, &info)
		return unlocked(&info)
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

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
	var there []string
	matches := 0
	for _, s := range slots {
		i, err := ck.GetTokenInfo(s)
		if err != nil { // it is named only if it may be the one that is looked for
			there = append(there, fmt.Sprintf("one in slot %d that the module can't describe (%v)", s, err))
			continue
		}
		if i.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		there = append(there, control.Quote(i.Label)+" with the serial number "+control.Quote(i.SerialNumber))
		if cfg.fits(s, &i) {
			slot, info = s, i
			matches++
		}
	}
	switch {
	case len(there) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module has no initialised token in its %d slots", len(slots))
	case matches == 0:
		return 0, info, control.HSMTokenLabel.Refuse("no token is %s; there are: %s", cfg.wanted(), strings.Join(there, ", "))
	case matches > 1:
		return 0, info, control.HSMTokenTwice.Refuse("%d tokens are %s", matches, cfg.wanted())
	}
	return slot, info, nil
}

// fits reports whether a token is what cfg chooses.
func (cfg *Config) fits(slot uint, info *pkcs11.TokenInfo) bool {
	uri := cfg.TokenURI
	if uri == nil {
		uri = &URI{}
	}
	if cfg.TokenLabel == "" && cfg.TokenSerial == "" && *uri == (URI{}) {
		return false
	}
	for _, is := range []struct{ wanted, found string }{
		{cfg.TokenLabel, info.Label}, {uri.Token, info.Label},
		{cfg.TokenSerial, info.SerialNumber}, {uri.Serial, info.SerialNumber},
		{uri.Manufacturer, info.ManufacturerID}, {uri.Model, info.Model},
	} {
		if is.wanted != "" && is.wanted != filled(is.found) {
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

// admit refuses a login before it is tried.
func admit(info *pkcs11.TokenInfo, pin []byte) error {
	noLogin := info.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0
	pad := info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0
	if len(pin) == 0 && !noLogin && !pad {
		// Some tokens take no PIN for a wish to be asked at a keypad of their own.
		return control.HSMPIN.Refuse("the PIN for token %s is empty, and the token has no PIN pad", control.Quote(info.Label))
	}
	return unlocked(info)
}

// unlocked refuses a token that has locked its PIN.
func unlocked(info *pkcs11.TokenInfo) error {
	if tries(info) != TriesLocked {
		return nil
	}
	return control.HSMPINLocked.Refuse("token %s has locked its user PIN after too many wrong ones; none was tried", control.Quote(info.Label))
}

// pinErrors are the answers to a login that mean the PIN, not the token.
var pinErrors = []pkcs11.Error{
	pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
	pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED,
}

// login logs the user in, by one try. A token that asks for none is spared it.
func (t *Token) login(info *pkcs11.TokenInfo, pin []byte) error {
	var err error
	switch {
	case len(pin) > 0:
		var text string // the library asks for one
		secret.Do(func() { text = string(pin) })
		err = t.ck.Login(t.session, pkcs11.CKU_USER, text)
	case info.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0:
		err = t.ck.LoginAtPad(t.session)
	}
	var code pkcs11.Error
	if err == nil || !errors.As(err, &code) || !slices.Contains(pinErrors, code) {
		return failed("log in", err)
	}
	label := control.Quote(info.Label)
	after, infoErr := t.ck.GetTokenInfo(t.slot)
	switch {
	case code == pkcs11.CKR_PIN_LOCKED, infoErr == nil && tries(&after) == TriesLocked:
		return control.HSMPINLocked.Refuse("token %s does not accept the PIN, which was tried once, and has locked it: %w", label, code)
	case infoErr == nil && tries(&after) != TriesUntold:
		return control.HSMPIN.Refuse("token %s does not accept the PIN, which was tried once (it tells: %s): %w", label, tries(&after), code)
	}
	return control.HSMPIN.Refuse("token %s does not accept the PIN, which was tried once: %w", label, code)
}
