// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
)

// withTenant runs f with a tenant to drive, where the way is one that drives
// it: for PowerShell signed in while f runs, for the kit without.
func withTenant(ctx context.Context, io *cli.IO, w ceremony.Way, c ceremony.Cloud, f func(c ceremony.Cloud) error) (err error) {
	switch w {
	case ceremony.ByKit:
		c.Tenant = nil
	case ceremony.ByPowerShell:
		session, err := signInToTenant(ctx, io, c.Azure)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		c.Tenant = session
	}
	return f(c)
}

// signInToTenant starts Windows PowerShell and signs in, in that cloud of Azure.
func signInToTenant(ctx context.Context, io *cli.IO, azure string) (*tenant.PowerShell, error) {
	session, err := startPowerShell(ctx, io)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, io, session, azure); err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return session, nil
}

func connect(ctx context.Context, io *cli.IO, session *tenant.PowerShell, azure string) error {
	io.Note("signing in to Azure RMS, in a window of its own")
	return session.Connect(ctx, azure)
}

// startPowerShell finds Windows PowerShell and checks what is in it. With
// --verbose, what the module says is shown.
func startPowerShell(ctx context.Context, io *cli.IO) (*tenant.PowerShell, error) {
	path, err := tenant.FindPowerShell()
	if err != nil {
		return nil, err
	}
	return tenant.Start(ctx, path, func(line string) { io.Detail("AIPService: %s", control.Quote(line)) })
}
