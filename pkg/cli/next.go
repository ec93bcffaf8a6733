// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"slices"
	"strings"
)

// Step is something to be done next.
type Step struct {
	Program string   // online or offline: this side, or the other one
	Words   []string // its command line; none: Note says all
	Note    string   // a person has to know, or to do first; may be empty
}

// Standing is where a side is in the ceremony.
type Standing struct {
	Carry   []string // files to be carried to the other side now
	Steps   []Step   // the first is next
	Remains []string // to be done by other means
}

// Next adds a step.
func (s *Standing) Next(note, program string, words ...string) {
	s.Steps = append(s.Steps, Step{program, words, note})
}

// ResultNext prints what a command that ended well has done, as Result does, and
// what comes next.
func (o *IO) ResultNext(doc map[string]any, text string, s *Standing) error {
	return o.Result(doc, strings.TrimSuffix(text, "\n")+"\n"+o.NextLines(doc, s))
}

// NextLines says what comes next, in doc and in lines for people.
func (o *IO) NextLines(doc map[string]any, s *Standing) string {
	var lines []string
	for _, file := range s.Carry {
		lines = append(lines, "Carry on the stick: "+file)
	}
	steps := []map[string]any{}
	for _, step := range s.Steps {
		command, head := "", "Next: "
		if step.Program != o.program {
			head = "Next, on the " + map[string]string{"online": "connected", "offline": "disconnected"}[step.Program] + " side: "
		}
		if step.Note != "" {
			lines = append(lines, "("+step.Note+")")
		}
		if len(step.Words) > 0 {
			command = o.Line(step.Program, step.Words...)
			lines = append(lines, head+command)
		}
		steps = append(steps, map[string]any{"program": step.Program, "command": command, "note": step.Note})
	}
	doc["carry"], doc["next"] = append([]string{}, s.Carry...), steps
	return strings.Join(lines, "\n")
}

// InEarnest puts first the command of this dry run without --dry-run, unless a secret may
// stand on it.
func (o *IO) InEarnest(s *Standing) {
	if o.secretTyped {
		return
	}
	words := slices.DeleteFunc(slices.Clone(o.typed), func(word string) bool { return strings.HasPrefix(word, "--dry-run") })
	s.Steps = append([]Step{{Program: o.program, Words: words, Note: "the same without --dry-run"}}, s.Steps...)
}

// Began reports whether there is a state directory.
func (o *IO) Began() bool {
	_, err := os.Stat(o.State)
	return err == nil
}

// ShowBeginning says where a side stands that has no state directory yet: how its
// rehearsal begins, or goes on, and how the real ceremony does.
func (o *IO) ShowBeginning(rehearse, real []string) error {
	text := "Nothing has begun here: there is no state directory at " + o.State
	var s Standing
	if dir, err := defaultState(o.program, true); err == nil && dir != o.State && !o.stateGiven {
		if _, err := os.Stat(dir); err == nil {
			text += "\nA rehearsal is in " + dir
			s.Next("goes on with the rehearsal", o.program, "next", "--rehearsal")
		}
	}
	if len(s.Steps) == 0 {
		s.Next("a rehearsal, to begin with", o.program, rehearse...)
	}
	if !o.Rehearsal {
		s.Next("the real ceremony", o.program, real...)
	}
	return o.ResultNext(map[string]any{"state": o.State}, text, &s)
}

// standing are the words of a command line that names no command, which is one of
// `next`: without arguments, or with flags alone that say which ceremony is meant.
// Without arguments it is the real ceremony that is meant, if one was begun, else
// the rehearsal; nil if neither was.
func (a *App) standing(args []string) []string {
	if cmd, _ := a.find([]string{"next"}); cmd == nil {
		return nil
	}
	if len(args) > 0 {
		meant := args[0] == "--rehearsal" || args[0] == "--state" || strings.HasPrefix(args[0], "--state=")
		named := slices.ContainsFunc(args, func(arg string) bool { cmd, _ := a.find([]string{arg}); return cmd != nil })
		if !meant || named {
			return nil
		}
		return append([]string{"next"}, args...)
	}
	for _, flags := range [][]string{nil, {"--rehearsal"}} {
		dir, err := defaultState(a.Name, flags != nil)
		if err != nil {
			return nil
		}
		if _, err := os.Stat(dir); err == nil {
			return append([]string{"next"}, flags...)
		}
	}
	return nil
}
