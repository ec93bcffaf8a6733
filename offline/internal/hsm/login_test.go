// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

func TestChoose(t *testing.T) {
	const there = pkcs11.CKF_TOKEN_INITIALIZED
	slots := map[uint]pkcs11.TokenInfo{
		1: {Label: "a", SerialNumber: "1", Model: "m", ManufacturerID: "x", Flags: there},
		2: {Label: "a", SerialNumber: "2", Model: "m", ManufacturerID: "y\x00\x00", Flags: there},
		3: {Label: "b", SerialNumber: "1", Model: "n", ManufacturerID: "x", Flags: there},
		4: {Label: "new", SerialNumber: "4"},
	}
	broken := &fake{
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
		name string
		cfg  Config
		want uint
		not  control.Control
	}{
		{"label", Config{TokenLabel: "b"}, 3, control.Control{}},
		{"label and serial number", Config{TokenLabel: "a", TokenSerial: "2"}, 2, control.Control{}},
		{"URI", Config{TokenURI: &module.URI{Manufacturer: "y"}}, 2, control.Control{}},
		{"slot", Config{TokenURI: &module.URI{SlotID: &two}}, 2, control.Control{}},
		{"label and URI", Config{TokenLabel: "a", TokenURI: &module.URI{Serial: "1"}}, 1, control.Control{}},
		{"label twice", Config{TokenLabel: "a"}, 0, control.HSMTokenTwice},
		{"serial number twice", Config{TokenSerial: "1"}, 0, control.HSMTokenTwice},
		{"nothing", Config{}, 0, control.HSMTokenLabel},
		{"another serial number", Config{TokenLabel: "b", TokenSerial: "2"}, 0, control.HSMTokenLabel},
		{"another model", Config{TokenURI: &module.URI{Token: "b", Model: "m"}}, 0, control.HSMTokenLabel},
		{"not initialised", Config{TokenLabel: "new"}, 0, control.HSMTokenLabel},
		{"can't be described", Config{TokenURI: &module.URI{SlotID: &five}}, 0, control.HSMTokenLabel},
	} {
		t.Run(test.name, func(t *testing.T) {
			slot, _, err := choose(broken, &test.cfg)
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
	module := &fake{
		getSlotList:  func(bool) ([]uint, error) { return []uint{0, 1, 2}, nil },
		getTokenInfo: func(slot uint) (pkcs11.TokenInfo, error) { return infos[slot], nil },
	}
	_, _, err := choose(module, &Config{TokenLabel: "YubiHSM"})
	refused(t, err, control.HSMTokenTwice)
	for _, says := range []string{`"07550001" in slot 0`, `"07550002" in slot 1`} {
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("does not say %s: %v", says, err)
		}
	}
	if slot, _, err := choose(module, &Config{TokenLabel: "YubiHSM", TokenSerial: "07550002"}); err != nil || slot != 1 {
		t.Errorf("slot %d, %v", slot, err)
	}

	_, _, err = choose(module, &Config{TokenLabel: "none"})
	if err == nil || strings.Contains(err.Error(), "unknown") || !strings.Contains(err.Error(), "that it does not tell") {
		t.Errorf("says %v", err)
	}
	if serial := slotOf("", 2, &infos[2]).Serial; serial != "" {
		t.Errorf("%q would be pinned", serial)
	}
	for _, pinned := range []string{"", "unknown", "5UMIPB1FQK"} { // the last: as told while it was unlocked
		if slot, _, err := choose(module, &Config{TokenLabel: "judge", TokenSerial: pinned}); err != nil || slot != 2 {
			t.Errorf("pinned %q: slot %d, %v", pinned, slot, err)
		}
	}
}

// What a token tells of its PIN is in the refusal; a locked PIN is not tried.
func TestPINTries(t *testing.T) {
	const needed = pkcs11.CKF_LOGIN_REQUIRED
	const pad = pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH
	wrong := error(pkcs11.Error(pkcs11.CKR_PIN_INCORRECT))
	for _, test := range []struct {
		name   string
		before uint
		after  uint
		pin    string
		answer error
		tried  string // what is called
		want   control.Control
		says   string
	}{
		{"right", needed, needed, "1234", nil, "login 1234", control.Control{}, ""},
		{"right after a wrong one", needed | pkcs11.CKF_USER_PIN_COUNT_LOW, needed, "1234", nil, "login 1234", control.Control{}, ""},
		{"wrong", needed, needed, "1234", wrong, "login 1234", control.HSMPIN, "tried once: "},
		{"wrong, counted", needed, needed | pkcs11.CKF_USER_PIN_COUNT_LOW, "1234", wrong, "login 1234", control.HSMPIN, string(TriesLow)},
		{"wrong, one left", needed, needed | pkcs11.CKF_USER_PIN_FINAL_TRY, "1234", wrong, "login 1234", control.HSMPIN, string(TriesLast)},
		{"wrong, the last", needed | pkcs11.CKF_USER_PIN_FINAL_TRY, needed | pkcs11.CKF_USER_PIN_LOCKED, "1234", wrong, "login 1234", control.HSMPINLocked, "has locked it"},
		{"wrong, and told locked", needed, needed, "1234", pkcs11.Error(pkcs11.CKR_PIN_LOCKED), "login 1234", control.HSMPINLocked, "has locked it"},
		{"locked", needed | pkcs11.CKF_USER_PIN_LOCKED, 0, "1234", nil, "", control.HSMPINLocked, "none was tried"},
		{"token gone", needed, needed, "1234", pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), "login 1234", control.HSMCall, ""},
		{"none", needed, needed, "", nil, "", control.HSMPIN, "no PIN pad"},
		{"none needed", 0, 0, "", nil, "", control.Control{}, ""},
		{"pad", needed | pad, needed | pad, "", nil, "pad", control.Control{}, ""},
		{"pad, wrong", needed | pad, needed | pad | pkcs11.CKF_USER_PIN_FINAL_TRY, "", wrong, "pad", control.HSMPIN, string(TriesLast)},
		{"pad, and a PIN", needed | pad, needed | pad, "1234", nil, "login 1234", control.Control{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			tried := ""
			info := pkcs11.TokenInfo{Label: "HSM", Flags: test.before}
			found := &Found{Slot: *slotOf("", 0, &info)}
			token := &Token{found: found, ck: &fake{
				login:        func(pin string) error { tried += "login " + pin; return test.answer },
				loginAtPad:   func() error { tried += "pad"; return test.answer },
				getTokenInfo: func(uint) (pkcs11.TokenInfo, error) { return pkcs11.TokenInfo{Flags: test.after}, nil },
			}}
			err := admissible(&info)
			if err == nil {
				err = found.needs([]byte(test.pin))
			}
			if err == nil {
				err = token.login([]byte(test.pin))
			}
			if tried != test.tried {
				t.Errorf("tried %q, want %q", tried, test.tried)
			}
			if test.want.ID == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, test.want)
			if err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "1234")) {
				t.Errorf("says %v", err)
			}
		})
	}
}

// A module with a PIN pad wants no PIN, NULL, which miekg/pkcs11 can't say.
func TestPINPad(t *testing.T) {
	cfg, _ := softHSMToken(t, "")
	pad := filepath.Join(t.TempDir(), "pinpad.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", pad, "testdata/pinpad.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("KEYFERRY_TEST_MODULE", cfg.Module)
	t.Setenv("KEYFERRY_TEST_PIN", string(testPIN))
	cfg.Module, cfg.PIN = pad, nil
	slot, err := Find(cfg, true)
	if err != nil || !slot.PINPad {
		t.Fatalf("%+v, %v", slot, err)
	}
	slot.Close()
	token, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	imported(t, token, vectorKey(t, "contoso-mode2"))
	if _, err := token.CreateSigner("signer", []byte{1}, ECDSAP256); err != nil {
		t.Errorf("no signer: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEYFERRY_TEST_PIN", "00000000")
	_, err = Open(cfg)
	refused(t, err, control.HSMPIN)
}

// A call that reaches no module says so.
