// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/selftest"
	"keyferry/pkg/cli"
	"keyferry/pkg/secret"
)

func selftestCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "selftest",
		Summary: "have this program answer questions whose answers are known",
		Shows:   true,
		Usage: `
Usage: offline selftest

Checks digests, ciphers, signatures and the decryption of a sample TPD against
answers that other programs gave, and says what the sandbox holds. Every import
does the same before it reads anything.

Example: offline selftest
`,
		Stateless: true,
		Setup: func(*pflag.FlagSet) cli.Run {
			return func(_ context.Context, io *cli.IO, args []string) error {
				if err := io.NoArguments(args); err != nil {
					return err
				}
				names, err := selftest.Run()
				if err != nil {
					return err
				}
				doc := map[string]any{"result": "SUCCESS", "tests": names, "sandbox": p.Held, "memory": p.Memory, "erases_memory": secret.Erases}
				next := io.NextLines(doc, side.StandHere(io))
				return io.Result(doc, fmt.Sprintf("%s\nmemory: %s\nright: %s\n%s\nResult: SUCCESS", ceremony.SandboxText(p.Held), p.Memory, strings.Join(names, ", "), next))
			}
		},
	}
}
