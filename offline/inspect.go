// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd"
)

var inspectCommand = cli.Command{
	Name:    "inspect",
	Summary: "report what is in TPD exports, and what can become of them",
	Usage: `
Usage: offline inspect TPD… [flags]

Decrypts and checks TPD exports and reports what they hold, with a verdict each:
hsm (can become an HSM key), microsoft-managed (only that), refused. Changes
nothing and needs no state directory.

  --protection-password-file PATH    the exports' password: one for all, or one
                                     each (or --protection-password-fd N, or
                                     --protection-password to be asked)

Example: offline inspect contoso.xml --protection-password-file pw
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		password := cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if len(args) == 0 {
				return control.CommandLine.Refuse("no TPD was given")
			}
			if err := secret.Harden(); err != nil {
				return err
			}
			return inspect(ctx, io, args, password)
		}
	},
}

// inspected is the report on one file. Report is nil where the file can't be
// opened; Error then says why.
type inspected struct {
	File   string      `json:"file"`
	Report *tpd.Report `json:"report"`
	Error  string      `json:"error"`
}

// inspect reports on every file. Its error is those of all files that must not
// be used; a key that can only be Microsoft-managed is none.
func inspect(ctx context.Context, io *cli.IO, paths []string, password *cli.SecretFlags) error {
	passwords, err := password.Read(ctx, io, len(paths))
	if err != nil {
		return err
	}
	var reports []inspected
	var text strings.Builder
	var problems []error
	for i, path := range paths {
		report, err := inspectFile(path, passwords[i])
		clear(passwords[i])
		entry := inspected{File: path, Report: report}
		switch {
		case err != nil:
			entry.Error = err.Error()
			problems = append(problems, control.About(filepath.Base(path), err))
			fmt.Fprintf(&text, "%s\n  verdict       refused: %v\n", filepath.Base(path), err)
		default:
			if report.Verdict == tpd.VerdictRefused {
				problems = append(problems, control.About(filepath.Base(path), report.Err()))
			}
			describe(&text, filepath.Base(path), report)
		}
		reports = append(reports, entry)
	}
	if err := io.Result(map[string]any{"files": reports}, text.String()); err != nil {
		return err
	}
	return errors.Join(problems...)
}

func inspectFile(path string, password []byte) (*tpd.Report, error) {
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
	return domain.Check(time.Now()), nil
}

// verdicts are what people read for tpd's verdicts.
var verdicts = map[string]string{
	tpd.VerdictHSM:              "can become an HSM key",
	tpd.VerdictMicrosoftManaged: "can only be Microsoft-managed",
	tpd.VerdictRefused:          "must not be used",
}

func describe(w *strings.Builder, name string, r *tpd.Report) {
	fmt.Fprintln(w, name)
	line := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-13s %s\n", label, fmt.Sprintf(format, args...))
	}
	line("key", "RSA-%d, mode %d, GUID %s", r.Bits, r.Mode, r.KeyGUID)
	line("fingerprint", "%s", r.Fingerprint)
	line("derivation", "document %s, key %s", dash(string(r.Derivation.Document)), dash(string(r.Derivation.Key)))
	line("CSP", "type %d, %s, container %s", r.CSPType, control.Quote(r.CSPName), control.Quote(r.KeyContainer))
	if r.SLC != nil {
		describeSLC(line, r)
	}
	line("templates", "%d", len(r.Templates))
	for _, f := range r.Findings {
		kind := "refused"
		if f.Warning {
			kind = "warning"
		}
		line(kind, "%s [%s]", f.Message, f.Control)
	}
	verdict := verdicts[r.Verdict]
	if r.Reason != "" {
		verdict += ": " + r.Reason
	}
	line("verdict", "%s", verdict)
}

func describeSLC(line func(label, format string, args ...any), r *tpd.Report) {
	slc := r.SLC
	line("server", "%s, %s", control.Quote(slc.ServerName), control.Quote(slc.ServerURL))
	line("issued", "%s by %s", day(slc.Issued), control.Quote(slc.IssuerName))
	line("valid", "%s to %s; may issue %s to %s", day(slc.ValidFrom), day(slc.ValidUntil), day(slc.IssuingFrom), day(slc.IssuingUntil))
	line("hierarchy", "%s, root key %s", slc.Hierarchy, slc.RootFingerprint)
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}
