// SPDX-License-Identifier: Apache-2.0

package control

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// claim is a section of docs/assurance.md: the controls that carry it, by ID or
// as KF-AREA-*, and tests in which the good passes.
type claim struct {
	title            string
	controls, passes []string
}

var quotedText = regexp.MustCompile("`([^`]+)`")

func claims(page string) []claim {
	var all []claim
	for _, section := range strings.Split(page, "\n## ")[1:] {
		c := claim{}
		c.title, _, _ = strings.Cut(section, "\n")
		for _, paragraph := range strings.Split(section, "\n\n") {
			list := &c.passes
			switch {
			case strings.HasPrefix(paragraph, "Controls: "):
				list = &c.controls
			case !strings.HasPrefix(paragraph, "Passes: "):
				continue
			}
			for _, m := range quotedText.FindAllStringSubmatch(paragraph, -1) {
				*list = append(*list, m[1])
			}
		}
		if len(c.controls)+len(c.passes) > 0 {
			all = append(all, c)
		}
	}
	return all
}

func (c claim) has(id string) bool {
	return slices.ContainsFunc(c.controls, func(pattern string) bool { return covers(pattern, id) })
}

// covers reports whether a pattern, KF-AREA-* or an ID, stands for an ID.
func covers(pattern, id string) bool {
	family, isFamily := strings.CutSuffix(pattern, "*")
	return pattern == id || isFamily && strings.HasPrefix(id, family)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAssurance holds docs/assurance.md against the code, both ways: each
// control belongs to a claim, and what a claim names is there.
func TestAssurance(t *testing.T) {
	all := claims(readFile(t, "docs/assurance.md"))
	if len(all) < 8 {
		t.Fatalf("docs/assurance.md has %d claims: they are not found", len(all))
	}
	for _, control := range All() {
		if !slices.ContainsFunc(all, func(c claim) bool { return c.has(control.ID) }) {
			t.Errorf("docs/assurance.md: %s belongs to no claim", control.ID)
		}
	}
	for _, c := range all {
		if len(c.passes) == 0 {
			t.Errorf("docs/assurance.md, %q names no test in which the good passes", c.title)
		}
		for _, where := range c.passes {
			if problem := lacks(where); problem != "" {
				t.Errorf("docs/assurance.md, %q: %s: %s", c.title, where, problem)
			}
		}
	}
}

// A test that a page names: a script, or a folder and a function.
var namedTest = regexp.MustCompile("`((?:[a-z/]+/testdata/[a-z-]+\\.txt)|(?:[a-z0-9/]+ Test[A-Za-z0-9]+))`")

// TestThreatModel wants each test that docs/threat-model.md names to be there.
func TestThreatModel(t *testing.T) {
	named := namedTest.FindAllStringSubmatch(readFile(t, "docs/threat-model.md"), -1)
	if len(named) < 30 {
		t.Fatalf("docs/threat-model.md names %d tests: they are not found", len(named))
	}
	for _, m := range named {
		if problem := lacks(m[1]); problem != "" {
			t.Errorf("docs/threat-model.md: %s: %s", m[1], problem)
		}
	}
}

// A script's line in which a command succeeds.
var succeeds = regexp.MustCompile(`(?m)^(exec|unchanged|typed '[^']*' \S+|killed .* --) (offline|online) |^ceremony `)

// lacks says what is wrong with a test that is named as a script's path, or as
// a folder and a function.
func lacks(where string) string {
	folder, function, isFunction := strings.Cut(where, " ")
	if !isFunction {
		script, err := os.ReadFile(filepath.Join(root, where))
		if err != nil || !succeeds.Match(script) {
			return "no script in which a command succeeds"
		}
		return ""
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		if readErr == nil && strings.Contains(string(text), "\nfunc "+function+"(t *testing.T)") {
			return ""
		}
		err = readErr
	}
	if err != nil {
		return err.Error()
	}
	return "no such test"
}

// TestIDsInDocuments wants each ID that a document names to be one of the
// catalogue's.
func TestIDsInDocuments(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d documents: %v", len(pages), err)
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range unknown(string(text)) {
			t.Errorf("%s names %s, which is no control", page, name)
		}
	}
}

