// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"runtime"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/rms"
	"keyferry/pkg/state"
)

// way is how TPDs get into the tenant.
type way string

const (
	byPractice   way = "practice"   // a rehearsal's own tenant
	byPowerShell way = "powershell" // the AIPService module on this machine
	byKit        way = "kit"        // a person, on a Windows machine
)

// wayFile keeps the way that was chosen at init.
const wayFile = "tenant.json"

type wayChoice struct {
	Tenant way `json:"tenant"`
}

// chooseWay reads --tenant; empty is the default. A rehearsal never gets to a
// real tenant by itself.
func chooseWay(name string, rehearsal bool) (way, error) {
	switch w := way(name); {
	case w == "" && rehearsal:
		return byPractice, nil
	case w == "" && runtime.GOOS == "windows":
		return byPowerShell, nil
	case w == "":
		return byKit, nil
	case w == byKit, w == byPowerShell && !rehearsal, w == byPractice && rehearsal:
		return w, nil
	case w == byPowerShell:
		return "", control.TrustRehearsal.Refuse("--tenant powershell: a rehearsal never reaches a real tenant")
	case w == byPractice:
		return "", control.TrustRehearsal.Refuse("--tenant practice: the practice tenant is for rehearsals only")
	}
	return "", control.CommandLine.Refuse("--tenant is %s, which is neither powershell nor kit", control.Quote(name))
}

// wayInto is --tenant of this run, or else of init.
func wayInto(s *state.State, name string) (way, error) {
	if name != "" {
		return chooseWay(name, s.Rehearsal)
	}
	var chosen wayChoice
	if err := s.ReadJSON(wayFile, &chosen); err != nil {
		return "", control.StateDamaged.Refuse("the way into the tenant can't be read: %w", err)
	}
	return chooseWay(string(chosen.Tenant), s.Rehearsal)
}

// startPowerShell finds Windows PowerShell and checks what is in it. With
// --verbose, what the module says is shown.
func startPowerShell(ctx context.Context, io *cli.IO) (*rms.PowerShell, error) {
	path, err := rms.FindPowerShell()
	if err != nil {
		return nil, err
	}
	return rms.Start(ctx, path, func(line string) { io.Detail("AIPService: %s", control.Quote(line)) })
}
