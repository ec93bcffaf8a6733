// SPDX-License-Identifier: Apache-2.0

package rms_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// No PowerShell runs here. What there is: a reader of its quotes, brackets and
// command names, which the stand-in uses on what it is given, and, in test/npm,
// a grammar.

// cmdlets is what a script may call beside its own functions.
var cmdlets = []string{
	"Connect-AipService", "Disconnect-AipService", "Get-AipServiceKeys", "Import-AipServiceTpd", "Set-AipServiceKeyProperties",
	"ConvertTo-Json", "ForEach-Object", "Get-FileHash", "Get-ItemProperty", "Get-Module", "Import-Module", "Join-Path",
	"New-Object", "Read-Host", "Select-Object", "Sort-Object", "Where-Object", "Write-Host",
}

var (
	command  = regexp.MustCompile(`\b[A-Z][A-Za-z]+-[A-Z][A-Za-z]+\b`)
	function = regexp.MustCompile(`(?m)^function ([A-Za-z-]+)`)
)

// checkScript says what is wrong with a script, or nothing.
func checkScript(script string) error {
	code, err := withoutText(script)
	if err != nil {
		return err
	}
	allowed := slices.Clone(cmdlets)
	for _, f := range function.FindAllStringSubmatch(code, -1) {
		allowed = append(allowed, f[1])
	}
	for _, name := range command.FindAllString(code, -1) {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("calls %s", name)
		}
	}
	for _, never := range []string{"-AsPlainText", "$input", "Invoke-Expression", "iex ", "Start-Transcript", "DownloadString", "-Bypass"} {
		if strings.Contains(code, never) {
			return fmt.Errorf("uses %s", never)
		}
	}
	return nil
}

// withoutText is a script without its comments and strings, with its brackets
// balanced.
func withoutText(script string) (string, error) {
	var code strings.Builder
	var open []rune
	closes := map[rune]rune{')': '(', ']': '[', '}': '{'}
	runes := []rune(script)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == '#':
			for i+1 < len(runes) && runes[i+1] != '\n' {
				i++
			}
		case strings.ContainsRune("'\"\u2018\u2019\u201a\u201b\u201c\u201d\u201e", r):
			end := endOfText(runes, i)
			if end < 0 {
				return "", fmt.Errorf("a text does not end: %.40s", string(runes[i:]))
			}
			i = end
			code.WriteString("''")
		case strings.ContainsRune("([{", r):
			open = append(open, r)
			code.WriteRune(r)
		case closes[r] != 0:
			if len(open) == 0 || open[len(open)-1] != closes[r] {
				return "", fmt.Errorf("%c closes nothing", r)
			}
			open = open[:len(open)-1]
			code.WriteRune(r)
		case r > unicode.MaxASCII && r != '\ufeff':
			return "", fmt.Errorf("%q in the code", r)
		default:
			code.WriteRune(r)
		}
	}
	if len(open) > 0 {
		return "", fmt.Errorf("%c is not closed", open[0])
	}
	return code.String(), nil
}

// endOfText finds the quote that ends the text from i on: in single quotes all
// of PowerShell's single quotes count, and two are one.
func endOfText(runes []rune, i int) int {
	kind, escape := "'\u2018\u2019\u201a\u201b", rune(0)
	if !strings.ContainsRune(kind, runes[i]) {
		kind, escape = "\"\u201c\u201d\u201e", '`'
	}
	for i++; i < len(runes); i++ {
		switch {
		case runes[i] == escape && escape != 0:
			i++
		case strings.ContainsRune(kind, runes[i]) && i+1 < len(runes) && strings.ContainsRune(kind, runes[i+1]):
			i++
		case strings.ContainsRune(kind, runes[i]):
			return i
		}
	}
	return -1
}

func TestScripts(t *testing.T) {
	files, err := os.ReadDir("script")
	if err != nil || len(files) != 5 {
		t.Fatalf("got %v, %v; expected 5 scripts", files, err)
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
		"strange command":   "Remove-Item 'a'",
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
