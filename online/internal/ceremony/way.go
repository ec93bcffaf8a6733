// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"runtime"

	"keyferry/online/internal/tenant"
	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// Way is how TPDs get into the tenant.
type Way string

const (
	ByPractice   Way = "practice"   // a rehearsal's own tenant
	ByPowerShell Way = "powershell" // the AIPService module on this machine
	ByKit        Way = "kit"        // a person, on a Windows machine
)

// Cloud is the vault, and the tenant where there is one to drive.
type Cloud struct {
	Vault  *vault.Client
	Tenant tenant.Tenant // nil: a person imports the TPDs, by the kit
	Azure  string        // name of Azure's cloud; empty in a rehearsal
}

// wayFile keeps the way that was chosen at init.
const wayFile = "tenant.json"

type wayChoice struct {
	Tenant Way `json:"tenant"`
}

// ChooseWay reads --tenant; empty is the default. A rehearsal never gets to a
// real tenant by itself.
func ChooseWay(name string, rehearsal bool) (Way, error) {
	switch w := Way(name); {
	case w == "" && rehearsal:
		return ByPractice, nil
	case w == "" && runtime.GOOS == "windows":
		return ByPowerShell, nil
	case w == "":
		return ByKit, nil
	case w == ByKit, w == ByPowerShell && !rehearsal, w == ByPractice && rehearsal:
		return w, nil
	case w == ByPowerShell:
		return "", control.TrustRehearsal.Refuse("--tenant powershell: a rehearsal never reaches a real tenant")
	case w == ByPractice:
		return "", control.TrustRehearsal.Refuse("--tenant practice: the practice tenant is for rehearsals only")
	}
	return "", control.CommandLine.Refuse("--tenant is %s, which is neither powershell nor kit", control.Quote(name))
}

// KeepWay notes the way that was chosen at init.
func KeepWay(s *state.State, w Way) error { return s.WriteJSON(wayFile, wayChoice{w}) }

// WayInto is the way that --tenant names, or else the one chosen at init.
func WayInto(s *state.State, name string) (Way, error) {
	if name != "" {
		return ChooseWay(name, s.Rehearsal)
	}
	var chosen wayChoice
	if err := s.ReadJSON(wayFile, &chosen); err != nil {
		return "", control.StateDamaged.Refuse("the way into the tenant can't be read: %w", err)
	}
	return ChooseWay(string(chosen.Tenant), s.Rehearsal)
}
