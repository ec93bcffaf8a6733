// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// withTenant runs f with a tenant to drive, where the way is one that drives
// it: for PowerShell signed in while f runs, for the kit without.
func withTenant(ctx context.Context, io *cli.IO, s *state.State, w ceremony.Way, c ceremony.Cloud, f func(c ceremony.Cloud) error) error {
	switch w {
	case ceremony.ByKit:
		c.Tenant = nil
	case ceremony.ByPowerShell:
		session, err := startPowerShell(ctx, io, s)
		if err != nil {
			return err
		}
		defer session.Close()
		if err := connect(ctx, io, session, c.Azure); err != nil {
			return err
		}
		c.Tenant = session
	}
	return f(c)
}

func connect(ctx context.Context, io *cli.IO, session *tenant.PowerShell, azure string) error {
	io.Note("signing in to Azure RMS, in a window of its own, which may stand behind this one")
	return session.Connect(ctx, azure)
}

// scratchDir is where a TPD lies while PowerShell imports it.
const scratchDir = "tpd-in-transit"

// startPowerShell finds Windows PowerShell and checks what is in it. With
// --verbose, all that the module says is shown.
func startPowerShell(ctx context.Context, io *cli.IO, s *state.State) (*tenant.PowerShell, error) {
	path, err := tenant.FindPowerShell()
	if err != nil {
		return nil, err
	}
	return tenant.Start(ctx, path, s.Path(scratchDir), tenant.Hearer{
		Detail: func(line string) { io.Detail("AIPService: %s", control.Plain(line)) },
		Note:   func(line string) { io.Note("AIPService: %s", control.Plain(line)) },
		Warn:   func(line string) { io.Warn("AIPService: %s", control.Plain(line)) },
	})
}
