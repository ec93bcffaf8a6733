// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"unicode/utf8"

	"keyferry/pkg/control"
)

// Seed is a command line of Microsoft's tools that works as people type it, so
// that a runbook written for them can be followed: a thin translation in front of
// pflag. Names are taken in any case, behind any dash, as PowerShell took them,
// and a value also behind a colon.
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
	Turn func(value string) string // into the flag's value; nil: as it is
}

// ParamKind says whether a value follows the parameter.
type ParamKind int

const (
	Value  ParamKind = iota // always
	Secret                  // unless another parameter or the end follows: then it is asked for
	Bare                    // never, but one behind a colon counts
)

// dashes are what editors and web pages make of a hyphen. PowerShell takes all of them.
const dashes = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212"

func isDashed(arg string) bool   { return strings.IndexAny(arg, dashes) == 0 }
func isLoneDash(arg string) bool { return arg != "" && strings.Trim(arg, dashes) == "" }
func undashed(arg string) string { return strings.TrimLeft(arg, dashes) }

// translateSeed turns a seed's command line into ours, and returns any other
// as it is, without a seed.
func (a *App) translateSeed(args []string) ([]string, *Seed, error) {
	if len(args) > 0 && slices.Contains([]string{"keytransferremote.exe", "keytransferremote"}, strings.ToLower(lastPart(args[0]))) {
		args = args[1:]
	}
	for _, seed := range a.Seeds {
		for at := range args {
			if name, isName := nameAt(args, at); isName && strings.EqualFold(name, undashed(seed.Switch)) {
				translated, err := seed.translate(args, at, a.hasFlag(seed.Command))
				return translated, &seed, err
			}
		}
	}
	return args, nil, nil
}

func lastPart(path string) string { return path[strings.LastIndexAny(path, `/\`)+1:] }

// nameAt is the argument without its dash, if it has one or a lone one before it.
func nameAt(args []string, i int) (string, bool) {
	after := i > 0 && isLoneDash(args[i-1])
	return undashed(args[i]), !isLoneDash(args[i]) && (after || isDashed(args[i]))
}

// translate reads the parameters around the switch, which is args[at]. What may be
// a password, or a part of one, it does not show. Our own flags are known behind one
// dash too: editors make one dash of two.
func (s Seed) translate(args []string, at int, ours func(name string) bool) ([]string, error) {
	out := strings.Fields(s.Command)
	secret := false // the parameter before was one for a secret
	for i := 0; i < len(args); i++ {
		if i == at || isLoneDash(args[i]) {
			continue
		}
		name, isName := nameAt(args, i)
		name, value, colon := strings.Cut(name, ":")
		param, known := s.param(name)
		known = known && isName
		next := i+1 < len(args) && !isDashed(args[i+1])
		switch {
		case !known && isName && !s.near(name) && (ours(name) || utf8.RuneCountInString(args[i])-utf8.RuneCountInString(undashed(args[i])) > 1): // one of our own flags among theirs
			out, secret = append(out, "--"+undashed(args[i])), false
			if i+1 < len(args) && (next || args[i+1] == "-") && !strings.Contains(args[i], "=") {
				i++
				out = append(out, args[i])
			}
			continue
		case !known:
			return nil, s.unknown(args, i, secret)
		case colon && value != "":
		case param.Kind == Bare && !colon, param.Kind == Secret && !colon && !next:
			out, secret = append(out, param.Flag), param.Kind == Secret
			continue
		case colon || !next:
			return nil, control.CommandLine.Refuse("%s wants a value", param.Name).
				WithHint("a shell other than PowerShell takes $true and $false for variables: quote them, '$true', or write true and false")
		default:
			i++
			value = args[i]
		}
		if param.Kind == Bare {
			value = strings.ToLower(strings.TrimPrefix(value, "$"))
		}
		if param.Turn != nil {
			value = param.Turn(value)
		}
		out, secret = append(out, param.Flag+"="+value), param.Kind == Secret
	}
	return out, nil
}

func (s Seed) param(name string) (Param, bool) {
	i := slices.IndexFunc(s.Params, func(p Param) bool { return strings.EqualFold(undashed(p.Name), name) })
	if i < 0 {
		return Param{}, false
	}
	return s.Params[i], true
}

func (s Seed) names() []string {
	var names []string
	for _, p := range s.Params {
		names = append(names, p.Name)
	}
	return names
}

// near reports whether the name is one of ours but for its case and dashes, or
// only a little off a parameter's.
func (s Seed) near(name string) bool {
	return !strings.Contains(name, "-") && nearest(name, s.names()) != ""
}

// unknown refuses an argument. After a password, its own remainder may follow,
// where somebody left its quotes away.
func (s Seed) unknown(args []string, i int, secret bool) error {
	name, isName := nameAt(args, i)
	close := ""
	if isName {
		name, _, _ = strings.Cut(name, ":")
		close = nearest(name, s.names())
	}
	valid := "it takes " + strings.Join(s.names(), ", ") + ", and the flags of `" + s.Command + " --help`"
	if secret && (close == "" || isDashed(args[i-1])) {
		return control.CommandLine.Refuse("argument %d is no parameter of %s; it is not shown, for it may be a password", i+1, s.Switch).
			WithHint("a value can't begin with a dash, and one with blanks is quoted: a password goes in a file, or is typed at the prompt; %s%s", didYouMean(close), valid)
	}
	shown := control.Plain(args[i])
	if isName {
		shown = "-" + control.Plain(name)
	}
	return control.CommandLine.Refuse("%s is no parameter of %s", shown, s.Switch).WithHint("%s%s", didYouMean(close), valid)
}
