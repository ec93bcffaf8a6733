// SPDX-License-Identifier: Apache-2.0

package sheet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/trust"
)

// aDay is a rehearsal with all that there may be: two keys of blanks and long paths,
// approvers, the kit.
func aDay() *Day {
	return &Day{
		Rehearsal: true, Offline: "vault-room", Online: "head-office", Region: "EU", Vault: "https://contoso.vault.azure.net", World: 2, KEK: 3,
		KEKName: "transfer", Tenant: "kit", Approvers: []trust.Approver{{Name: "Alice \x1b Example"}, {Name: "bob"}}, Threshold: 2,
		Keys: []DayKey{{ID: "contoso-slc", TPD: "exports/the old cluster/contoso.xml"}, {ID: "fabrikam"}}, Active: "contoso-slc",
		Card: fingerprint.Of([]byte("card")), WorldPrint: fingerprint.Of([]byte("world")), Stick: "/run/media/op/USB DISK (1)",
		Quote: func(word string) string { return "'" + word + "'" },
		Line: func(program string, words ...string) string {
			line := program
			for _, w := range words {
				if strings.Contains(w, " ") {
					w = "'" + w + "'"
				}
				line += " " + w
			}
			return line + " --rehearsal"
		},
	}
}

// Set UPDATE_GOLDEN to take over the text of a run: read it before you keep it.
func TestRunSheetText(t *testing.T) {
	for name, day := range map[string]*Day{"rehearsal": aDay(), "windows": func() *Day { d := aDay(); d.Windows = true; d.Stick = `E:\`; return d }()} {
		var all strings.Builder
		for _, s := range day.RunSheets() {
			all.WriteString(s.Text + "\n")
			for _, page := range strings.Split(s.Text, "\f") {
				if n := strings.Count(page, "\n"); n > 66 {
					t.Errorf("%s: a page of %d lines", s.Name, n)
				}
				if !strings.HasPrefix(page, "REHEARSAL: run sheet of the ") {
					t.Errorf("%s: a page does not say that it is a rehearsal:\n%s", s.Name, page)
				}
			}
			for line := range strings.SplitSeq(strings.ReplaceAll(s.Text, "\f", "\n"), "\n") {
				if len([]rune(line)) > 80 {
					t.Errorf("%s: %d columns: %s", s.Name, len([]rune(line)), line)
				}
			}
			if strings.Contains(s.Text+s.HTML, "\x1b") {
				t.Errorf("%s: a control character is there as it is", s.Name)
			}
		}
		path := filepath.Join("testdata", "runsheet-"+name+".txt")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(path, []byte(all.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != all.String() {
			t.Errorf("not as in %s (%v):\n%s", path, err, all.String())
		}
	}
}

// Before anything is known, each blank has its word in capitals, and a place to
// write what it stands for.
func TestRunSheetUnknown(t *testing.T) {
	day := &Day{Stick: "/media/stick", Quote: aDay().Quote, Line: aDay().Line}
	sheet := day.RunSheets()[0].Text
	for _, want := range []string{
		"REAL CEREMONY: run sheet of the offline operator", "MODULE and LABEL of the HSM:", "KEY-ID, and its export TPD.xml:",
		"--hsm-module MODULE", "/media/stick/offline-card-NAME.json", "--hsm-so-pin-file",
	} {
		if !strings.Contains(sheet, want) {
			t.Errorf("it does not say %q:\n%s", want, sheet)
		}
	}
}

var pageObject = regexp.MustCompile(`/Type\s*/Page\b[^s]`)

// A browser prints the sheets on A4 and on Letter paper: each page begins with the
// head and a whole step, and every command, box and word is on it.
func TestRunSheetPrinted(t *testing.T) {
	for _, tool := range []string{"chromium", "pdftotext"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s: that sheets print whole is not shown", tool)
		}
	}
	day := aDay()
	for at, s := range slices.Concat(day.RunSheets(), day.RunSheets()) {
		i, paper := at, "A4"
		if at >= len(roles) {
			i, paper = at-len(roles), "letter"
		}
		t.Run(s.Name+" on "+paper, func(t *testing.T) {
			t.Parallel()
			title, banner := day.head(roles[i].name)
			starts := []string{"Name"}
			for _, step := range day.steps() {
				starts = append(starts, packed(step.title))
			}
			pages := printed(t, strings.Replace(s.HTML, "@page { ", "@page { size: "+paper+"; ", 1))
			for n, page := range pages {
				rest, found := strings.CutPrefix(page, packed(fmt.Sprintf("%d / %d", n+1, len(pages))+title+banner))
				if !found || !slices.ContainsFunc(starts, func(start string) bool { return strings.HasPrefix(rest, start) }) {
					t.Errorf("page %d does not begin with the head and a step:\n%s", n+1, page)
				}
			}
			steps := map[int]int{} // parts that were looked for, by page
			for _, step := range day.steps() {
				on := slices.IndexFunc(pages, func(page string) bool { return strings.Contains(page, packed(step.title)) })
				for _, part := range step.parts {
					if part.roles&roles[i].role == 0 || strings.HasPrefix(step.title, "Carry") {
						continue
					}
					steps[on]++
					if text := packed(quoted.ReplaceAllString(control.Plain(part.text), "$1")); on < 0 || !strings.Contains(pages[on], text) {
						t.Errorf("page %d: %s is cut: %s", on+1, step.title, text)
					}
				}
			}
			t.Logf("%s: %d pages, parts by page: %v", paper, len(pages), steps)
		})
	}
}

func packed(text string) string { return strings.Join(strings.Fields(text), "") }

// printed is what a browser prints on each page, without blanks.
func printed(t *testing.T, html string) []string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.html"), filepath.Join(dir, "out.pdf")
	if err := os.WriteFile(in, []byte(html), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--user-data-dir="+dir, "--print-to-pdf="+out, in)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	pdf, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("pdftotext", "-raw", out, "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	pages := strings.Split(strings.TrimSuffix(string(text), "\f"), "\f")
	for i := range pages {
		pages[i] = packed(pages[i])
	}
	if n := len(pageObject.FindAll(pdf, -1)); n != len(pages) {
		t.Fatalf("%d pages, %d of text", n, len(pages))
	}
	return pages
}

// A browser prints the record sheets on A4 and on Letter paper, a page each, and nothing
// of them is cut: all that the page of text has is there.
func TestSheetPrinted(t *testing.T) {
	for _, tool := range []string{"chromium", "pdftotext"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s: that sheets print whole is not shown", tool)
		}
	}
	want := strings.Split(full().Text(), "\f")
	for _, paper := range []string{"A4", "letter"} {
		t.Run(paper, func(t *testing.T) {
			t.Parallel()
			pages := printed(t, strings.Replace(full().HTML(), "@page { ", "@page { size: "+paper+"; ", 1))
			if len(pages) != len(want) {
				t.Fatalf("%d pages, want %d", len(pages), len(want))
			}
			for i, page := range pages {
				for _, word := range strings.Fields(want[i]) {
					if word = strings.ToLower(strings.Trim(word, "_.=- ")); word != "" && !strings.Contains(strings.ToLower(page), word) {
						t.Errorf("page %d lacks %q", i+1, word)
					}
				}
			}
		})
	}
}
