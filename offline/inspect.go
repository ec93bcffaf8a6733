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
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd"
)

var inspectCommand = cli.Command{
	Name:    "inspect",
	Summary: "report what is in TPD exports, and what can become of them",
	Shows:   true,
	Usage: `
Usage: offline inspect TPD… [flags]

Decrypts and checks TPD exports and reports what they hold, with a verdict each:
can become an HSM key, can only be Microsoft-managed, must not be used. Of
several it says which belong together, which are the same key twice, which are
in conflict, and which one to make active. Changes nothing and needs no state
directory.

  --protection-password-file PATH    the exports' password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --verbose                          also the modulus in base64, as Azure shows
                                     it, and the templates' rights and URLs

What each line means, and the names in the JSON: docs/inspect.md.

Example: offline inspect drawer/*.xml --protection-password-file pw
`,
	Stateless: true,
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

// inspected is what is found out about one file. Its names in JSON are stable:
// see docs/inspect.md.
type inspected struct {
	File    string      `json:"file"`
	Bits    int         `json:"bits"`   // of the key, as it shows without the password; 0 if it does not
	Report  *tpd.Report `json:"report"` // nil where the file can't be opened
	Error   string      `json:"error"`  // why that is, or with which files it is in conflict
	Control string      `json:"control"`
	Hint    string      `json:"hint"`

	err error // why it must not be used
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
		files[i] = o.inspect(path, passwords[i])
		clear(passwords[i])
		reports[i] = files[i].Report
		if err := files[i].err; err != nil {
			problems = append(problems, control.About(fileName(path), err))
		}
	}
	io.Progress("inspecting", len(paths), len(paths))
	survey := tpd.NewSurvey(reports)
	problems = append(problems, refuseConflicts(files, survey)...)
	var text strings.Builder
	describeAll(&text, files, survey, io.Verbose)
	if err := io.Result(map[string]any{"files": files, "survey": survey}, text.String()); err != nil {
		return err
	}
	return errors.Join(problems...)
}

func (o *inspectOptions) inspect(path string, password []byte) inspected {
	f := inspected{File: path}
	if err := o.read(&f, password); err != nil {
		f.refuse(cli.Refusals(err)[0])
	} else if f.Report.Verdict == tpd.VerdictRefused {
		f.err = f.Report.Err()
	}
	return f
}

func (o *inspectOptions) read(f *inspected, password []byte) error {
	file, err := cli.ReadInput(f.File)
	if err != nil {
		return err
	}
	export, err := tpd.Parse(file)
	if err != nil {
		return filetype.Explain(err, file, filetype.TPD)
	}
	f.Bits = export.KeyBits()
	domain, err := export.Decrypt(password)
	if err != nil {
		return err
	}
	defer domain.Clear()
	f.Report = domain.Check(time.Now(), o.roots...)
	return nil
}

func (f *inspected) refuse(r *control.Refusal) {
	f.err, f.Error, f.Control, f.Hint = r, r.Error(), r.Control.ID, r.Hint
}

// refuseConflicts refuses the files that have one GUID but different keys. Of
// each such GUID it returns one error.
func refuseConflicts(files []inspected, survey tpd.Survey) (problems []error) {
	for _, conflict := range survey.Conflicts {
		var names []string
		for _, i := range conflict {
			names = append(names, fileName(files[i].File))
		}
		r := control.TPDGUIDUnique.Refuse("different keys have the GUID %s, in the files %s", files[conflict[0]].Report.KeyGUID, strings.Join(names, ", "))
		for _, i := range conflict {
			files[i].refuse(r)
		}
		problems = append(problems, r)
	}
	return problems
}
