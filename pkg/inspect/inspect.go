// SPDX-License-Identifier: Apache-2.0

// Package inspect reads TPD exports and keyless TPDs for a report, with the warnings that
// stand in no import's way, and writes it as text for people, 80 columns wide where what
// is shown allows it.
// Programs read the JSON of a [File]: docs/inspect.md says what its names mean.
package inspect

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd"
)

// File is what was found of one file.
type File struct {
	File    string  `json:"file"`
	Bits    int     `json:"bits"`   // of the key, as it shows without the password; 0 if it does not
	Report  *Report `json:"report"` // nil where the file can't be opened
	Error   string  `json:"error"`  // why that is, or with which files it is in conflict
	Control string  `json:"control"`
	Hint    string  `json:"hint"`

	Err error `json:"-"` // why it must not be used
}

// ReadAll reads and checks files: exports, or keyless TPDs. It returns an error for
// each that must not be used.
func ReadAll(ctx context.Context, io *cli.IO, flags *cli.SecretFlags, paths []string, terms tpd.Terms, keyless bool) (files []File, problems []error, err error) {
	passwords, err := Passwords(ctx, io, flags, paths)
	if err != nil {
		return nil, nil, err
	}
	for i, path := range paths {
		io.Progress("inspecting", i, len(paths))
		f := read(path, passwords[i], terms, keyless)
		clear(passwords[i])
		files = append(files, f)
		if f.Err != nil {
			problems = append(problems, control.About(FileName(path), f.Err))
		}
	}
	io.Progress("inspecting", len(paths), len(paths))
	return files, problems, nil
}

// Passwords reads the passwords of exports. Where they are typed, each file's is asked
// for by its name and tried at once, unless one that was typed before opens it.
func Passwords(ctx context.Context, io *cli.IO, flags *cli.SecretFlags, paths []string) ([][]byte, error) {
	if flags.Given() {
		return flags.Read(ctx, io, len(paths))
	}
	var names []string
	for _, path := range paths {
		names = append(names, FileName(path))
	}
	return flags.ReadEach(ctx, io, names, func(i int, password []byte) error {
		f := read(paths[i], password, tpd.Terms{}, false)
		if f.Control == control.TPDPassword.ID {
			return f.Err
		}
		return nil // what else is wrong with it is told later
	})
}

// read reads and checks a file.
func read(path string, password []byte, terms tpd.Terms, keyless bool) File {
	f := File{File: path}
	if err := f.read(password, terms, keyless); err != nil {
		f.Refuse(cli.Refusals(err)[0])
	}
	return f
}

func (f *File) read(password []byte, terms tpd.Terms, keyless bool) error {
	file, err := cli.ReadAtMost(f.File, tpd.MaxSize)
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
	check := domain.Check
	if keyless {
		check = domain.CheckKeyless
	}
	found := check(terms)
	if f.Report = NewReport(found); f.Report.Verdict == VerdictRefused {
		f.Err = found.Err()
	}
	return nil
}

// Refuse notes why a file must not be used, or was not opened.
func (f *File) Refuse(r *control.Refusal) {
	f.Err, f.Error, f.Control, f.Hint = r, r.Error(), r.Control.ID, r.Hint
}

// verdicts are what people read for tpd's verdicts.
var verdicts = map[string]string{
	VerdictHSM:              "can become an HSM key",
	VerdictInHSM:            "its key is in an HSM: offline wrap",
	VerdictMicrosoftManaged: "can only be Microsoft-managed",
	VerdictKeyless:          "keyless, goes to the tenant with its key's URL",
	VerdictRefused:          "must not be used",
}

// Verdict says what can become of a file. With another password, or from another
// place, one that was not opened may turn out to be sound.
func (f File) Verdict() string {
	switch {
	case f.Error == "":
		return verdicts[f.Report.Verdict]
	case f.Control == control.TPDPassword.ID || f.Control == control.InputFile.ID:
		return "not opened"
	}
	return verdicts[VerdictRefused]
}

// Describe describes a file.
func (f File) Describe(w *strings.Builder, verbose bool) {
	fmt.Fprintln(w, FileName(f.File))
	switch {
	case f.Report != nil:
		describe(w, f.Report, verbose)
	case f.Bits > 0:
		Line(w, "key", "RSA-%d, by the size of its field", f.Bits)
	}
	because := ""
	switch {
	case f.Error != "":
		because = ": " + f.Error
	case f.Report.Reason != "":
		because = ": " + f.Report.Reason
	}
	Line(w, "verdict", "%s", cli.Fold(f.Verdict()+because, 16))
}

