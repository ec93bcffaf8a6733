// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
	"keyferry/pkg/tpd"
)

var inspectCommand = cli.Command{
	Name:    "inspect",
	Summary: "report what is in keyless TPDs",
	Shows:   true,
	Usage: `
Usage: online inspect KEYLESS-TPD… [flags]

Decrypts and checks keyless TPDs, as the disconnected side or TpdUtil wrote
them, and reports what they hold. A file that carries its private key is
refused: it does not belong on this side. Changes nothing and needs no state
directory.

  --protection-password-file PATH    the TPDs' password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --verbose                          also the modulus in base64, as Azure shows
                                     it, and the templates' rights and URLs

What each line means, and the names in the JSON: docs/inspect.md.

Example: online inspect no_key_tpd_contoso-slc.xml
           --protection-password-file one_time_password_contoso-slc.txt
`,
	Stateless: true,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		password := cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		return func(ctx context.Context, io *cli.IO, paths []string) error {
			if len(paths) == 0 {
				return control.CommandLine.Refuse("no keyless TPD was given")
			}
			if err := password.CheckPaths(paths); err != nil {
				return err
			}
			// The disconnected side may have accepted templates.
			terms := tpd.Terms{Now: time.Now(), AcceptTemplates: []string{tpd.AnyTemplate}}
			files, problems, err := inspect.ReadAll(ctx, io, password, paths, terms, true)
			if err != nil {
				return err
			}
			var text strings.Builder
			for _, f := range files {
				f.Describe(&text, io.Verbose)
			}
			doc := map[string]any{"files": files}
			if len(problems) > 0 {
				return errors.Join(io.Result(doc, text.String()), errors.Join(problems...))
			}
			return io.ResultNext(doc, text.String(), side.StandHere(io))
		}
	},
}
