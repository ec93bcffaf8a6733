// SPDX-License-Identifier: Apache-2.0

package module

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

func refused(t testing.TB, err error, c control.Control) {
	t.Helper()
	if !control.Is(err, c) {
		t.Errorf("%v, not refused by %s", err, c.ID)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "module.so")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, places := range [][]string{{there}, {filepath.Join(dir, "absent.so"), there}} {
		usual := usualPlaces
		usualPlaces = places
		got, err := Find("")
		usualPlaces = usual
		if err != nil || got != there {
			t.Errorf("Find = %q, %v", got, err)
		}
	}
	t.Chdir(dir)
	if got, err := Find("module.so"); err != nil || got != there {
		t.Errorf("a relative path gives %q, %v, not the absolute one", got, err)
	}
	for _, bad := range []string{filepath.Join(dir, "absent.so"), dir} {
		_, err := Find(bad)
		refused(t, err, control.HSMModule)
	}
	usual := usualPlaces
	usualPlaces = []string{filepath.Join(dir, "absent.so")}
	defer func() { usualPlaces = usual }()
	_, err := Find("")
	refused(t, err, control.HSMModule)
}

// TestSurroundings holds that what writes a log of all calls is refused under whatever
// name, and that nothing else of a quiet environment is said.
func TestSurroundings(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, v := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"} {
		t.Setenv(v, "")
	}
	said := 0
	say := func(string, ...any) { said++ }
	for _, good := range []string{"libsofthsm2.so", "yubihsm_pkcs11.so", "libCryptoki2_64.so"} {
		if err := Surroundings(good, "", say); err != nil || said > 0 {
			t.Errorf("%s: %v, and %d warnings", good, err, said)
		}
	}
	if err := os.WriteFile("pkcs11-spy.so", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pkcs11-spy.so", "hsm.so"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"pkcs11-spy.so", "hsm.so", "libcklog2.so"} {
		refused(t, Surroundings(bad, "", say), control.HSMModule)
	}
	t.Setenv("PKCS11SPY_OUTPUT", "log")
	t.Setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
	if err := Surroundings("libsofthsm2.so", "", func(format string, args ...any) {
		said++
		if strings.Contains(fmt.Sprintf(format, args...), "secret") {
			t.Errorf(format, args...)
		}
	}); err != nil || said != 2 {
		t.Errorf("%v, and %d warnings", err, said)
	}
	for lines, where := range map[string]string{"libdebug": "x", "lib=1": "x", "# libdebug": "", "connector = libdebug": "", "debug": "", "": ""} {
		if got := setIn("x", strings.Split(lines, "\n"), "libdebug", 0); (got == "") != (where == "") {
			t.Errorf("%q sets %q", lines, got)
		}
	}
}

// oneSlot has one slot, number 7.
type oneSlot pkcs11.TokenInfo

func (o oneSlot) GetSlotList(bool) ([]uint, error)            { return []uint{7}, nil }
func (o oneSlot) GetTokenInfo(uint) (pkcs11.TokenInfo, error) { return pkcs11.TokenInfo(o), nil }

func TestRehearsalTokenOnlyInSoftHSM(t *testing.T) {
	for _, test := range []struct {
		name string
		info pkcs11.TokenInfo
		ok   bool
	}{
		{"free SoftHSM slot", pkcs11.TokenInfo{ManufacturerID: "SoftHSM project"}, true},
		{"slot in use", pkcs11.TokenInfo{ManufacturerID: "SoftHSM project", Flags: pkcs11.CKF_TOKEN_INITIALIZED}, false},
		{"real HSM", pkcs11.TokenInfo{ManufacturerID: "ACME"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			slot, err := freeSoftHSMSlot(oneSlot(test.info), "rehearsal")
			if test.ok && (err != nil || slot != 7) {
				t.Errorf("slot %d, %v", slot, err)
			}
			if !test.ok {
				refused(t, err, control.HSMRehearsal)
			}
		})
	}
}

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

func TestCallWithoutModule(t *testing.T) {
	m := &Module{}
	no := pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED)
	if err := m.LoginAtPad(0); !errors.Is(err, no) {
		t.Error(err)
	}
	if _, err := m.WrapKeyInto(0, 0, 0, 0, 16); !errors.Is(err, no) {
		t.Error(err)
	}
}