// FileName is a file's name as it can stand in text. One that could pass for
// something else there is quoted: whoever wrote the stick chose it.
func FileName(path string) string {
	name := filepath.Base(path)
	if strings.Join(strings.Fields(name), " ") != name { // it could draw lines and columns
		return control.Quote(name)
	}
	return control.Plain(name)
}

// Line writes a label and a text, whose further lines are set in as well.
func Line(w *strings.Builder, label, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n"+strings.Repeat(" ", 16))
	fmt.Fprintf(w, "  %-13s %s\n", label, text)
}

func describe(w *strings.Builder, r *Report, verbose bool) {
	Line(w, "key", "RSA-%d, mode %d, GUID %s", r.Bits, r.Mode, dash(r.KeyGUID))
	describeFingerprint(w, "fingerprint", r.Fingerprint)
	if verbose { // as Azure shows it
		Line(w, "modulus", "%s", inLines(r.ModulusBase64, 60))
	}
	Line(w, "derivation", "document %s, key %s", dash(string(r.Derivation.Document)), dash(string(r.Derivation.Key)))
	Line(w, "CSP", "type %d, %s\ncontainer %s, key number %d", r.CSPType, control.Quote(r.CSPName), control.Quote(r.KeyContainer), r.KeyNumber)
	if r.SLC != nil {
		describeSLC(w, r.SLC)
	}
	Line(w, "templates", "%d", len(r.Templates))
	for _, t := range r.Templates {
		writeTemplate(w, t, verbose)
	}
	for _, f := range r.Findings {
		label, text := findingLabel(r, f), f.Message+" ["+f.Control+"]"
		if label == "limit" {
			text += ": " + f.Hint
		}
		Line(w, label, "%s", cli.Fold(text, 16))
	}
}

// findingLabel: what gives a key a verdict of its own is no refusal of it.
func findingLabel(r *Report, f Finding) string {
	switch {
	case f.Warning:
		return "warning"
	case r.Verdict == VerdictMicrosoftManaged || r.Verdict == VerdictInHSM:
		return "limit"
	}
	return "refused"
}

// describeFingerprint shows a fingerprint for the eye and for the ear.
func describeFingerprint(w *strings.Builder, label, hex string) {
	print, err := fingerprint.Parse(hex)
	if err != nil {
		Line(w, label, "-")
		return
	}
	Line(w, label, "%s\n%s", print.Grouped(), print.Rows())
}

func past(end, now time.Time) bool { return !end.IsZero() && now.After(end) }

func describeSLC(w *strings.Builder, slc *SLC) {
	Line(w, "server", "%s\n%s", control.Quote(slc.ServerName), control.Quote(slc.ServerURL))
	Line(w, "issued", "%s by %s", Day(slc.Issued), control.Quote(slc.IssuerName))
	expired := ""
	if now := time.Now(); past(slc.ValidUntil, now) || past(slc.IssuingUntil, now) {
		expired = "\nEXPIRED: clients reject new licences under it"
	}
	Line(w, "valid", "%s to %s; may issue %s to %s%s", Day(slc.ValidFrom), Day(slc.ValidUntil), Day(slc.IssuingFrom), Day(slc.IssuingUntil), expired)
	pinned := "not pinned"
	if slc.RootPinned {
		pinned = "pinned"
	}
	Line(w, "hierarchy", "%s; root key, %s:\n%s", slc.Hierarchy, pinned, groupedHex(slc.RootFingerprint))
}

// inLines sets a text without spaces in lines of n characters.
func inLines(s string, n int) string {
	var lines []string
	for ; len(s) > n; s = s[n:] {
		lines = append(lines, s[:n])
	}
	return strings.Join(append(lines, s), "\n")
}

func groupedHex(hex string) string {
	print, err := fingerprint.Parse(hex)
	if err != nil {
		return "-"
	}
	return print.Grouped()
}

func writeTemplate(w *strings.Builder, t Template, verbose bool) {
	lines := []string{dash(t.GUID)}
	if past(t.ValidUntil, time.Now()) {
		lines[0] += ", expired " + Day(t.ValidUntil)
	}
	for _, n := range t.Names {
		lines = append(lines, fmt.Sprintf("%s: %s", control.Plain(n.LCID), control.Quote(n.Name)))
	}
	if verbose {
		for _, p := range t.DistributionPoints {
			lines = append(lines, control.Plain(p.Type)+" "+control.Quote(p.URL))
		}
		var rights []string
		for _, r := range t.Rights {
			rights = append(rights, control.Plain(r))
		}
		text := dash(strings.Join(rights, ", "))
		if t.Anyone {
			text += " (ANYONE)"
		}
		lines = append(lines, cli.Fold("rights: "+text, 16))
	}
	Line(w, "  template", "%s", strings.Join(lines, "\n"))
}

// Day is a date, or - for none.
func Day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

func dash(s string) string { return cmp.Or(s, "-") }
