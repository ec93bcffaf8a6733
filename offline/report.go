// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd"
	"keyferry/pkg/tpd/xrml"
)

// This file turns reports on TPD exports into text for people, 80 columns wide
// where what is shown allows it. Programs read the JSON.

// verdicts are what people read for tpd's verdicts.
var verdicts = map[string]string{
	tpd.VerdictHSM:              "can become an HSM key",
	tpd.VerdictMicrosoftManaged: "can only be Microsoft-managed",
	tpd.VerdictRefused:          "must not be used",
}

// fileName is a file's name as it can stand in text. One that could pass for
// something else there is quoted: whoever wrote the stick chose it.
func fileName(path string) string {
	name := filepath.Base(path)
	if strings.Join(strings.Fields(name), " ") != name { // it could draw lines and columns
		return strconv.QuoteToASCII(name)
	}
	return control.Plain(name)
}

// shortName is a file's name in at most n columns. One that is not plain ASCII
// is quoted: how wide it would be is the terminal's secret.
func shortName(path string, n int) string {
	name := fileName(path)
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		name = strconv.QuoteToASCII(name)
	}
	return shorten(name, n)
}

// describeAll describes each file, then, of several, what they have to do with
// each other.
func describeAll(w *strings.Builder, files []inspected, survey tpd.Survey, verbose bool) {
	for _, f := range files {
		fmt.Fprintln(w, fileName(f.File))
		switch {
		case f.Report != nil:
			describe(w, f.Report, verbose)
		case f.Bits > 0:
			line(w, "key", "RSA-%d, by the size of its field", f.Bits)
		}
		line(w, "verdict", "%s", cli.Fold(f.verdict()+f.because(), 16))
	}
	if len(files) > 1 {
		describeTable(w, files)
		describeSurvey(w, files, survey)
	}
}

// verdict says what can become of a file. With another password, or from another
// place, it may turn out to be sound.
func (f inspected) verdict() string {
	switch {
	case f.Error == "":
		return verdicts[f.Report.Verdict]
	case f.Control == control.TPDPassword.ID || f.Control == control.InputFile.ID:
		return "not opened"
	}
	return verdicts[tpd.VerdictRefused]
}

// because is what stands in the way, or "".
func (f inspected) because() string {
	switch {
	case f.Error != "":
		return ": " + f.Error
	case f.Report.Reason != "":
		return ": " + f.Report.Reason
	}
	return ""
}

// line writes a label and a text, whose further lines are set in as well.
func line(w *strings.Builder, label, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n"+strings.Repeat(" ", 16))
	fmt.Fprintf(w, "  %-13s %s\n", label, text)
}

func describe(w *strings.Builder, r *tpd.Report, verbose bool) {
	line(w, "key", "RSA-%d, mode %d, GUID %s", r.Bits, r.Mode, dash(r.KeyGUID))
	describeFingerprint(w, "fingerprint", r.Fingerprint)
	if verbose { // as Azure shows it
		line(w, "modulus", "%s", inLines(r.ModulusBase64, 60))
	}
	line(w, "derivation", "document %s, key %s", dash(string(r.Derivation.Document)), dash(string(r.Derivation.Key)))
	line(w, "CSP", "type %d, %s\ncontainer %s, key number %d", r.CSPType, control.Quote(r.CSPName), control.Quote(r.KeyContainer), r.KeyNumber)
	if r.SLC != nil {
		describeSLC(w, r.SLC)
	}
	line(w, "templates", "%d", len(r.Templates))
	for _, t := range r.Templates {
		describeTemplate(w, t, verbose)
	}
	for _, f := range r.Findings {
		line(w, findingLabel(r, f), "%s", cli.Fold(f.Message+" ["+f.Control+"]", 16))
	}
}

// findingLabel: what makes a key Microsoft-managed only is no refusal of it.
func findingLabel(r *tpd.Report, f tpd.Finding) string {
	switch {
	case f.Warning:
		return "warning"
	case r.Verdict == tpd.VerdictMicrosoftManaged:
		return "limit"
	}
	return "refused"
}

// describeFingerprint shows a fingerprint for the eye and for the ear.
func describeFingerprint(w *strings.Builder, label, hex string) {
	print, err := fingerprint.Parse(hex)
	if err != nil {
		line(w, label, "-")
		return
	}
	line(w, label, "%s\n%s", print.Grouped(), print.Rows())
}

