// SPDX-License-Identifier: Apache-2.0

package module

import (
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// fakeSlots are slots by two functions.
type fakeSlots struct {
	getSlotList  func(bool) ([]uint, error)
	getTokenInfo func(slot uint) (pkcs11.TokenInfo, error)
}

func (f *fakeSlots) GetSlotList(present bool) ([]uint, error)         { return f.getSlotList(present) }
func (f *fakeSlots) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) { return f.getTokenInfo(slot) }

func TestChoose(t *testing.T) {
	const there = pkcs11.CKF_TOKEN_INITIALIZED
	slots := map[uint]pkcs11.TokenInfo{
		1: {Label: "a", SerialNumber: "1", Model: "m", ManufacturerID: "x", Flags: there},
		2: {Label: "a", SerialNumber: "2", Model: "m", ManufacturerID: "y\x00\x00", Flags: there},
		3: {Label: "b", SerialNumber: "1", Model: "n", ManufacturerID: "x", Flags: there},
		4: {Label: "new", SerialNumber: "4"},
	}
	broken := &fakeSlots{
		getSlotList: func(bool) ([]uint, error) { return []uint{1, 2, 3, 4, 5}, nil },
		getTokenInfo: func(slot uint) (pkcs11.TokenInfo, error) {
			if slot == 5 {
				return pkcs11.TokenInfo{}, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
			}
			return slots[slot], nil
		},
	}
	two, five := uint(2), uint(5)
	for _, test := range []struct {
		name   string
		choice Choice
		want   uint
		not    control.Control
	}{
		{"label", Choice{TokenLabel: "b"}, 3, control.Control{}},
		{"label and serial number", Choice{TokenLabel: "a", TokenSerial: "2"}, 2, control.Control{}},
		{"URI", Choice{TokenURI: &URI{Manufacturer: "y"}}, 2, control.Control{}},
		{"slot", Choice{TokenURI: &URI{SlotID: &two}}, 2, control.Control{}},
		{"label and URI", Choice{TokenLabel: "a", TokenURI: &URI{Serial: "1"}}, 1, control.Control{}},
		{"label twice", Choice{TokenLabel: "a"}, 0, control.HSMTokenTwice},
		{"serial number twice", Choice{TokenSerial: "1"}, 0, control.HSMTokenTwice},
		{"nothing", Choice{}, 0, control.HSMTokenLabel},
		{"another serial number", Choice{TokenLabel: "b", TokenSerial: "2"}, 0, control.HSMTokenLabel},
		{"another model", Choice{TokenURI: &URI{Token: "b", Model: "m"}}, 0, control.HSMTokenLabel},
		{"not initialised", Choice{TokenLabel: "new"}, 0, control.HSMTokenLabel},
		{"can't be described", Choice{TokenURI: &URI{SlotID: &five}}, 0, control.HSMTokenLabel},
	} {
		t.Run(test.name, func(t *testing.T) {
			slot, _, err := test.choice.find(broken)
			if test.want != 0 && (err != nil || slot != test.want) {
				t.Errorf("slot %d, %v", slot, err)
			}
			if test.want == 0 {
				refused(t, err, test.not)
			}
		})
	}
}

// Tokens of one label are listed with what tells them apart: the serial number, or
// that there is none. "unknown" is what a NetHSM's module says without the
// administrator's passphrase: it is no number, neither shown nor compared.
func TestChooseBySerial(t *testing.T) {
	infos := []pkcs11.TokenInfo{
		{Label: "YubiHSM", SerialNumber: "07550001", Flags: pkcs11.CKF_TOKEN_INITIALIZED},
		{Label: "YubiHSM", SerialNumber: "07550002", Flags: pkcs11.CKF_TOKEN_INITIALIZED},
		{Label: "judge", SerialNumber: "unknown", Flags: pkcs11.CKF_TOKEN_INITIALIZED},
	}
	module := &fakeSlots{
		getSlotList:  func(bool) ([]uint, error) { return []uint{0, 1, 2}, nil },
		getTokenInfo: func(slot uint) (pkcs11.TokenInfo, error) { return infos[slot], nil },
	}
	_, _, err := (&Choice{TokenLabel: "YubiHSM"}).find(module)
	refused(t, err, control.HSMTokenTwice)
	for _, says := range []string{`"07550001" in slot 0`, `"07550002" in slot 1`} {
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("does not say %s: %v", says, err)
		}
	}
	if slot, _, err := (&Choice{TokenLabel: "YubiHSM", TokenSerial: "07550002"}).find(module); err != nil || slot != 1 {
		t.Errorf("slot %d, %v", slot, err)
	}

	_, _, err = (&Choice{TokenLabel: "none"}).find(module)
	if err == nil || strings.Contains(err.Error(), "unknown") || !strings.Contains(err.Error(), "that it does not tell") {
		t.Errorf("says %v", err)
	}
	if serial := slotOf("", 2, &infos[2]).Serial; serial != "" {
		t.Errorf("%q would be pinned", serial)
	}
	for _, pinned := range []string{"", "unknown", "5UMIPB1FQK"} { // the last: as told while it was unlocked
		if slot, _, err := (&Choice{TokenLabel: "judge", TokenSerial: pinned}).find(module); err != nil || slot != 2 {
			t.Errorf("pinned %q: slot %d, %v", pinned, slot, err)
		}
	}
}

// A PIN is not asked for in vain: one that is locked, or only good to be changed, is
// not tried.
func TestAdmissible(t *testing.T) {
	for flags, want := range map[uint]control.Control{
		pkcs11.CKF_USER_PIN_LOCKED:        control.HSMPINLocked,
		pkcs11.CKF_USER_PIN_TO_BE_CHANGED: control.HSMPIN,
	} {
		err := admissible(&pkcs11.TokenInfo{Label: "HSM", Flags: pkcs11.CKF_LOGIN_REQUIRED | flags})
		refused(t, err, want)
		if err != nil && !strings.Contains(err.Error(), "none was tried") {
			t.Errorf("says %v", err)
		}
	}
	if err := admissible(&pkcs11.TokenInfo{Flags: pkcs11.CKF_LOGIN_REQUIRED | pkcs11.CKF_USER_PIN_COUNT_LOW}); err != nil {
		t.Error(err)
	}
}
