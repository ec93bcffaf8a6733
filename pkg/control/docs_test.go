// SPDX-License-Identifier: Apache-2.0

package control

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/controls.md anew; what each control makes sure of is kept")

const (
	tableHead = "| control | exit | what it makes sure of | if not |\n|---|---|---|---|\n"
	tableEnd  = "\n## "
)

// TestDocs holds docs/controls.md against the catalogue. What a control makes
// sure of is written there and nowhere else; the rest of the table follows from the code.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "controls.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(page), tableHead)
	if !ok {
		t.Fatalf("%s has no table headed\n%s", path, tableHead)
	}
	rows, tail, _ := strings.Cut(rest, tableEnd)
	want := table(meanings(rows))
	if *update {
		if err := os.WriteFile(path, []byte(head+tableHead+want+tableEnd+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		rows = want
	}
	if rows != want {
		t.Errorf("%s is stale: go test ./pkg/control -run TestDocs -update", path)
	}
	for id, meaning := range meanings(want) {
		if meaning == "" {
			t.Errorf("%s does not say what %s makes sure of", path, id)
		}
	}
}

func table(meanings map[string]string) string {
	var b strings.Builder
	for _, c := range All() {
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", c.ID, c.Class, meanings[c.ID], strings.ReplaceAll(c.Hint, "|", `\|`))
	}
	return b.String()
}

// meanings reads the third column, by control.
func meanings(rows string) map[string]string {
	meanings := map[string]string{}
	for row := range strings.Lines(rows) {
		if cells := strings.Split(row, "|"); len(cells) > 3 {
			meanings[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[3])
		}
	}
	return meanings
}

// TestDocsTable shows that a table without a control's meaning, or with another
// hint, differs from what it should be.
func TestDocsTable(t *testing.T) {
	full := map[string]string{}
	for _, c := range All() {
		full[c.ID] = "something"
	}
	rows := table(full)
	if table(meanings(rows)) != rows {
		t.Error("a whole table is not taken as it is")
	}
	for name, stale := range map[string]string{
		"other hint":      strings.Replace(rows, All()[0].Hint, "something else", 1),
		"other exit code": strings.Replace(rows, "| 1 |", "| 2 |", 1),
		"row gone":        rows[strings.Index(rows, "\n")+1:],
		"row too many":    rows + "| `KF-OLD` | 1 | was | gone |\n",
	} {
		if table(meanings(stale)) == stale {
			t.Errorf("%s: not seen", name)
		}
	}
}
