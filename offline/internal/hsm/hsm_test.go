// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// refused checks that err is the refusal of c.
func refused(t testing.TB, err error, c control.Control) {
	t.Helper()
	if !control.Is(err, c) {
		t.Errorf("got %v, want a refusal by %s", err, c.ID)
	}
}

// hint is what a refusal tells a person to do.
func hint(err error) string {
	var r *control.Refusal
	errors.As(err, &r)
	return r.Hint
}

func TestOpen(t *testing.T) {
	token, _ := newToken(t)
	info := token.Info()
	if info.Label != testLabel || info.Manufacturer != "SoftHSM project" || info.Serial == "" || !filepath.IsAbs(info.Module) {
		t.Errorf("info %+v", info)
	}
	text, err := json.Marshal(info)
	if err != nil || !strings.Contains(string(text), `"firmware":"2.`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	path, _ := softHSM(t, t.TempDir())
	try := func(path, label, pin string) error {
		token, err := open(module.Choice{Module: path, TokenLabel: label}, []byte(pin))
		if err == nil {
			t.Error("opened", token.Close())
		}
		return err
	}
	text := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, try(text, testLabel, string(testPIN)), control.HSMModule)
	refused(t, try(path, testLabel, string(testPIN)), control.HSMNoToken)

	create := func(label string) {
		t.Helper()
		if err := module.MakeSoftHSMToken(path, label, testPIN, testSOPIN); err != nil {
			t.Fatal(err)
		}
	}
	create(testLabel)
	refused(t, try(path, "another", string(testPIN)), control.HSMTokenLabel)
	for _, pin := range []string{"00000000", "", "1", strings.Repeat("9", 300)} {
		err := try(path, testLabel, pin)
		refused(t, err, control.HSMPIN)
		if pin == "00000000" && strings.Contains(err.Error(), pin) {
			t.Errorf("the PIN is in the message: %v", err)
		}
	}
	refused(t, module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN), control.HSMExists)
	token := openToken(t, path) // the right PIN still works
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}

	// A second token with the label, as only another program would make it.
	m, err := module.Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	slots, err := m.GetSlotList(true) // the last is free
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.InitToken(slots[len(slots)-1], string(testSOPIN), testLabel), m.Unload()); err != nil {
		t.Fatal(err)
	}
	refused(t, try(path, testLabel, string(testPIN)), control.HSMTokenTwice)
}

func TestEnvironmentClass(t *testing.T) {
	for _, c := range []control.Control{control.HSMModule, control.HSMNoToken, control.HSMTokenLabel, control.HSMTokenTwice, control.HSMPIN, control.HSMWrapUnproven} {
		if c.Class != control.Environment {
			t.Errorf("%s has class %d", c.ID, c.Class)
		}
	}
}
