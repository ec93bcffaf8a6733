// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
)

var testSeed = Seed{Switch: "-Import", Command: "test verify", Params: []Param{
	{Name: "-Path", Flag: "--path"},
	{Name: "-Password", Flag: "--password", Kind: Secret},
	{Name: "-Id", Flag: "--id"},
	{Name: "-TpdFilePath", Flag: "--tpd"},
	{Name: "-Active", Flag: "--active"},
	{Name: "-Url", Flag: "--name", Turn: strings.ToUpper},
	{Name: "-WhatIf", Flag: "--dry-run", Kind: Bare},
	{Name: "-Verbose", Flag: "--verbose", Kind: Bare},
}}

func TestSeed(t *testing.T) {
	app := testApp(nil)
	for name, c := range map[string]struct{ line, want string }{
		"as in the runbook":        {"-Import -Path a.xml -Password pw -Id k -Verbose", "--path=a.xml --password=pw --id=k --verbose"},
		"other case":               {"-import -PATH a.xml -pASSWORD pw -iD k", "--path=a.xml --password=pw --id=k"},
		"other order":              {"-Id k -Password pw -Import -Path a.xml", "--id=k --password=pw --path=a.xml"},
		"switch last":              {"-Id k -Path a.xml -Import", "--id=k --path=a.xml"},
		"password in the middle":   {"-Import -Password -Path a.xml -Id k", "--password --path=a.xml --id=k"},
		"password at the end":      {"-Import -Path a.xml -Id k -Password", "--path=a.xml --id=k --password"},
		"password, then switch":    {"-Password -Import -Id k", "--password --id=k"},
		"password, then ours":      {"-Import -Password --json", "--password --json"},
		"repeated":                 {"-Import -Path a -Id k -Path b -Id l", "--path=a --id=k --path=b --id=l"},
		"ours among theirs":        {"-Import --state dir -Path a --wrap=hsm -Id k --json", "--state dir --path=a --wrap=hsm --id=k --json"},
		"ours first":               {"--json -Import -Path a", "--json --path=a"},
		"value missing at the end": {"-Import -Path a=b -Id --", ""},
		"en dash and hyphen":       {"–-Import –-Path a —Id k", "--path=a --id=k"},
		"every dash":               {"‐Import ‑Path a ‒Path b ―Path c −Id k", "--path=a --path=b --path=c --id=k"},
		"a lone dash, joined":      {"- Import - Path a – Id k", "--path=a --id=k"},
		"a lone dash, alone":       {"-Import - -Path a – -Id k -", "--path=a --id=k"},
		"password, lone dash":      {"-Import -Password - -Id k", "--password --id=k"},
		"their tool in front":      {`C:\RMS\KeyTransferRemote.exe -Import -Path a`, "--path=a"},
		"their tool, plain":        {"keytransferremote –Import -Path a", "--path=a"},
		"values behind colons":     {"-Import -Path:a:b -Active:True -Verbose:$true", "--path=a:b --active=True --verbose=true"},
		"as PowerShell has it":     {"-Import -Active $true -Active:$true -WhatIf", "--active=$true --active=$true --dry-run"},
		"switched off":             {"-Import -WhatIf:$False", "--dry-run=false"},
		"value turned":             {"-Import -Url a", "--name=A"},
		"ours behind a dash":       {"-Import –-state dir -Path a", "--state dir --path=a"},
		"ours behind one dash":     {"-Import –state dir -Path a —json=true -clock-is-right", "--state dir --path=a --json=true --clock-is-right"},
		"password, ours, one dash": {"-Import -Password –json", "--password --json"},
		"ours from a pipe":         {"-Import --password-file - -Path a", "--password-file - --path=a"},
		"value with equals":        {"-Import -Path a=b", "--path=a=b"},
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
	for name, c := range map[string]struct{ line, says, hint string }{
		"unknown parameter":          {"-Import -Path a -Pth b", "-Pth is no parameter of -Import", "did you mean -Path? it takes -Path, -Password"},
		"before the switch":          {"-Pth b -Import", "-Pth is no parameter", "did you mean -Path?"},
		"a part of a name":           {"-Import -tpd a", "-tpd is no parameter", "did you mean -TpdFilePath?"},
		"far from all":               {"-Import –Colour red", "-Colour is no parameter", "it takes -Path"},
		"value missing, end":         {"-Import -Path", "-Path wants a value", ""},
		"value missing":              {"-Import -Path -Id k", "-Path wants a value", ""},
		"value lost to a shell":      {"-Import -Active: -Id k", "-Active wants a value", "'$true'"},
		"unknown behind a long dash": {"-Import –bogus x", "-bogus is no parameter", "it takes -Path"},
		"word alone":                 {"-Import word", "word is no parameter", ""},
		"word after bare":            {"-Import -Verbose word", "word is no parameter", ""},
		"password with a dash":       {"-Import -Password -secret", "argument 3 is no parameter", ""},
		"password like a name":       {"-Import -Password -Pth", "argument 3 is no parameter", "did you mean -Path?"},
		"password with blanks":       {"-Import -Password my secret -Id k", "argument 4 is no parameter", ""},
		"unknown after a password":   {"-Import -Password p -Pth b", "-Pth is no parameter", "did you mean -Path?"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := app.translateSeed(strings.Fields(c.line))
			if !control.Is(err, control.CommandLine) || !strings.Contains(err.Error(), c.says) || !strings.Contains(Refusals(err)[0].Hint, c.hint) {
				t.Errorf("got %v, %v; want %q, %q", err, Refusals(err), c.says, c.hint)
			}
			if text := Refusals(err)[0]; strings.Contains(text.Message+text.Hint, "secret") {
				t.Errorf("shows what may be a password: %v", text)
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

func TestAnswersToOtherTools(t *testing.T) {
	for line, want := range map[string]string{
		"Connect-AadrmService": "`online upload BUNDLE` signs in", "disconnect-aipservice": "signs out", "Import-AadrmTpd -TpdFile x": "online -ImportAadrmTpd",
		"–ImportAadrmTpd -TpdFile x": "online -ImportAadrmTpd", "TpdUtil.exe /tpd:a /otpd:b": "offline import --tpd-file-path", "/tpd:a /opem:b": "offline wrap",
		"import /opem:b": "", "Set-AipServiceKeyProperties": "--active ID", "Get-AipServiceTemplate": "`offline next`", "Use-AadrmKeyVaultKey": "`online upload BUNDLE`",
	} {
		err := testApp(nil).answer(strings.Fields(line))
		if want == "" && line == "import /opem:b" {
			want = "offline wrap"
		}
		if err == nil || !strings.Contains(Refusals(err)[0].Hint, want) {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"status", "transcript", "transcript verify", "import", "inspect", "init"}
	for typed, want := range map[string]string{
		"statsu": "status", "Status": "status", "improt": "import", "inspct": "inspect", "trans": "transcript", "nonsense": "", "": "", "--status": "status", "x": "",
	} {
		if got := nearest(typed, names); got != want {
			t.Errorf("%q: got %q, want %q", typed, got, want)
		}
	}
}

func TestWithHyphens(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.String("out", "", "")
	flags.StringP("kek", "k", "", "")
	flags.Bool("json", false, "")
	for line, want := range map[string]string{
		"–-out dir": "--out dir", "—out dir": "--out dir", "–out=dir": "--out=dir", "−−json": "--json", "—json x": "--json x", "–k a": "-k a",
		"--Out dir": "--out dir", "--out –json": "--out –json", "–file.xml": "–file.xml", "-- —json": "-- —json", "-out dir": "-out dir",
	} {
		if got := strings.Join(withHyphens(flags, strings.Fields(line)), " "); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, c := range []struct{ system, word, want string }{
		{"linux", "/media/stick/a-1.kfb", "/media/stick/a-1.kfb"}, {"linux", "/run/media/op/USB DISK (1)", "'/run/media/op/USB DISK (1)'"},
		{"linux", "it's", `'it'\''s'`}, {"linux", "", "''"}, {"linux", "$HOME", "'$HOME'"}, {"linux", "~", "'~'"}, {"linux", `a\b`, `'a\b'`},
		{"windows", `E:\USB DISK`, `"E:\USB DISK"`}, {"windows", `E:\a.kfb`, `E:\a.kfb`}, {"windows", "it's", `"it's"`}, {"windows", "@a", `"@a"`},
		{"windows", "$it's", "'$it''s'"}, {"windows", "100%", "'100%'"}, {"windows", `E:\“A”`, `'E:\“A”'`}, {"windows", "", `""`},
	} {
		if got := quoteFor(c.system, c.word); got != c.want {
			t.Errorf("%s, %q: got %s, want %s", c.system, c.word, got, c.want)
		}
	}
}

func TestHintsNameWholeCommands(t *testing.T) {
	o := &IO{program: "offline", State: "/tmp/my state", stateGiven: true, Rehearsal: true}
	for hint, want := range map[string]string{
		"seal with `offline seal --out DIR`":            "seal with `offline seal --out DIR --state '/tmp/my state' --rehearsal`",
		"make one with `online kek create`, again":      "make one with `online kek create --rehearsal`, again",
		"see `offline approve --help`":                  "see `offline approve --help`",
		"`offline next --state x --rehearsal` is right": "`offline next --state x --rehearsal` is right",
	} {
		if got := o.whole(hint); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
