// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/keyid"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// RunSheets is the command that writes the sheets by which a ceremony is held.
type RunSheets struct {
	Side
	Day func(s *state.State) (*sheet.Day, error) // what this side knows of the ceremony
}

// Write is the command.
func (r RunSheets) Write() Command {
	return Command{
		Name:    "runsheet",
		Summary: "write a sheet for each person, with the commands of the day",
		Usage: fmt.Sprintf(`
Usage: %[1]s runsheet --out DIR [flags]

Writes a sheet for each role (offline operator, online operator, witness,
security officer, approver), as HTML for A4 or Letter paper and as text: this
ceremony's names, paths, keys, approvers and whole commands, boxes, and room for
times, initials and words. What is not known yet is a word in capitals, to be
filled in.

  --out DIR              where to write them: runsheet-<role>.html and .txt
  --stick DIR            the stick, on both sides (default: where it was last,
                         else /media/stick)
  --system NAME          linux or windows: of which the commands are (default:
                         this system)
  --tpd-file-path PATH   an export of the day; with --key-identifier, may be
  --key-identifier ID    repeated (default: the keys that the ledger knows)
  --active ID            the key that becomes active

Example: %[1]s runsheet --out sheets --stick /media/stick
`, r.Program),
		Setup: func(flags *pflag.FlagSet) Run {
			o := runSheetOptions{RunSheets: r}
			flags.StringVar(&o.out, "out", "", "")
			flags.StringVar(&o.stick, "stick", "", "")
			flags.StringVar(&o.system, "system", runtime.GOOS, "")
			flags.StringArrayVar(&o.tpds, "tpd-file-path", nil, "")
			flags.StringArrayVar(&o.ids, "key-identifier", nil, "")
			flags.StringVar(&o.active, "active", "", "")
			return func(_ context.Context, io *IO, args []string) error {
				if err := errors.Join(io.NoArguments(args), Require(flags, "out"), o.check()); err != nil {
					return err
				}
				return r.InState(io, func(s *state.State) error { return o.write(io, s) })
			}
		},
	}
}

type runSheetOptions struct {
	RunSheets
	out, stick, system, active string
	tpds, ids                  []string
}

func (o *runSheetOptions) check() error {
	if o.system != "linux" && o.system != "windows" {
		return control.CommandLine.Refuse("--system is linux or windows, not %s", control.Quote(o.system))
	}
	if len(o.tpds) > len(o.ids) {
		return control.CommandLine.Refuse("each --tpd-file-path needs its --key-identifier")
	}
	for _, id := range o.ids {
		if err := keyid.Check("key identifier", id); err != nil {
			return err
		}
	}
	return durable.CheckDir(o.out)
}

func (o *runSheetOptions) write(io *IO, s *state.State) error {
	day, err := o.Day(s)
	if err != nil {
		return err
	}
	if io.State, err = filepath.Abs(io.State); err != nil { // the commands are typed wherever people are
		return err
	}
	day.Windows, day.Rehearsal = o.system == "windows", s.Rehearsal
	day.Quote = func(word string) string { return quoteFor(o.system, word) }
	day.Line = func(program string, words ...string) string { return io.lineOn(o.system, program, words...) }
	switch {
	case o.stick != "":
		day.Stick = o.stick
	case day.Stick == "" && day.Windows:
		day.Stick = `E:\`
	case day.Stick == "":
		day.Stick = "/media/stick"
	}
	for i, id := range o.ids {
		key := sheet.DayKey{ID: id}
		if i < len(o.tpds) {
			key.TPD = o.tpds[i]
		}
		if i == 0 {
			day.Keys = nil
		}
		day.Keys = append(day.Keys, key)
	}
	if o.active != "" {
		day.Active = o.active
	}

	var files []durable.File
	paths := []string{}
	for _, sheet := range day.RunSheets() {
		for extension, content := range map[string]string{".html": sheet.HTML, ".txt": sheet.Text} {
			files = append(files, durable.File{Path: filepath.Join(o.out, "runsheet-"+sheet.Name+extension), Data: []byte(content)})
		}
		paths = append(paths, filepath.Join(o.out, "runsheet-"+sheet.Name+".html"))
	}
	missing, err := durable.Missing(files...)
	if err != nil {
		return err
	}
	if err := durable.CreateAll(missing, 0o644); err != nil {
		return err
	}
	stand, err := o.Stand(s)
	if err != nil {
		return err
	}
	return io.ResultNext(map[string]any{"sheets": paths, "written": len(missing)},
		"Run sheets, each as .txt too:\n  "+strings.Join(paths, "\n  "), stand)
}
