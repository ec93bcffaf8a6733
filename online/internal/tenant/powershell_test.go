// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"os"
	"strings"
	"testing"
)

func TestScripts(t *testing.T) {
	files, err := os.ReadDir("script")
	if err != nil || len(files) != 4 {
		t.Fatalf("got %v, %v; expected 4 scripts", files, err)
	}
	functions := read(t, "script/functions.ps1")
	for _, f := range files {
		script := read(t, "script/"+f.Name())
		if err := checkScript(functions + script); err != nil {
			t.Errorf("%s: %v", f.Name(), err)
		}
		for n, line := range strings.Split(script, "\n") {
			if strings.TrimRight(line, " \t") != line || strings.Contains(line, "\t") || len(line) > 170 {
				t.Errorf("%s:%d: spaces at the end, a tab, or a long line", f.Name(), n+1)
			}
		}
	}
}

func TestScriptsThatAreWrong(t *testing.T) {
	for name, script := range map[string]string{
		"quote":             "Write-Host 'a",
		"typographic quote": "Write-Host 'a\u2019b'",
		"double quote":      "Write-Host \"a`\"",
		"brace":             "if ($a) { Write-Host 'a'",
		"wrong brace":       "if ($a) { Write-Host 'a' )",
		"too many":          "Write-Host 'a' }",
		"strange command":   "Invoke-RestMethod 'a'",
		"password in text":  "New-Object 'a' -AsPlainText",
		"letter":            "Write-Host é",
	} {
		if err := checkScript(script); err == nil {
			t.Errorf("%s: not found", name)
		}
	}
	if err := checkScript("# it's\nWrite-Host 'it''s \u2018\u2018 { ' \"`\" ( \"\"\"; function A-B() {}\n"); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
