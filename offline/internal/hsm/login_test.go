// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

func TestURI(t *testing.T) {
	slot := uint(7)
	for text, want := range map[string]URI{
		"pkcs11:token=HSM":                              {Token: "HSM"},
		"pkcs11:serial=0123;token=My%20HSM%3B1":         {Token: "My HSM;1", Serial: "0123"},
		"pkcs11:model=m;manufacturer=a&b=c;slot-id=7":   {Model: "m", Manufacturer: "a&b=c", SlotID: &slot},
		"pkcs11:token=%C3%A4?module-path=/usr/lib/a.so": {Token: "ä", ModulePath: "/usr/lib/a.so"},
	} {
		got, err := ParseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got.String() != text {
			t.Errorf("%s is written as %s", text, got)
		}
		if (got.SlotID == nil) != (want.SlotID == nil) || got.SlotID != nil && *got.SlotID != *want.SlotID {
			t.Errorf("%s: slot %v", text, got.SlotID)
		}
		got.SlotID, got.text, want.SlotID = nil, "", nil
		if *got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
	for name, text := range map[string]string{
		"another scheme":     "pkcs12:token=a",
		"scheme in capitals": "PKCS11:token=a",
		"nothing":            "",
		"no attribute":       "pkcs11:",
		"only a module":      "pkcs11:?module-path=/a",
		"no value":           "pkcs11:token=",
		"no equals sign":     "pkcs11:token",
		"empty part":         "pkcs11:token=a;",
		"twice":              "pkcs11:token=a;token=a",
		"slot twice":         "pkcs11:slot-id=1;slot-id=1",
		"slot no number":     "pkcs11:slot-id=-1",
		"slot too large":     "pkcs11:slot-id=99999999999999999999",
		"unknown":            "pkcs11:token=a;x-own=b",
		"of an object":       "pkcs11:token=a;object=key",
		"of a library":       "pkcs11:library-version=3",
		"blank":              "pkcs11:token=a b",
		"not ASCII":          "pkcs11:token=ä",
		"bad escape":         "pkcs11:token=%4",
		"escape no number":   "pkcs11:token=%zz",
		"query in the path":  "pkcs11:module-path=/a",
		"path in the query":  "pkcs11:token=a?serial=1",
		"query twice":        "pkcs11:token=a?module-path=/a&module-path=/a",
		"fragment":           "pkcs11:token=a#b",
		"PIN":                "pkcs11:token=a?pin-value=31415926",
		"where the PIN is":   "pkcs11:token=a?pin-source=file:/pin",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseURI(text)
			refused(t, err, control.HSMURI)
			if err != nil && strings.Contains(err.Error(), "31415926") {
				t.Errorf("the PIN is in the message: %v", err)
			}
		})
	}
}

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
		{"URI", Config{TokenURI: &URI{Manufacturer: "y"}}, 2, control.Control{}},
		{"slot", Config{TokenURI: &URI{SlotID: &two}}, 2, control.Control{}},
		{"label and URI", Config{TokenLabel: "a", TokenURI: &URI{Serial: "1"}}, 1, control.Control{}},
		{"label twice", Config{TokenLabel: "a"}, 0, control.HSMTokenTwice},
		{"serial number twice", Config{TokenSerial: "1"}, 0, control.HSMTokenTwice},
		{"nothing", Config{}, 0, control.HSMTokenLabel},
		{"another serial number", Config{TokenLabel: "b", TokenSerial: "2"}, 0, control.HSMTokenLabel},
		{"another model", Config{TokenURI: &URI{Token: "b", Model: "m"}}, 0, control.HSMTokenLabel},
		{"not initialised", Config{TokenLabel: "new"}, 0, control.HSMTokenLabel},
		{"can't be described", Config{TokenURI: &URI{SlotID: &five}}, 0, control.HSMTokenLabel},
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
func TestCallWithoutModule(t *testing.T) {
	m := &module{path: "/nowhere"}
	no := pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
	if err := m.LoginAtPad(0); !errors.Is(err, no) {
		t.Error(err)
	}
	if _, err := m.WrapKeyInto(0, 0, 0, 0, 16); !errors.Is(err, no) {
		t.Error(err)
	}
}
