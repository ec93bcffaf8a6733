// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// Seed is a command line of Microsoft's tools that works to the letter, so that
// a runbook written for them can be followed: a thin translation in front of
// pflag. Parameter names are matched without regard to case, as theirs were.
type Seed struct {
	Switch  string // -ImportRmsCentrallyManagedKey: names the command
	Command string // the command it stands for
	Params  []Param
}

// Param is one parameter of a [Seed].
type Param struct {
	Name string // -TpdFilePath
	Flag string // --tpd-file-path
	Kind ParamKind
}

// ParamKind says whether a value follows the parameter.
type ParamKind int

const (
	Value    ParamKind = iota // always
	Optional                  // unless another parameter or the end follows
	Bare                      // never
)

// translateSeed turns a seed's command line into ours, and returns any other
// as it is, without a seed.
func (a *App) translateSeed(args []string) ([]string, *Seed, error) {
	for _, seed := range a.Seeds {
		at := slices.IndexFunc(args, func(arg string) bool { return strings.EqualFold(arg, seed.Switch) })
		if at >= 0 {
			translated, err := seed.translate(args, at)
			return translated, &seed, err
		}
	}
	return args, nil, nil
}

// translate reads the parameters around the switch, which is args[at]. What it
// can't place it does not show: it may be a password.
func (s Seed) translate(args []string, at int) ([]string, error) {
	out := strings.Fields(s.Command)
	for i := 0; i < len(args); i++ {
		param, known := s.param(args[i])
		hasValue := i+1 < len(args) && !strings.HasPrefix(args[i+1], "-")
		switch {
		case i == at:
		case !known && strings.HasPrefix(args[i], "--"): // one of our own flags among theirs
			out = append(out, args[i])
			if hasValue && !strings.Contains(args[i], "=") {
				i++
				out = append(out, args[i])
			}
		case !known:
			return nil, control.CommandLine.Refuse("argument %d is no parameter of %s", i+1, s.Switch).
				WithHint("a value can't begin with a dash: a password that does goes in a file, or is typed at the prompt")
		case param.Kind == Bare, param.Kind == Optional && !hasValue:
			out = append(out, param.Flag)
		case !hasValue:
			return nil, control.CommandLine.Refuse("%s wants a value", param.Name).
				WithHint("a shell other than PowerShell takes $true and $false for variables: quote them, '$true'")
		default:
			i++
			out = append(out, param.Flag+"="+args[i])
		}
	}
	return out, nil
}

func (s Seed) param(arg string) (Param, bool) {
	i := slices.IndexFunc(s.Params, func(p Param) bool { return strings.EqualFold(p.Name, arg) })
	if i < 0 {
		return Param{}, false
	}
	return s.Params[i], true
}
