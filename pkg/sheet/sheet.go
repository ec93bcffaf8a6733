// SPDX-License-Identifier: Apache-2.0

// Package sheet sets what a ledger says of a ceremony on paper: one page a key,
// to be signed by hand and filed. As text it is 80 columns wide, 66 lines long at
// most, and has a form feed between pages; as HTML it is one file without script,
// style sheets or pictures from elsewhere, in pages of A4. What there may be any
// number of, or what may be of any length, is cut, and the page says so: the
// transcript has it whole.
package sheet

import (
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/trust"
)

// Sheet is what is printed.
type Sheet struct {
	Title   string
	Banner  string // under each title: rehearsal or real, and whose
	Pages   []Page
	Signers []string // the roles that sign each page
}

// Page is one page, about one key.
type Page struct {
	Heading  string
	Sections []Section
}

// Section is a part of a page.
type Section struct {
	Title string
	Rows  []Row
}

// Row is a fact: a text, or a digest, which is set in hex and, where people
// compare it, in words.
type Row struct {
	Label string
	Value string
	Print fingerprint.Fingerprint // instead of Value, if not zero
	Words bool
}

// Add adds a fact, of a line for each value that is not empty.
func (s *Section) Add(label string, values ...string) {
	for _, value := range values {
		if value != "" {
			s.Rows = append(s.Rows, Row{Label: label, Value: control.Plain(value)})
			label = ""
		}
	}
}

// AddSome adds a fact of many values, each on one line, as many as fit on the page.
func (s *Section) AddSome(label string, values []string) {
	var lines []string
	for i, value := range values {
		if i == maxSome-1 && len(values) > maxSome {
			lines = append(lines, fmt.Sprintf("… and %d others: see the transcript", len(values)-i))
			break
		}
		lines = append(lines, cut(control.Plain(value), width, "…"))
	}
	s.Add(label, lines...)
}

// AddBrief adds a fact, if not empty, of which only the beginning may fit on the page.
func (s *Section) AddBrief(label, value string) {
	s.Add(label, cut(control.Plain(value), 2*width, "… see the transcript"))
}

// maxSome is how many lines a fact of many values has, and width is theirs.
const (
	maxSome = 4
	width   = 80 - labelWidth - 1
)

// cut leaves a text of at most size characters, with the mark where it was longer.
func cut(text string, size int, mark string) string {
	runes, end := []rune(text), []rune(mark)
	if len(runes) <= size {
		return text
	}
	return string(append(runes[:size-len(end)], end...))
}

// Tenant says how a key stands in the tenant, and on whose word, by
// bundle.Arrived's words for it, where that is nobody's who signs.
func Tenant(status, by string) string {
	if status != "" && by == "kit" {
		return status + ", as a kit's result says, which nobody signs"
	}
	return status
}

// Approver names an approver on one line, with the beginning of the fingerprint.
func Approver(a trust.Approver) string {
	return fmt.Sprintf("%s (%s)", cut(a.Name, 22, "…"), cut(a.Key.Fingerprint().SSH(), 18, "…"))
}

// AddPrint adds a digest, unless it is zero.
func (s *Section) AddPrint(label string, print fingerprint.Fingerprint, words bool) {
	if print != (fingerprint.Fingerprint{}) {
		s.Rows = append(s.Rows, Row{Label: label, Print: print, Words: words})
	}
}

// New makes a sheet without pages.
func New(banner string) Sheet {
	return Sheet{Title: "Key transfer record", Banner: banner, Signers: []string{"operator", "witness", "security officer"}}
}

// Minute writes a time as sheets have it; nothing for none.
func Minute(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04 MST")
}

// InWords is the section with the words of each fingerprint: for the page on which two
// people compare it.
func (s Section) InWords() Section {
	s.Rows = slices.Clone(s.Rows)
	for i := range s.Rows {
		s.Rows[i].Words = s.Rows[i].Print != fingerprint.Fingerprint{}
	}
	return s
}

// Ledger is the section about the ledger itself: its head, and the runs that were
// refused, stopped or dry.
func Ledger(l *ledger.Ledger, now time.Time) (Section, error) {
	ended, dry := map[string]map[string]int{"refused": {}, "stopped": {}}, 0 // runs, by how they ended and why
	err := l.Each(func(e ledger.Entry) error {
		if e.Event != ledger.EventRun {
			return nil
		}
		var run ledger.Run
		if err := e.Read(&run); err != nil {
			return err
		}
		if run.DryRun {
			dry++
		}
		if len(run.Controls) > 0 {
			ended[ending(run.Controls)][run.Command+": "+strings.Join(run.Controls, ", ")]++
		}
		return nil
	})
	s := Section{Title: "Ledger"}
	s.Add("records", fmt.Sprintf("%d, printed %s; dry runs: %d", len(l.Entries()), Minute(now), dry))
	s.AddPrint("head", l.Head(), false) // it is looked for by its digits
	s.AddSome("refused", counted(ended["refused"]))
	s.Add("stopped", cut(strings.Join(counted(ended["stopped"]), "; "), width, "…"))
	return s, err
}

// counted lists what was counted, each with its number.
func counted(counts map[string]int) []string {
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		lines = append(lines, fmt.Sprintf("%d × %s", counts[what], what))
	}
	return lines
}

