// SPDX-License-Identifier: Apache-2.0

package module

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Choice says which token is meant. What is given of TokenLabel, TokenSerial and
// TokenURI must all fit one token, and only one.
type Choice struct {
	Module      string // path, as by Find
	TokenLabel  string
	TokenSerial string
	TokenURI    *URI
	Parameters  string // what the module takes at C_Initialize, such as NSS's configdir=…; usually empty
	Signs       bool   // the token is to sign bundles

	// Tell tells a person what went wrong on the side. Nil: nobody.
	Tell func(format string, args ...any) `json:"-"`
}

// Info describes a token, in its own words.
type Info struct {
	Module       string `json:"module"` // path
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Label        string `json:"label"`
	Serial       string `json:"serial"` // empty where the token does not tell
	Firmware     string `json:"firmware"`
}

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

// Chosen is a token that nobody has logged in to yet. Its module is loaded and
// initialised, until Close.
type Chosen struct {
	Slot
	*Module
	Shared *crypto11.Context // nil where crypto11 can't open the token, or is not needed
	choice Choice
}

// Choose loads the module and describes the one token that is meant. Refusals, all of
// class Environment: KF-HSM-MODULE, KF-HSM-NO-TOKEN, KF-HSM-TOKEN-LABEL,
// KF-HSM-TOKEN-TWICE; and KF-HSM-PIN or KF-HSM-PIN-LOCKED where a PIN would be asked
// for in vain. A process can have one token of a module at a time.
func Choose(choice Choice) (chosen *Chosen, err error) {
	c := &Chosen{choice: choice}
	_, fault := Open(choice.Module)
	shared := fault == "" && choice.Signs && choice.Parameters == ""
	if shared {
		c.Shared = choice.share() // first: it insists on initialising the module
	}
	if c.Module, err = load(choice.Module, choice.Parameters, shared); err != nil {
		return nil, err
	}
	slot, info, err := choice.find(c.Module)
	if err == nil {
		c.Slot = *slotOf(choice.Module, slot, &info)
		err = admissible(&info)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// share has crypto11 initialise the module and open the token, to sign. It gets no
// PIN: the session that logs in is another. Nil where it can't: it panics on a token
// of one session.
func (choice *Choice) share() (shared *crypto11.Context) {
	defer func() { _ = recover() }()
	label := choice.TokenLabel
	if choice.TokenURI != nil {
		label = cmp.Or(label, choice.TokenURI.Token)
	}
	config := crypto11.Config{Path: Loaded(choice.Module), TokenLabel: label, MaxSessions: 2, LoginNotSupported: true}
	if serial := told(choice.TokenSerial); serial != "" {
		config.TokenLabel, config.TokenSerial = "", serial
	}
	shared, err := crypto11.Configure(&config)
	if err != nil {
		return nil
	}
	return shared
}

// NewSession opens a session that may write.
func (c *Chosen) NewSession() (session pkcs11.SessionHandle, err error) {
	const flags = pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION
	session, err = c.Module.OpenSession(c.ID, flags)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) && c.Shared != nil { // crypto11 has taken the last
		_ = c.Shared.Close() // the module is started anew
		c.Shared = nil
		if err = c.Start(c.choice.Parameters); err == nil || errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
			session, err = c.Module.OpenSession(c.ID, flags)
		}
	}
	return session, Failed("open a session", err)
}

// Close ends what Choose began. What a module answers to that changes nothing any
// more: it is told, and no error.
func (c *Chosen) Close() {
	if c.Module == nil {
		return
	}
	var err error
	if c.Shared != nil {
		err = c.Shared.Close() // which finalises the module, unless each user has a module of its own
	}
	if e := c.Unload(); !errors.Is(e, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		err = errors.Join(err, e)
	}
	if err != nil && c.choice.Tell != nil {
		c.choice.Tell("the PKCS#11 module did not end in order; what was done in the HSM is done: %v", err)
	}
	c.Module, c.Shared = nil, nil
}

func slotOf(path string, slot uint, info *pkcs11.TokenInfo) *Slot {
	return &Slot{
		Info: Info{
			Module:       path,
			Manufacturer: filled(info.ManufacturerID),
			Model:        filled(info.Model),
			Label:        filled(info.Label),
			Serial:       told(filled(info.SerialNumber)),
			Firmware:     version(info.FirmwareVersion),
		},
		ID: slot, PIN: tries(info),
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

// told is a serial number; empty for what a module says while it knows none, and for what
// no file could keep.
func told(serial string) string {
	if strings.EqualFold(serial, "unknown") || !utf8.ValidString(serial) {
		return ""
	}
	return serial
}

// filled takes off what a field is filled up with: blanks by the standard,
// zeros by tpm2-pkcs11.
func filled(field string) string { return strings.TrimRight(field, " \x00") }

// find finds the one initialised token that is meant.
func (choice *Choice) find(ck slots) (slot uint, info pkcs11.TokenInfo, err error) {
	all, err := ck.GetSlotList(true)
	if err != nil {
		return 0, info, Failed("list its slots", err)
	}
	var there, matching, mute []string
	for _, s := range all {
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
		if choice.fits(s, &i) {
			slot, info = s, i
			matching = append(matching, about)
		}
	}
	switch {
	case len(there)+len(mute) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module has no initialised token in its slots, %d of them", len(all)).
			WithHint("connect the HSM, see that what stands between it and the module runs (a connector, a service, an address that the module's configuration names), and initialise its token; then run the same command again")
	case len(there) == 0:
		return 0, info, control.HSMNoToken.Refuse("the PKCS#11 module does not reach its HSM; there is %s", strings.Join(mute, ", ")).
			WithHint("see that the HSM is on and provisioned, that the address in the module's configuration is right, and that the module trusts its certificate: the module's own log says which; then run the same command again")
	case len(matching) == 0:
		return 0, info, control.HSMTokenLabel.Refuse("no token is %s; there are: %s", choice.wanted(), strings.Join(append(there, mute...), ", "))
	case len(matching) > 1:
		return 0, info, control.HSMTokenTwice.Refuse("%d tokens are %s: %s", len(matching), choice.wanted(), strings.Join(matching, ", "))
	}
	return slot, info, nil
}

// fits reports whether a token is the one that is meant.
func (choice *Choice) fits(slot uint, info *pkcs11.TokenInfo) bool {
	uri := choice.TokenURI
	if uri == nil {
		uri = &URI{}
	}
	if choice.TokenLabel == "" && choice.TokenSerial == "" && *uri == (URI{}) {
		return false
	}
	for _, is := range []struct{ wanted, found string }{
		{choice.TokenLabel, info.Label}, {uri.Token, info.Label},
		{told(choice.TokenSerial), told(filled(info.SerialNumber))}, {uri.Serial, told(filled(info.SerialNumber))},
		{uri.Manufacturer, info.ManufacturerID}, {uri.Model, info.Model},
	} {
		if is.wanted != "" && is.wanted != filled(is.found) && (is.found != "" || is.wanted != told(choice.TokenSerial)) {
			return false
		}
	}
	return uri.SlotID == nil || *uri.SlotID == slot
}

// wanted is the choice in words.
func (choice *Choice) wanted() string {
	var words []string
	if choice.TokenLabel != "" {
		words = append(words, "labelled "+control.Quote(choice.TokenLabel))
	}
	if choice.TokenSerial != "" {
		words = append(words, "of the serial number "+control.Quote(choice.TokenSerial))
	}
	if choice.TokenURI != nil {
		words = append(words, "of the URI "+control.Quote(choice.TokenURI.String()))
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
