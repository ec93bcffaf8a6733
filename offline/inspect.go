// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd"
)

var inspectCommand = cli.Command{
	Name:    "inspect",
	Summary: "report what is in TPD exports, and what can become of them",
	Usage: `
Usage: offline inspect TPD… [flags]

Decrypts and checks TPD exports and reports what they hold, with a verdict each:
can become an HSM key, can only be Microsoft-managed, must not be used. Of
several it says which belong together, which are the same key twice, and which
one to make active. Changes nothing and needs no state directory.

  --protection-password-file PATH    the exports' password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --verbose                          also the modulus in base64, as Azure shows
                                     it, and the templates' rights and URLs

Example: offline inspect drawer/*.xml --protection-password-file pw
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o inspectOptions
		o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		pinned := flags.StringArray("pinned-root", nil, "")
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if len(args) == 0 {
				return control.CommandLine.Refuse("no TPD was given")
			}
			if err := o.password.CheckPaths(args); err != nil {
				return err
			}
			var err error
			if o.roots, err = parseRoots(*pinned); err != nil {
				return err
			}
			return o.run(ctx, io, args)
		}
	},
}

type inspectOptions struct {
	password *cli.SecretFlags
	roots    []fingerprint.Fingerprint
}

// parseRoots reads the values of --pinned-root.
func parseRoots(texts []string) ([]fingerprint.Fingerprint, error) {
	var roots []fingerprint.Fingerprint
	for _, text := range texts {
		root, err := fingerprint.Parse(text)
		if err != nil {
			return nil, control.CommandLine.Refuse("--pinned-root: %w", err)
		}
		roots = append(roots, root)
	}
	return roots, nil
}

// inspected is the report on one file. Report is nil where the file can't be
// opened; Error then says why.
type inspected struct {
	File   string      `json:"file"`
	Report *tpd.Report `json:"report"`
	Error  string      `json:"error"`
}

// run reports on every file. Its error is those of all files that must not be
// used; a key that can only be Microsoft-managed is none.
func (o *inspectOptions) run(ctx context.Context, io *cli.IO, paths []string) error {
	passwords, err := o.password.Read(ctx, io, len(paths))
	if err != nil {
		return err
	}
	files := make([]inspected, len(paths))
	reports := make([]*tpd.Report, len(paths))
	var problems []error
	for i, path := range paths {
		io.Progress("inspecting", i, len(paths))
		report, err := o.inspect(path, passwords[i])
		clear(passwords[i])
		files[i], reports[i] = inspected{File: path, Report: report}, report
		if err != nil {
			files[i].Error = err.Error()
		} else if report.Verdict == tpd.VerdictRefused {
			err = report.Err()
		}
		if err != nil {
			problems = append(problems, control.About(filepath.Base(path), err))
		}
	}
	io.Progress("inspecting", len(paths), len(paths))
	survey := tpd.NewSurvey(reports)
	var text strings.Builder
	describeAll(&text, files, survey, io.Verbose)
	if err := io.Result(map[string]any{"files": files, "survey": survey}, text.String()); err != nil {
		return err
	}
	return errors.Join(problems...)
}

func (o *inspectOptions) inspect(path string, password []byte) (*tpd.Report, error) {
	file, err := cli.ReadInput(path)
	if err != nil {
		return nil, err
	}
	export, err := tpd.Parse(file)
	if err != nil {
		return nil, err
	}
	domain, err := export.Decrypt(password)
	if err != nil {
		return nil, err
	}
	defer domain.Clear()
	return domain.Check(time.Now(), o.roots...), nil
}