// ending tells a run in which a check failed from one that a person, the
// surroundings or a hand-over stopped.
func ending(controls []string) string {
	for _, id := range controls {
		if !slices.ContainsFunc(control.All(), func(c control.Control) bool { return c.ID == id && c.Class != control.Refused }) {
			return "refused"
		}
	}
	return "stopped"
}

const labelWidth = 15

// Text sets the sheet as text.
func (s Sheet) Text() string {
	var pages []string
	for i, p := range s.Pages {
		var b strings.Builder
		fmt.Fprintf(&b, "%s\n%s\n%s (page %d of %d)\n", strings.ToUpper(s.Title), s.Banner, p.Heading, i+1, len(s.Pages))
		for _, section := range p.Sections {
			fmt.Fprintf(&b, "-- %s %s\n", section.Title, strings.Repeat("-", max(0, 76-len(section.Title))))
			for _, r := range section.Rows {
				b.WriteString(r.text())
			}
		}
		b.WriteByte('\n')
		for _, role := range s.Signers {
			fmt.Fprintf(&b, "%-18s name ____________________  signed ____________________\n", role)
		}
		pages = append(pages, b.String())
	}
	return strings.Join(pages, "\f")
}

func (r Row) text() string {
	value, words := r.Value, ""
	if r.Print != (fingerprint.Fingerprint{}) {
		value = r.Print.Hex()
	}
	if r.Words {
		words = "    " + strings.ReplaceAll(r.Print.Rows(), "\n", "\n    ") + "\n"
	}
	return fmt.Sprintf("%-*s %s\n%s", labelWidth, r.Label, strings.TrimLeft(indented(value, labelWidth+1), " "), words)
}

// indented sets words in lines from that column on.
func indented(words string, column int) string {
	indent := strings.Repeat(" ", column)
	return indent + strings.ReplaceAll(Wrap(words, 80-column), "\n", "\n"+indent)
}

// Wrap sets words in lines of at most width columns; a longer word is broken.
func Wrap(words string, width int) string { return fold(words, width, false) }

// Fold is Wrap where a longer word stays whole: it may be a URL, a path, or a
// command in backquotes, to be copied.
func Fold(words string, width int) string { return fold(words, width, true) }

// units are words, and commands in backquotes.
var units = regexp.MustCompile("[^\\s`]*`[^`\n]+`[^\\s`]*|\\S+")

func fold(words string, width int, whole bool) string {
	var b strings.Builder
	column := 0
	all := strings.Fields(words)
	if whole {
		all = units.FindAllString(words, -1)
	}
	for _, word := range all {
		rest := []rune(word)
		switch {
		case column == 0:
		case column+1+len(rest) > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		for ; len(rest) > width && !whole; rest = rest[width:] {
			b.WriteString(string(rest[:width]) + "\n")
		}
		b.WriteString(string(rest))
		column += len(rest)
	}
	return b.String()
}

const style = `
@page { margin: 10mm 16mm }
body { font: 8.5pt/1.25 "Liberation Sans", Arial, sans-serif; margin: 0 auto; max-width: 178mm; color: #000 }
.page { break-after: page; break-inside: avoid; min-height: 235mm; display: flex; flex-direction: column }
.page:last-child { break-after: auto }
h1 { font-size: 15pt; margin: 0 } h2 { font-size: 11pt; margin: 1mm 0 2mm } h3 { font-size: 8.5pt; margin: 2.5mm 0 .5mm; border-bottom: .3mm solid #000 }
.banner { font-weight: bold } table { border-collapse: collapse; width: 100% }
th { text-align: left; font-weight: normal; width: 30mm; vertical-align: top; color: #444; padding: .3mm 2mm .3mm 0 } td { vertical-align: top; padding: .3mm 0; white-space: pre-line; overflow-wrap: anywhere }
.hex, .words { font: 8pt "Liberation Mono", monospace } .words { display: block; white-space: pre; font-size: 7pt; line-height: 1.15 } .sign { margin-top: auto } .sign td { border-bottom: .2mm solid #000; height: 9mm }
`

// HTML sets the sheet as a page for a browser to print.
func (s Sheet) HTML() string {
	var b strings.Builder
	e := html.EscapeString
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%s</title>\n<style>%s</style>\n", e(s.Title), style)
	for i, p := range s.Pages {
		fmt.Fprintf(&b, "<div class=\"page\">\n<h1>%s</h1>\n<div class=\"banner\">%s</div>\n<h2>%s (page %d of %d)</h2>\n", e(s.Title), e(s.Banner), e(p.Heading), i+1, len(s.Pages))
		for _, section := range p.Sections {
			fmt.Fprintf(&b, "<h3>%s</h3>\n<table>\n", e(section.Title))
			for _, r := range section.Rows {
				fmt.Fprintf(&b, "<tr><th>%s<td>%s</td>\n", e(r.Label), r.html())
			}
			b.WriteString("</table>\n")
		}
		b.WriteString("<table class=\"sign\">\n")
		for _, role := range s.Signers {
			fmt.Fprintf(&b, "<tr><th>%s<td>name<td>signed, date\n", e(role))
		}
		b.WriteString("</table>\n</div>\n")
	}
	b.WriteString("</html>\n")
	return b.String()
}

func (r Row) html() string {
	if r.Print == (fingerprint.Fingerprint{}) {
		return html.EscapeString(r.Value)
	}
	text := `<span class="hex">` + strings.ReplaceAll(r.Print.Grouped(), "\n", " ") + "</span>"
	if r.Words {
		text += `<span class="words">` + r.Print.Rows() + "</span>"
	}
	return text
}
