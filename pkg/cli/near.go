// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
)

// This file helps who typed almost the right thing.

// nearest is the name that a person may have meant, "" if none comes close: one
// that begins like it, or differs in few letters. Case and dashes do not count.
func nearest(typed string, names []string) string {
	fold := func(s string) string { return strings.ToLower(strings.Trim(s, dashes)) }
	typed = fold(typed)
	if len(typed) > 64 || typed == "" {
		return ""
	}
	best, least := "", max(1, len(typed)/3)+1
	for _, name := range names {
		d := distance(typed, fold(name))
		if len(typed) >= 3 && strings.HasPrefix(fold(name), typed) {
			d = min(d, 1)
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// distance counts the letters to change, add, leave out or swap with the next.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows = [3][]int{last, row, before}
	}
	return rows[1][len(b)]
}

// didYouMean begins a hint, where there is a name to propose.
func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return "did you mean " + name + "? "
}

// withHyphens makes hyphens of the dashes in front of a command's flags that a
// text program has changed, and takes their names in any case.
func withHyphens(flags *pflag.FlagSet, args []string) []string {
	args = slices.Clone(args)
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		if !isDashed(args[i]) {
			continue
		}
		name, value, equals := strings.Cut(undashed(args[i]), "=")
		flag := flags.Lookup(strings.ToLower(name))
		if len(name) == 1 && !strings.HasPrefix(args[i], "--") {
			flag = flags.ShorthandLookup(name)
		} else if flag != nil && (!strings.HasPrefix(args[i], "-") || strings.HasPrefix(args[i], "--") || isDashed(args[i][1:])) {
			args[i] = "--" + flag.Name
			if equals {
				args[i] += "=" + value
			}
		}
		if flag != nil && len(name) == 1 && !strings.HasPrefix(args[i], "-") {
			args[i] = "-" + undashed(args[i])
		}
		if flag != nil && !equals && flag.NoOptDefVal == "" {
			i++ // its value
		}
	}
	return args
}

// answers are for those who type the names of Microsoft's other tools: which step
// here does it. The names are in lower case, and those of the module AIPService.
var answers = []struct{ names, says string }{
	{"connect-aipservice", "nothing has to be connected first: `online upload BUNDLE` signs in to the tenant itself"},
	{"disconnect-aipservice", "nothing has to be disconnected: `online upload BUNDLE` signs out of the tenant itself"},
	{"import-aipservicetpd importaipservicetpd", "on the connected side, `online upload BUNDLE` imports each TPD with its key; for one pair of files, `online -ImportAadrmTpd -TpdFile PATH -HsmKeyFile PATH -ProtectionPassword`"},
	{"importrmscentrallymanagedkey", "this is a step of the disconnected side: `offline -ImportRmsCentrallyManagedKey …`, which is `offline import`"},
	{"set-aipservicekeyproperties set-aipservicekey", "`online upload BUNDLE --active ID` makes a key the active one"},
	{"use-aipservicekeyvaultkey add-azkeyvaultkey add-azurekeyvaultkey", "`online upload BUNDLE` brings the key into the vault, and has Azure RMS use it there"},
	{"get-aipservicekeys get-aipservicetpd get-aipservicekey", "`online status` shows where each key is"},
	{"export-aipservicetpd", "a TPD comes out of the AD RMS server; look at one with `offline inspect TPD`"},
	{"enable-aipservice", "this comes after the upload, and is typed in PowerShell: `online next` says when"},
	{"tpdutil tpdutil.exe /tpd /otpd /opem", "no PEM file is written here: `offline import --tpd-file-path TPD --key-identifier ID --exchange-key-package PATH` takes the key out of the TPD into the HSM at once, and writes the TPD without it; for a key that is in the HSM already it is `offline wrap`"},
}

// newName is AADRM's name for AIPService's.
var newName = strings.NewReplacer("aadrmservice", "aipservice", "aadrm", "aipservice")

// answer tells who typed a name of Microsoft's tools which step that is.
func (a *App) answer(args []string) error {
	for i, arg := range args {
		name := newName.Replace(strings.ToLower(lastPart(undashed(arg))))
		if slash := strings.HasPrefix(arg, "/"); slash {
			name, _, slash = strings.Cut(strings.ToLower(arg), ":")
			if !slash {
				continue
			}
		} else if i > 0 {
			continue
		}
		for _, known := range answers {
			if slices.Contains(strings.Fields(known.names), name) {
				shown, _, _ := strings.Cut(arg, ":")
				return control.CommandLine.Refuse("%s belongs to Microsoft's tools", control.Plain(shown)).WithHint("%s", known.says)
			}
		}
		if strings.Contains(name, "-aipservice") {
			return control.CommandLine.Refuse("%s is a cmdlet of PowerShell's module AIPService", control.Plain(arg)).
				WithHint("type it in PowerShell where it is needed; `%s next` says what comes next here", a.Name)
		}
	}
	return nil
}
