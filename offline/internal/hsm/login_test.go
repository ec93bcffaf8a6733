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
		{"wrong, counted", needed, needed | pkcs11.CKF_USER_PIN_COUNT_LOW, "1234", wrong, "login 1234", control.HSMPIN, string(module.TriesLow)},
		{"wrong, one left", needed, needed | pkcs11.CKF_USER_PIN_FINAL_TRY, "1234", wrong, "login 1234", control.HSMPIN, string(module.TriesLast)},
		{"wrong, the last", needed | pkcs11.CKF_USER_PIN_FINAL_TRY, needed | pkcs11.CKF_USER_PIN_LOCKED, "1234", wrong, "login 1234", control.HSMPINLocked, "has locked it"},
		{"wrong, and told locked", needed, needed, "1234", pkcs11.Error(pkcs11.CKR_PIN_LOCKED), "login 1234", control.HSMPINLocked, "has locked it"},
		{"token gone", needed, needed, "1234", pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), "login 1234", control.HSMCall, ""},
		{"none", needed, needed, "", nil, "", control.HSMPIN, "no PIN pad"},
		{"none needed", 0, 0, "", nil, "", control.Control{}, ""},
		{"pad", needed | pad, needed | pad, "", nil, "pad", control.Control{}, ""},
		{"pad, wrong", needed | pad, needed | pad | pkcs11.CKF_USER_PIN_FINAL_TRY, "", wrong, "pad", control.HSMPIN, string(module.TriesLast)},
		{"pad, and a PIN", needed | pad, needed | pad, "1234", nil, "login 1234", control.Control{}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			tried := ""
			slot := module.Slot{Info: module.Info{Label: "HSM"}, NeedPIN: test.before&needed != 0, PINPad: test.before&pad != 0}
			token := &Token{chosen: &module.Chosen{Slot: slot}, ck: &fake{
				login:        func(pin string) error { tried += "login " + pin; return test.answer },
				loginAtPad:   func() error { tried += "pad"; return test.answer },
				getTokenInfo: func(uint) (pkcs11.TokenInfo, error) { return pkcs11.TokenInfo{Flags: test.after}, nil },
			}}
			err := token.login([]byte(test.pin))
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
	cfg.Module = pad
	slot, err := module.Choose(cfg)
	if err != nil || !slot.PINPad {
		t.Fatalf("%+v, %v", slot, err)
	}
	slot.Close()
	token, err := open(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	imported(t, token, vectorKey(t, "contoso-mode2"))
	Above.Signer(t, token, true)
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEYFERRY_TEST_PIN", "00000000")
	_, err = open(cfg, nil)
	refused(t, err, control.HSMPIN)
}