func describeSLC(w *strings.Builder, slc *xrml.SLC) {
	line(w, "server", "%s\n%s", control.Quote(slc.ServerName), control.Quote(slc.ServerURL))
	line(w, "issued", "%s by %s", day(slc.Issued), control.Quote(slc.IssuerName))
	line(w, "valid", "%s to %s; may issue %s to %s", day(slc.ValidFrom), day(slc.ValidUntil), day(slc.IssuingFrom), day(slc.IssuingUntil))
	pinned := "not pinned"
	if slc.RootPinned {
		pinned = "pinned"
	}
	line(w, "hierarchy", "%s; root key, %s:\n%s", slc.Hierarchy, pinned, groupedHex(slc.RootFingerprint))
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

func describeTemplate(w *strings.Builder, t xrml.Template, verbose bool) {
	lines := []string{dash(t.GUID)}
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
	line(w, "  template", "%s", strings.Join(lines, "\n"))
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

// tableWidth is that of all columns but the first two, with the space between
// all.
const tableWidth = 2 + 2 + 8 + 2 + 5 + 2 + 10 + 2 + 29

// describeTable is the survey at a glance, in 80 columns.
func describeTable(w *strings.Builder, files []inspected) {
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tFILE\tKEY\tBITS\tISSUED\tVERDICT")
	room := cli.Width - tableWidth - len(fmt.Sprint(len(files)))
	for i, f := range files {
		key, bits, issued := "-", f.Bits, "-"
		if r := f.Report; r != nil {
			key, bits = dash(shorten(r.KeyGUID, 8)), cmp.Or(r.Bits, f.Bits)
			if r.SLC != nil {
				issued = day(r.SLC.Issued)
			}
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", i+1, shortName(f.File, room), key, dash(number(uint64(bits))), issued, f.verdict())
	}
	table.Flush() // into memory: can't fail
}

// shorten cuts text to n characters, the last of which then says so.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// entry writes a text of any length: its further lines are set in.
func entry(w *strings.Builder, format string, args ...any) {
	fmt.Fprintln(w, cli.SetIn(fmt.Sprintf(format, args...), 6))
}

func describeSurvey(w *strings.Builder, files []inspected, survey tpd.Survey) {
	for _, g := range survey.Groups {
		describeGroup(w, files, g)
	}
	if len(survey.Unread) > 0 {
		fmt.Fprintln(w)
		entry(w, "Not read: %s; what is said of the others leaves them out", numbers(survey.Unread))
	}
	for _, c := range survey.Conflicts {
		fmt.Fprintln(w)
		entry(w, "Conflict: %s have one GUID and different keys; one of them is not what it says", numbers(c))
	}
}

func describeGroup(w *strings.Builder, files []inspected, g tpd.Group) {
	item := func(format string, args ...any) {
		w.WriteString("  ")
		entry(w, format, args...)
	}
	fmt.Fprintln(w)
	entry(w, "Together: %s", numbers(g.Files))
	for i, why := range g.Because {
		item("%s: %s", numbers(g.BecauseFiles[i]), why)
	}
	for _, d := range g.SameKey {
		item("the same key: %s; use %s: %s", numbers(d.Files), oneOf(d.Use), d.Reason)
	}
	if g.Newest < 0 {
		item("newest: several keys, issued at the same time")
	} else {
		item("newest: %d", g.Newest+1)
	}
	switch {
	case g.Active >= 0:
		item("make active: %d (%s): %s", g.Active+1, shortName(files[g.Active].File, 40), g.Reason)
	case len(g.Choices) > 0:
		item("make active: one of %s: %s", numbers(g.Choices), g.Reason)
	default:
		item("make active: none: %s", g.Reason)
	}
}

// oneOf writes a position as people count, or that it is none.
func oneOf(position int) string {
	if position < 0 {
		return "none"
	}
	return fmt.Sprint(position + 1)
}

// numbers writes positions as people count.
func numbers(positions []int) string {
	var texts []string
	for _, p := range positions {
		texts = append(texts, fmt.Sprint(p+1))
	}
	return strings.Join(texts, ", ")
}
