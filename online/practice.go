// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/pflag"

	"keyferry/online/internal/practice"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

var practiceServeCommand = cli.Command{
	Name:    "practice serve",
	Summary: "let other clients use a rehearsal's practice vault",
	Shows:   true,
	Usage: `
Usage: online practice serve [flags]

Serves the practice vault of a rehearsal on this machine alone, to other clients
of Key Vault, until it is interrupted. It prints its address, the bearer token
that it takes, and its certificate; token and certificate are of this run. No
other command can use the state directory meanwhile.

Key identifiers name https://practice.vault.keyferry.test whatever the address:
a client has to leave out its check that the challenge is of the host it called.

  --listen ADDRESS          of the loopback (default: 127.0.0.1:0, a free port)
  --certificate-file PATH   where to write the certificate, as PEM, for clients
                            that take it from a file; it is removed in the end

Example: online practice serve --certificate-file practice-vault.pem --json
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		listen := flags.String("listen", "127.0.0.1:0", "")
		certificate := flags.String("certificate-file", "", "")
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return servePractice(ctx, io, s, *listen, *certificate) })
		}
	},
}

// servePractice serves until ctx ends.
func servePractice(ctx context.Context, io *cli.IO, s *state.State, listen, certificate string) (err error) {
	if !s.Rehearsal {
		return control.TrustRehearsal.Refuse("a real ceremony has no practice vault")
	}
	cloud, err := practice.Open(s.Path("practice"))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return control.CommandLine.Refuse("--listen: %w", err).WithHint("name a free port of 127.0.0.1")
	}
	endpoint, err := cloud.Serve(listener)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endpoint.Close()) }()
	if certificate != "" {
		if err := durable.Create(certificate, endpoint.Certificate(), 0o644); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, durable.Remove(certificate)) }()
	}
	doc := map[string]any{
		"address": endpoint.Address(), "vault": endpoint.URL(), "token": endpoint.Token(), "certificate": string(endpoint.Certificate()),
	}
	err = io.Result(doc, fmt.Sprintf("The practice vault answers at %s\nBearer token: %s\n%s", endpoint.Address(), endpoint.Token(), endpoint.Certificate()))
	if err != nil {
		return err
	}
	io.Note("serving until it is interrupted (Ctrl-C)")
	<-ctx.Done()
	return nil
}
