// SPDX-License-Identifier: Apache-2.0

package npm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// parsed is what the grammar says of a script.
type parsed struct {
	Errors []struct {
		Line int
		Text string
	}
	Commands []string
}

func parse(t *testing.T, script []byte) parsed {
	t.Helper()
	var p parsed
	node(t, "parse.mjs", nil, script, &p)
	return p
}

// TestScriptsAreInTheGrammar: what goes to PowerShell is PowerShell, as far as
// a grammar can tell without one.
func TestScriptsAreInTheGrammar(t *testing.T) {
	install(t)
	const dir = "../../tenant"
	paths, err := filepath.Glob(dir + "/script/*.ps1")
	if err != nil || len(paths) != 4 {
		t.Fatalf("got %v, %v; expected 4 scripts", paths, err)
	}
	for _, path := range append(paths, dir+"/testdata/import-tpds.ps1") {
		script, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p := parse(t, script)
		for _, e := range p.Errors {
			t.Errorf("%s:%d: %s", path, e.Line, e.Text)
		}
		t.Logf("%s calls %v", filepath.Base(path), p.Commands)
	}
}

// TestTheGrammarFindsErrors shows that it does, and sees the commands.
func TestTheGrammarFindsErrors(t *testing.T) {
	install(t)
	for _, script := range []string{"if ($a) { Write-Host 'a'", "Write-Host 'a", "foreach ($x on $y) { }", "function A( { }"} {
		if p := parse(t, []byte(script)); len(p.Errors) == 0 {
			t.Errorf("%s: no error", script)
		}
	}
	if p := parse(t, []byte("Get-A | Get-B -C { Get-D }\n")); len(p.Errors) != 0 || !slices.Equal(p.Commands, []string{"Get-A", "Get-B", "Get-D"}) {
		t.Errorf("got %+v", p)
	}
}
