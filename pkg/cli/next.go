// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"keyferry/pkg/state"
)

// Side is what the commands that both programs have need to know of this one.
type Side struct {
	Program string
	Is      state.Side
	Self    func(*state.State) (state.Self, error)
	InState func(io *IO, f func(s *state.State) error) error // runs f in its state directory
	Stand   func(s *state.State) (*Standing, error)          // where it stands by its ledger
}

// StandHere is where this side stands, for a command that needs no state directory. Where
// there is none, or it can't be opened now, "next" says more.
func (d Side) StandHere(io *IO) *Standing {
	if io.Began() {
		if s, err := state.Open(io.State, d.Is, d.Self); err == nil {
			stand, err := d.Stand(s)
			rehearsal := s.Rehearsal
			if cmp.Or(err, s.Close()) == nil {
				io.Rehearsal = rehearsal
				return stand
			}
		}
	}
	var stand Standing
	stand.Next("", d.Program, "next")
	return &stand
}

// Step is something to be done next.
type Step struct {
	Program string   // online or offline: this side, or the other one; or one that another person runs
	Words   []string // its command line; none: Note says all
	Note    string   // a person has to know, or to do first; may be empty
	By      string   // who does it, if not the operator of a side
}

// Standing is where a side is in the ceremony.
type Standing struct {
	Carry   []string // files to be carried to the other side now
	Steps   []Step   // the first is next
	Remains []string // to be done by other means
}

// Next adds a step.
func (s *Standing) Next(note, program string, words ...string) {
	s.Steps = append(s.Steps, Step{Program: program, Words: words, Note: note})
}

// ResultNext prints what a command that ended well has done, as Result does, and
// what comes next.
func (o *IO) ResultNext(doc map[string]any, text string, s *Standing) error {
	return o.Result(doc, strings.TrimSuffix(text, "\n")+"\n"+o.NextLines(doc, s))
}

// resultAside is ResultNext for a result that stands alone, to be kept or read aloud: what
// comes next goes to standard error.
func (o *IO) resultAside(doc map[string]any, text string, s *Standing) error {
	next := o.NextLines(doc, s)
	if err := o.Result(doc, text); err != nil {
		return err
	}
	fmt.Fprintln(o.stderr, forPeople(o.stderr, next))
	return nil
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
		switch {
		case step.By != "":
			head = "Next, by " + step.By + ": "
		case step.Program != o.program:
			head = "Next, on the " + map[string]string{"online": "connected", "offline": "disconnected"}[step.Program] + " side: "
		}
		if step.Note != "" {
			lines = append(lines, "("+step.Note+")")
		}
		if len(step.Words) > 0 {
			command = o.Line(step.Program, step.Words...)
			lines = append(lines, head+command)
		}
		steps = append(steps, map[string]any{"program": step.Program, "command": command, "note": step.Note, "by": step.By})
	}
	doc["carry"], doc["next"] = append([]string{}, s.Carry...), steps
	return strings.Join(lines, "\n")
}

// InEarnest puts the command of this dry run without --dry-run in the place of what comes
// next on this side, unless a secret may stand on it.
func (o *IO) InEarnest(s *Standing) {
	if o.secretTyped {
		return
	}
	words := slices.DeleteFunc(slices.Clone(o.typed), func(word string) bool { return strings.HasPrefix(word, "--dry-run") })
	s.Steps = []Step{{Program: o.program, Words: words, Note: "the same without --dry-run"}}
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
