// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/survey"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
)

var inspectCommand = cli.Command{
	Name:    "inspect",
	Summary: "report what is in TPD exports, and what can become of them",
	Shows:   true,
	Usage: `
Usage: offline inspect TPD… [flags]

Decrypts and checks TPD exports and reports what they hold, with a verdict each:
can become an HSM key, is in an HSM already (offline wrap), can only be
Microsoft-managed, must not be used. Of several it says which belong together,
which are the same key twice, which are in conflict, and which one to make
active. Changes nothing and needs no state directory.

  --protection-password-file PATH    the exports' password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)
  --pinned-root SHA256:…             refuse chains that do not end at this root
                                     key; may be repeated
  --accept-template GUID             take this rights policy template though it
                                     does not verify; may be repeated
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
		accept := flags.StringArray("accept-template", nil, "")
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
			if o.accept, err = parseTemplates(*accept); err != nil {
				return err
			}
			return o.run(ctx, io, args)
		}
	},
}

type inspectOptions struct {
	password *cli.SecretFlags
	roots    []fingerprint.Fingerprint
	accept   []string
}

// parseTemplates reads the values of --accept-template.
func parseTemplates(texts []string) ([]string, error) {
	var ids []string
	for _, text := range texts {
		id, err := tpd.ParseTemplateID(text)
		if err != nil {
			return nil, control.CommandLine.Refuse("--accept-template: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, nil
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

// run reports on every file. Its error is those of all files that must not be
// used; a key that can only be Microsoft-managed is none.
func (o *inspectOptions) run(ctx context.Context, io *cli.IO, paths []string) error {
	if !io.Rehearsal {
		ceremony.WarnOfNetwork(io)
	}
	terms := tpd.Terms{Now: time.Now(), PinnedRoots: o.roots, AcceptTemplates: o.accept}
	files, problems, err := inspect.ReadAll(ctx, io, o.password, paths, terms, false)
	if err != nil {
		return err
	}
	var reports []*inspect.Report
	for _, f := range files {
		reports = append(reports, f.Report)
	}
	found := survey.New(reports, terms.Now)
	problems = append(problems, refuseConflicts(files, found)...)
	var text strings.Builder
	describeAll(&text, files, found, io.Verbose)
	doc := map[string]any{"files": files, "survey": found}
	if len(problems) > 0 {
		return errors.Join(io.Result(doc, text.String()), errors.Join(problems...))
	}
	text.WriteString("\n")
	return io.ResultNext(doc, text.String(), afterInspect(io, files, found))
}

// fewFiles can be named on one line.
const fewFiles = 4

// afterInspect is how the keys are carried, each once. Where the KEK package is, the state
// directory may know, if there is one; this command needs none.
func afterInspect(io *cli.IO, files []inspect.File, found survey.Survey) *cli.Standing {
	stand := &cli.Standing{}
	if !io.Began() {
		stand.Next("", "offline", "next")
	}
	kek, note := "BYOK-KEK-pkg-REGION-1", "once the KEK package is here, and with identifiers of your choice"
	if s, err := state.Open(io.State, state.Offline, ceremony.Self); err == nil {
		j, err := ceremony.ReadJournal(s.Ledger)
		w, _, none := ceremony.PinnedWorld(s)
		if errors.Join(err, none, s.Close()) == nil {
			kek, note, io.Rehearsal = j.KEKPackage(w), "with identifiers of your choice", s.Rehearsal
		}
	}
	for _, way := range []struct {
		command, verdict string
		more             []string
	}{{"import", inspect.VerdictHSM, nil}, {"wrap", inspect.VerdictInHSM, nil}, {"import", inspect.VerdictMicrosoftManaged, []string{"--microsoft-managed"}}} {
		var tpds []string
		for i, f := range files {
			again := slices.ContainsFunc(found.Groups, func(g survey.Group) bool {
				return slices.ContainsFunc(g.SameKey, func(d survey.Duplicate) bool { return slices.Contains(d.Files, i) && d.Use != i })
			})
			if f.Report != nil && f.Report.Verdict == way.verdict && !again {
				tpds = append(tpds, f.File)
			}
		}
		if len(tpds) == 0 {
			continue
		}
		words, why := []string{way.command}, note
		if len(tpds) > fewFiles {
			tpds, why = []string{"TPD"}, note+"; the first two flags for each key"
		}
		for i, file := range tpds {
			id := "ID"
			if len(tpds) > 1 {
				id = fmt.Sprintf("ID-%d", i+1)
			}
			words = append(words, "--tpd-file-path", file, "--key-identifier", id)
		}
		stand.Next(why, "offline", append(append(words, way.more...), "--exchange-key-package", kek)...)
	}
	return stand
}

// refuseConflicts refuses the files that have one GUID but different keys. Of
// each such GUID it returns one error.
func refuseConflicts(files []inspect.File, s survey.Survey) (problems []error) {
	for _, conflict := range s.Conflicts {
		var names []string
		for _, i := range conflict {
			names = append(names, inspect.FileName(files[i].File))
		}
		r := control.TPDGUIDUnique.Refuse("different keys have the GUID %s, in the files %s", files[conflict[0]].Report.KeyGUID, strings.Join(names, ", "))
		for _, i := range conflict {
			files[i].Refuse(r)
		}
		problems = append(problems, r)
	}
	return problems
}