// An ID; of a family, KF-AREA-*, the dash at the end.
var idInText = regexp.MustCompile(`\bKF(-[A-Z0-9]+){2,}-?`)

// unknown are the IDs in a text that the catalogue has not.
func unknown(text string) []string {
	var found []string
	for _, id := range idInText.FindAllString(text, -1) {
		if !strings.HasSuffix(id, "-") && !slices.ContainsFunc(All(), func(c Control) bool { return c.ID == id }) {
			found = append(found, id)
		}
	}
	return found
}

// TestEachIsRefusedWith wants each control in a test outside this package: in a
// script by its ID (such as "refused KF-TPD-SIZE 1 offline inspect …"), in a Go test by its ID or
// variable. That the refusal is the right one is what those tests check.
func TestEachIsRefusedWith(t *testing.T) {
	tests := testTexts(t)
	for id, variable := range variables(t) {
		t.Run(id, func(t *testing.T) {
			if strings.Contains(tests, "control."+variable+"\x00") || strings.Contains(tests, id+"\x00") {
				return
			}
			if why := outOfReach[id]; why != "" {
				t.Skip(why)
			}
			t.Errorf("no test refuses anything with %s (control.%s)", id, variable)
		})
	}
}

// outOfReach are controls that no test can be refused with yet, and why.
var outOfReach = map[string]string{
	"KF-HSM-HARDEN": "no script can make a token fail between the wrap and the change of an attribute; offline/internal/hsm TestHardenRefuses does, below the command",
}

// variables are the catalogue's variables by ID.
func variables(t *testing.T) map[string]string {
	t.Helper()
	byID := map[string]string{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, m := range regexp.MustCompile(`(\w+)\s*= \w+\("(KF-[A-Z0-9-]+)"`).FindAllStringSubmatch(readFile(t, "pkg/control/"+file), -1) {
			byID[m[2]] = m[1]
		}
	}
	if len(byID) != len(All()) {
		t.Fatalf("%d variables for %d controls", len(byID), len(All()))
	}
	return byID
}

var mention = regexp.MustCompile(`\bcontrol\.\w+|\bKF-[A-Z0-9]+(?:-[A-Z0-9]+)+`)

// testTexts is what tests and scripts mention of controls, each ended by a NUL.
func testTexts(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	files := 0
	for _, pattern := range []string{"*/*_test.go", "*/*/*_test.go", "*/internal/*/*_test.go", "*/testdata/*.txt"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range found {
			if filepath.Base(filepath.Dir(file)) == "control" {
				continue
			}
			files++
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range mention.FindAllString(string(text), -1) {
				all.WriteString(m + "\x00")
			}
		}
	}
	if files < 100 {
		t.Fatalf("only %d files with tests were found", files)
	}
	return all.String()
}

// What the checks above are there to see, they see.
func TestAssuranceFindsFaults(t *testing.T) {
	if got := claims("# A\n\n## One\n\ntext `KF-A-B`\n\nControls: `KF-TPD-*`\n`KF-X-Y`\n\nPasses: `a/b.txt`\n\n## None\n\ntext\n"); len(got) != 1 ||
		!got[0].has("KF-TPD-SIZE") || !got[0].has("KF-X-Y") || got[0].has("KF-TPDX-SIZE") || got[0].has("KF-A-B") || !slices.Equal(got[0].passes, []string{"a/b.txt"}) {
		t.Errorf("got %+v", got)
	}
	for _, where := range []string{"docs/controls.md", "offline/testdata/none.txt", "pkg/control TestNone", "pkg/none TestAll"} {
		if lacks(where) == "" {
			t.Errorf("%s is taken for a test", where)
		}
	}
	for _, where := range []string{"offline/testdata/import.txt", "pkg/control TestAll"} {
		if problem := lacks(where); problem != "" {
			t.Errorf("%s: %s", where, problem)
		}
	}
	if got := unknown("`KF-TPD-SIZE`, KF-TPD-…, `KF-HSM-*`, KF-TPD-KEY-*; KF-TPD-SIZES, KF-NONE-AT-ALL"); !slices.Equal(got, []string{"KF-TPD-SIZES", "KF-NONE-AT-ALL"}) {
		t.Errorf("got %q", got)
	}
}
