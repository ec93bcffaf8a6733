// SPDX-License-Identifier: Apache-2.0

// Package module knows PKCS#11 modules as files and libraries: where they lie, how a token
// is named by a URI, where a module writes and what it reads from its surroundings, how it
// is loaded and how it may crash, which of its tokens is meant, and what it means by its
// return values. No key comes here.
package module

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Find returns the absolute path of the PKCS#11 module: the explicit one,
// or else SoftHSM 2 in its usual places. Refuses (KF-HSM-MODULE) when there is
// no such file.
func Find(explicit string) (string, error) {
	places := usualPlaces
	if explicit != "" {
		// A bare file name would make the loader search its own path.
		path, err := filepath.Abs(explicit)
		if err != nil {
			return "", control.HSMModule.Refuse("the path of the PKCS#11 module cannot be resolved: %w", err)
		}
		places = []string{path}
	}
	for _, path := range places {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	absent := control.HSMModule.Refuse("there is no PKCS#11 module at %s", strings.Join(places, ", "))
	if hint := install(); hint != "" {
		absent.WithHint("%s", hint)
	}
	return "", absent
}

// Load loads a module and initialises it, for the whole run. One that is
// initialised already, since something in the process keeps it so, serves too.
func Load(path, parameters string) (*Module, error) { return load(path, parameters, false) }

// load is Load of a module that may have begun already, which is not asked to begin
// twice: some fail at that.
func load(path, parameters string, begun bool) (m *Module, err error) {
	back, err := inItsDirectory(path)
	if err != nil {
		return nil, control.HSMModule.Refuse("the directory of the PKCS#11 module %s can't be entered: %w", path, err)
	}
	defer func() { err = errors.Join(err, back()) }()
	library, fault := Open(path)
	var ctx *pkcs11.Ctx
	if fault == "" {
		ctx, fault = pkcs11.New(Loaded(path)), "it was loaded, and is not found again by its name"
	}
	if ctx == nil {
		hint := "install what it needs itself: " + missing(path)
		if library != 0 {
			hint = "where it is the right one, see its configuration, its licence and its log"
		}
		return nil, control.HSMModule.Refuse("the PKCS#11 module %s can't be loaded: %s", path, fault).
			WithHint("name the HSM's PKCS#11 module with --hsm-module, and %s", hint)
	}
	m = &Module{Ctx: ctx, library: library}
	if begun {
		if _, err := m.GetInfo(); err == nil {
			return m, nil
		}
	}
	if err := m.Start(parameters); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		ctx.Destroy()
		return nil, control.HSMModule.Refuse("the PKCS#11 module %s can't be initialised: %w", path, err).
			WithHint("check what the module reads: its environment, its configuration file, and --hsm-parameters where it takes them; and whether it reaches its HSM")
	}
	return m, nil
}

// Unload finalises a module and unloads it.
func (m *Module) Unload() error {
	defer m.Destroy()
	return m.Finalize()
}

// MakeSoftHSMToken initialises SoftHSM's first free slot as a token with
// the label and the two PINs. The caller wrote a configuration with a token
// directory of its own and set SOFTHSM2_CONF to it; any other module than
// SoftHSM is refused (KF-HSM-REHEARSAL), so that no real HSM is ever initialised,
// and so is a label that is there already (KF-HSM-EXISTS).
func MakeSoftHSMToken(path, label string, pin, soPIN []byte) (err error) {
	m, err := Load(path, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Unload()) }()
	slot, err := freeSoftHSMSlot(m, label)
	if err != nil {
		return err
	}
	if err := m.InitToken(slot, string(soPIN), label); err != nil {
		return Failed("initialise the rehearsal token", err)
	}
	session, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return Failed("open a session on the rehearsal token", err)
	}
	if err := m.Login(session, pkcs11.CKU_SO, string(soPIN)); err != nil {
		return Failed("log its security officer in", err)
	}
	return Failed("set the user PIN", m.InitPIN(session, string(pin)))
}

// slots are the calls that look at a module's tokens.
type slots interface {
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
}

// freeSoftHSMSlot finds the first uninitialised slot.
func freeSoftHSMSlot(ck slots, label string) (uint, error) {
	all, err := ck.GetSlotList(true)
	if err != nil {
		return 0, Failed("list its slots", err)
	}
	var free []uint
	for _, slot := range all {
		info, err := ck.GetTokenInfo(slot)
		switch {
		case err != nil:
			return 0, Failed("describe a token", err)
		case !strings.HasPrefix(info.ManufacturerID, "SoftHSM"):
			return 0, control.HSMRehearsal.Refuse("the PKCS#11 module is of %s, not of SoftHSM", control.Quote(info.ManufacturerID))
		case info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0:
			free = append(free, slot)
		case info.Label == label:
			return 0, control.HSMExists.Refuse("there is a token labelled %s already", control.Quote(label))
		}
	}
	if len(free) == 0 {
		return 0, control.HSMRehearsal.Refuse("SoftHSM has no uninitialised slot among %d", len(all))
	}
	return free[0], nil
}
