// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const auditPage = "../../docs/audit.md"

// A number that is wrong, a package that is left out and a package that is not
// there are found.
func TestCountedPageFindsBreaches(t *testing.T) {
	text, err := os.ReadFile(auditPage)
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `pkg/byok` \\| ([0-9]+) .*\n")
	for name, c := range map[string]struct{ with, finds string }{
		"a wrong number":     {"| `pkg/byok` | 1 | | |\n", "pkg/byok has "},
		"left out":           {"", "pkg/byok, "},
		"a package too many": {"$0| `pkg/none` | 7 | | |\n", "pkg/none has 0 lines, and the page says 7"},
	} {
		t.Run(name, func(t *testing.T) {
			if !row.Match(text) {
				t.Fatal("the page has no row for pkg/byok")
			}
			page := filepath.Join(t.TempDir(), "audit.md")
			if err := os.WriteFile(page, row.ReplaceAll(text, []byte(c.with)), 0o600); err != nil {
				t.Fatal(err)
			}
			breaches, _, err := countedPage(root, page)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(breaches, "\n"), c.finds) {
				t.Errorf("not found: %s, among %q", c.finds, breaches)
			}
		})
	}
}

// Each function that the page leads to is in the file that it names.
func TestWalks(t *testing.T) {
	text, err := os.ReadFile(auditPage)
	if err != nil {
		t.Fatal(err)
	}
	places := regexp.MustCompile("`([a-z/_0-9]+\\.go)`\\s+`(\\w+)`").FindAllStringSubmatch(string(text), -1)
	for _, place := range places {
		source, err := os.ReadFile(filepath.Join("../..", place[1]))
		if err != nil {
			t.Error(err)
			continue
		}
		if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + place[2] + `\(`).Match(source) {
			t.Errorf("%s has no function %s", place[1], place[2])
		}
	}
	if len(places) < 20 {
		t.Errorf("the page names %d functions: this looks at the wrong words", len(places))
	}
}

// The page's numbers are those of the tree.
func TestCountedPage(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	breaches, sums, err := countedPage(root, auditPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, breach := range breaches {
		t.Error(breach)
	}
	t.Logf("lines: %v", sums)
}
