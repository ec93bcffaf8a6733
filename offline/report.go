// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"keyferry/offline/internal/survey"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
)

// This file turns reports on several TPD exports into text for people, 80 columns
// wide. What is said of one is package inspect's. Programs read the JSON.

// shortName is a file's name in at most n columns. One that is not plain ASCII
// is quoted: how wide it would be is the terminal's secret.
func shortName(path string, n int) string {
	name := inspect.FileName(path)
	if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
		name = strconv.QuoteToASCII(name)
	}
	return shorten(name, n)
}

// describeAll describes each file, then, of several, what they have to do with
// each other.
func describeAll(w *strings.Builder, files []inspect.File, s survey.Survey, verbose bool) {
	for _, f := range files {
		f.Describe(w, verbose)
	}
	if len(files) > 1 {
		describeTable(w, files)
		describeSurvey(w, files, s)
	}
}

// tableWidth is that of all columns but the first two, with the space between
// all.
const tableWidth = 2 + 2 + 8 + 2 + 5 + 2 + 10 + 2 + 29

// describeTable is the survey at a glance, in 80 columns.
func describeTable(w *strings.Builder, files []inspect.File) {
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tFILE\tKEY\tBITS\tISSUED\tVERDICT")
	room := cli.Width - tableWidth - len(fmt.Sprint(len(files)))
	for i, f := range files {
		key, bits, issued := "-", f.Bits, "-"
		if r := f.Report; r != nil {
			key, bits = dash(shorten(r.KeyGUID, 8)), cmp.Or(r.Bits, f.Bits)
			if r.SLC != nil {
				issued = inspect.Day(r.SLC.Issued)
			}
		}
		verdict, _, _ := strings.Cut(f.Verdict(), ":") // less what to do
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", i+1, shortName(f.File, room), key, dash(number(uint64(bits))), issued, verdict)
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

func describeSurvey(w *strings.Builder, files []inspect.File, s survey.Survey) {
	for _, g := range s.Groups {
		describeGroup(w, files, g)
	}
	if len(s.Unread) > 0 {
		fmt.Fprintln(w)
		entry(w, "Not read: %s; what is said of the others leaves them out", numbers(s.Unread))
	}
	for _, c := range s.Conflicts {
		fmt.Fprintln(w)
		entry(w, "Conflict: %s have one GUID and different keys; one of them is not what it says", numbers(c))
	}
}

// maxLost is how many templates that would be lost are named; the JSON has all.
const maxLost = 20

func describeGroup(w *strings.Builder, files []inspect.File, g survey.Group) {
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
		for i, lost := range d.Lost {
			if i == maxLost {
				item("and %d templates more", len(d.Lost)-maxLost)
				break
			}
			item("template that comes with %d only: %s, %s", lost.File+1, control.Quote(lost.Name), lost.GUID)
		}
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

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
