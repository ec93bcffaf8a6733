// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// Compared is a fingerprint that a person is to compare with one that they were
// told, read on paper or saw on another machine.
type Compared struct {
	What  string // names what has it, such as "security world BYOK-SecurityWorld-pkg-NA-1"
	Heard string // how the person got to know it, such as "as the other side reads them aloud"
	Is    fingerprint.Fingerprint

	Flag        string // by which it can be given
	Given       string // its value; empty: ask
	BothScreens bool   // the person sees both screens, and compares all of it by eye
	Rehearsal   bool   // --yes stands for the answer
}

// AddBothScreens declares the flag for [Compared.BothScreens].
func AddBothScreens(flags *pflag.FlagSet) *bool {
	return flags.Bool("both-screens", false, "")
}

// BothScreensHelp explains it.
const BothScreensHelp = `  --both-screens           you see the screens of both sides: show the words
                           here and take an exact Yes for an answer
`

// places is how many words of a fingerprint are asked for. They are chosen when the
// file is already there, so an attacker would need one that agrees nearly everywhere.
const places = 3

// Compare refuses a fingerprint that is not the one that the person knows. Without
// it, it asks for some of its words: those can't be typed without having been heard.
func (o *IO) Compare(c Compared) error {
	switch {
	case c.Given != "":
		want, err := fingerprint.Parse(c.Given)
		if err != nil {
			return control.CommandLine.Refuse("--%s: %w", c.Flag, err)
		}
		return c.against(want)
	case o.Yes && c.Rehearsal:
		return nil
	case o.Yes:
		return control.NotConfirmed.Refuse("--yes can't confirm a fingerprint in a real ceremony").
			WithHint("compare it and type the words that are asked for, or give the fingerprint that was read aloud with --%s", c.Flag)
	case c.BothScreens:
		return o.compareByEye(c)
	}
	return o.askForWords(c)
}

func (c Compared) against(want fingerprint.Fingerprint) error {
	if want != c.Is {
		return control.TrustFingerprint.Refuse("the fingerprint of the %s is %s, not %s", c.What, c.Is, want)
	}
	return nil
}

// Speak shows a fingerprint while a command goes on, in rows of their own, which are
// not broken.
func (o *IO) Speak(what string, print fingerprint.Fingerprint) {
	o.Note("fingerprint of the %s:", what)
	fmt.Fprintf(o.stderr, "%s\n", print.Spoken())
}

func (o *IO) compareByEye(c Compared) error {
	o.Speak(c.What, c.Is)
	err := o.Confirm("Is each word the same on the other screen?")
	if control.Is(err, control.NotConfirmed) {
		return control.NotConfirmed.Refuse("the fingerprint of the %s was not confirmed", c.What).WithHint("%s", differs)
	}
	return err
}

const differs = "if a word differed, do not run it again: bring the file anew by another way, and tell the security officer; " +
	"if none did, run the same command again"

// askForWords takes the words at some places, as words or as two hex digits each, or
// the whole fingerprint in any form. What is no answer at all is asked for again.
func (o *IO) askForWords(c Compared) error {
	asked := choose(places)
	o.Note("the %s has a fingerprint of 32 words (each is one byte: two hex digits).", c.What)
	for try := range 3 {
		answer, err := o.ask(fmt.Sprintf("type words %s %s: ", list(asked), c.Heard))
		if try > 0 && control.Is(err, control.NoTerminal) {
			break
		}
		var refused *control.Refusal
		if control.Is(err, control.NoTerminal) && errors.As(err, &refused) {
			return refused.WithHint("run it in a terminal, or give the fingerprint with --%s, as hex or as words", c.Flag)
		}
		if err != nil {
			return err
		}
		if want, err := fingerprint.Parse(answer); err == nil {
			return c.against(want)
		}
		told := fingerprint.Split(answer)
		if len(told) != len(asked) {
			o.Note("%d words are wanted; all 32 are taken too, and the hex digits of the whole", len(asked))
			continue
		}
		problem := ""
		for i, place := range asked {
			b, err := fingerprint.ByteAt(place, told[i])
			if err != nil {
				problem = told[i]
			} else if b != c.Is[place] {
				return control.TrustFingerprint.Refuse("word %d of the fingerprint of the %s is not %s", place+1, c.What, control.Quote(told[i])).WithHint("%s", differs)
			}
		}
		if problem == "" {
			return nil
		}
		o.Note("%s is not a word that can stand there: each place has words of its own, so look at the number of the row", control.Quote(problem))
	}
	return control.NotConfirmed.Refuse("the fingerprint of the %s was not confirmed", c.What).
		WithHint("run the same command again and type the words that are asked for; who sees both screens can add --both-screens")
}

// choose picks n of the 32 places, in order.
func choose(n int) []int {
	var chosen []int
	for len(chosen) < n {
		place, err := rand.Int(rand.Reader, big.NewInt(32))
		if err != nil {
			panic(err) // crypto/rand never fails
		}
		if !slices.Contains(chosen, int(place.Int64())) {
			chosen = append(chosen, int(place.Int64()))
		}
	}
	slices.Sort(chosen)
	return chosen
}

// list names places to people, who count from one: 3, 9 and 14.
func list(places []int) string {
	var names []string
	for _, p := range places {
		names = append(names, fmt.Sprint(p+1))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// Face is something that has a fingerprint which people compare.
type Face struct {
	Name  string // by which the command knows it: card, world, kek, kit, bundle, ledger
	What  string // names it to people
	Where string // where it is compared
	Print fingerprint.Fingerprint
}

// KEKWhere says where the KEK's fingerprint is compared.
const KEKWhere = "which a second person reads from the vault on a second machine"

// Fingerprints is the command that shows again what is to be read aloud. faces lists
// what there is; the first is what is due now.
type Fingerprints struct {
	Side
	Names string
	Faces func(s *state.State) ([]Face, error)
}

// Show is the command.
func (f Fingerprints) Show() Command {
	names := f.Names + "|ledger"
	return Command{
		Name:    "fingerprint",
		Summary: "show again the words that are to be read aloud now",
		Usage: fmt.Sprintf(`
Usage: %[1]s fingerprint [%[2]s]

Shows one fingerprint, as hex and as words, and says what it belongs to and
where it is compared. Without an argument it is the one that is to be read aloud
now.

Example: %[1]s fingerprint
`, f.Program, names),
		Setup: func(*pflag.FlagSet) Run {
			return func(_ context.Context, io *IO, args []string) error {
				if len(args) > 1 || len(args) == 1 && !slices.Contains(strings.Split(names, "|"), args[0]) {
					return control.CommandLine.Refuse("want one of %s, or nothing", names)
				}
				return f.InState(io, func(s *state.State) error {
					faces, err := f.Faces(s)
					if err != nil {
						return err
					}
					faces = append(faces, Face{Name: "ledger", What: fmt.Sprintf("ledger of %d records", len(s.Ledger.Entries())), Where: "to be compared with that of the last sheet", Print: s.Ledger.Head()})
					for _, face := range faces {
						if len(args) == 0 || face.Name == args[0] {
							stand, err := f.Stand(s)
							if err != nil {
								return err
							}
							return io.resultAside(map[string]any{"name": face.Name, "what": face.What, "fingerprint": face.Print, "words": face.Print.Words()},
								fmt.Sprintf("The fingerprint of the %s, %s:\n%s", face.What, face.Where, face.Print.Spoken()), stand)
						}
					}
					return control.TrustNone.Refuse("there is no %s yet that has a fingerprint", args[0]).WithHint("see `%s status`", f.Program)
				})
			}
		},
	}
}
