// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// cmdlets is what a script may call beside its own functions.
var cmdlets = []string{
	"Connect-AipService", "Disconnect-AipService", "Get-AipServiceKeys", "Import-AipServiceTpd", "Set-AipServiceKeyProperties",
	"ConvertTo-Json", "ForEach-Object", "Get-AuthenticodeSignature", "Get-Command", "Get-ExecutionPolicy", "Get-FileHash", "Get-Item",
	"Get-ItemProperty", "Get-Module", "Import-Module", "Join-Path", "New-Object", "Out-String", "Read-Host", "Remove-Item",
	"Select-Object", "Set-Content", "Set-StrictMode", "Sort-Object", "Where-Object", "Write-Host", "Write-Warning",
}

var (
	command  = regexp.MustCompile(`\b[A-Z][A-Za-z]+-[A-Z][A-Za-z]+\b`)
	function = regexp.MustCompile(`(?m)^(?:function|filter) ([A-Za-z-]+)`)
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
