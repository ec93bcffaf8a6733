// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

var testSeed = Seed{Switch: "-Import", Command: "test verify", Params: []Param{
	{Name: "-Path", Flag: "--path"},
	{Name: "-Password", Flag: "--password", Kind: Optional},
	{Name: "-Id", Flag: "--id"},
	{Name: "-Verbose", Flag: "--verbose", Kind: Bare},
}}

func TestSeed(t *testing.T) {
	app := testApp(nil)
	for name, c := range map[string]struct{ line, want string }{
		"as in the runbook":      {"-Import -Path a.xml -Password pw -Id k -Verbose", "--path=a.xml --password=pw --id=k --verbose"},
		"other case":             {"-import -PATH a.xml -pASSWORD pw -iD k", "--path=a.xml --password=pw --id=k"},
		"other order":            {"-Id k -Password pw -Import -Path a.xml", "--id=k --password=pw --path=a.xml"},
		"switch last":            {"-Id k -Path a.xml -Import", "--id=k --path=a.xml"},
		"password in the middle": {"-Import -Password -Path a.xml -Id k", "--password --path=a.xml --id=k"},
		"password at the end":    {"-Import -Path a.xml -Id k -Password", "--path=a.xml --id=k --password"},
		"password, then switch":  {"-Password -Import -Id k", "--password --id=k"},
		"password, then ours":    {"-Import -Password --json", "--password --json"},
		"repeated":               {"-Import -Path a -Id k -Path b -Id l", "--path=a --id=k --path=b --id=l"},
		"ours among theirs":      {"-Import --state dir -Path a --wrap=hsm -Id k --json", "--state dir --path=a --wrap=hsm --id=k --json"},
		"ours first":             {"--json -Import -Path a", "--json --path=a"},
		"bare, then a word":      {"-Import -Path a=b -Id --", ""},
		"value with equals":      {"-Import -Path a=b", "--path=a=b"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := app.translateSeed(strings.Fields(c.line))
			if c.want == "" {
				if !control.Is(err, control.CommandLine) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if want := append([]string{"test", "verify"}, strings.Fields(c.want)...); err != nil || !slices.Equal(got, want) {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestSeedRefuses(t *testing.T) {
	app := testApp(nil)
	for name, c := range map[string]struct{ line, says string }{
		"unknown parameter":      {"-Import -Path a -Password p -Pth b", "argument 6 is no parameter of -Import"},
		"counted from the first": {"-Pth b -Import", "argument 1 is no parameter"},
		"value missing, end":     {"-Import -Path", "-Path wants a value"},
		"value missing":          {"-Import -Path -Id k", "-Path wants a value"},
		"word alone":             {"-Import word", "argument 2 is no parameter"},
		"word after bare":        {"-Import -Verbose word", "argument 3 is no parameter"},
		"password with a dash":   {"-Import -Password -secret", "argument 3 is no parameter"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.translateSeed(strings.Fields(c.line))
			if !control.Is(err, control.CommandLine) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

// A password of spaces, quotes or nothing reaches its flag as it is.
func TestSeedKeepsValues(t *testing.T) {
	for _, value := range []string{"", " a b ", `"'$`, "пароль", "="} {
		got, _, err := testApp(nil).translateSeed([]string{"-Import", "-Password", value})
		if want := []string{"test", "verify", "--password=" + value}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v", value, got, err)
		}
	}
}

func TestSeedLeavesOurCommandLinesAlone(t *testing.T) {
	args := []string{"test", "--path", "-Importer", "Import", "-Path"}
	got, _, err := testApp(nil).translateSeed(args)
	if err != nil || !slices.Equal(got, args) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestSeedRuns(t *testing.T) {
	app := does(nil)
	got := app.run(t, "-Import", "--verbose", "-Verbose", "--json")
	got.done(t, "[]\n")
	if got.stderr != "offline: -Import is `offline test verify` here\n" {
		t.Errorf("stderr: %q", got.stderr)
	}
}
