// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// Transcript is what the commands that show a side's ledger need to know of it.
type Transcript struct {
	Side
	Sheet func(s *state.State) (sheet.Sheet, error)
}

// Show is the command that prints the ledger.
func (t Transcript) Show() Command {
	return Command{
		Name:    "transcript",
		Summary: "show the ledger, record by record, or a sheet to sign",
		Shows:   true,
		Usage: fmt.Sprintf(`
Usage: %[1]s transcript [--sheet text|html] [--out FILE]

Shows the ledger: what was done when, what was refused and by which control, in
the chain of hashes that was checked when it was opened. Digests are in hex; the
words of what is to be read aloud are shown by "%[1]s fingerprint".

  --sheet text|html   instead, a page for each key, to print, sign and file
  --out FILE          write it to a file, which must not exist, in UTF-8

Example: %[1]s transcript --sheet html --out sheet.html
`, t.Program),
		Setup: func(flags *pflag.FlagSet) Run {
			form, out := flags.String("sheet", "", ""), FileFlag(flags, "out")
			return func(_ context.Context, io *IO, args []string) error {
				if err := io.NoArguments(args); err != nil {
					return err
				}
				if flags.Changed("sheet") && *form != "text" && *form != "html" {
					return control.CommandLine.Refuse("--sheet is text or html, not %s", control.Quote(*form))
				}
				return t.InState(io, func(s *state.State) error {
					if *form != "" {
						return t.printSheet(io, s, *form, *out)
					}
					return t.show(io, s, *out)
				})
			}
		},
	}
}

func (t Transcript) printSheet(io *IO, s *state.State, form, out string) error {
	paper, err := t.Sheet(s)
	if err != nil {
		return err
	}
	text := paper.Text()
	if form == "html" {
		text = paper.HTML()
	}
	return t.resultIn(io, s, out, map[string]any{"sheet": text}, text)
}

// resultIn prints a document that is kept, or writes it to a file where one is named. A
// shell that redirects the output may write it in another encoding, as Windows PowerShell
// does; programs there know UTF-8 by its mark at the beginning. What comes next is no
// part of the document.
func (t Transcript) resultIn(io *IO, s *state.State, path string, doc map[string]any, text string) error {
	stand, err := t.Stand(s)
	if err != nil {
		return err
	}
	if path == "" {
		return io.resultAside(doc, text, stand)
	}
	mark := ""
	if runtime.GOOS == "windows" {
		mark = "\ufeff"
	}
	if err := durable.Create(path, []byte(mark+strings.TrimSuffix(text, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	doc["out"] = path
	return io.ResultNext(doc, "Written: "+path, stand)
}

func (t Transcript) show(io *IO, s *state.State, out string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s), %s side\n\n", s.Name, s.Kind(), s.Side)
	for _, e := range s.Ledger.Entries() {
		text.WriteString(sheet.Describe(e) + "\n")
	}
	text.WriteString(describeHead(s))
	return t.resultIn(io, s, out, map[string]any{
		"entries": s.Ledger.Entries(), "head": s.Ledger.Head(), "signed_head": s.Signed, "signed_by": s.HeadBy,
	}, text.String())
}

func describeHead(s *state.State) string {
	head := s.Ledger.Head()
	return fmt.Sprintf("head  %s\nsigned at record %d of %d, %s, by %s\n", head,
		s.Signed.Ledger.Records, len(s.Ledger.Entries()), Clock(s.Signed.Time), s.HeadBy.Fingerprint())
}

// Verify is the command that proves the ledger.
func (t Transcript) Verify() Command {
	return Command{
		Name:    "transcript verify",
		Summary: "check the ledger's chain of hashes and its signed head",
		Shows:   true,
		Usage: fmt.Sprintf(`
Usage: %[1]s transcript verify [--head SHA256:…]

Checks that each record of the ledger follows the one before it, that what was
there when the head was signed is there still, and that this side signed it. A
head that was written down, printed on a sheet, or sent in a receipt is looked
for with --head: without it a ledger that was put back from an old backup, its
signed head too, looks good.

  --head SHA256:…   a head that the ledger must have had

Example: %[1]s transcript verify --head SHA256:9f86d081884c7d65…
`, t.Program),
		Setup: func(flags *pflag.FlagSet) Run {
			head := flags.String("head", "", "")
			return func(_ context.Context, io *IO, args []string) error {
				if err := io.NoArguments(args); err != nil {
					return err
				}
				var wanted *fingerprint.Fingerprint
				if flags.Changed("head") {
					print, err := fingerprint.Parse(*head)
					if err != nil {
						return control.CommandLine.Refuse("--head: %w", err)
					}
					wanted = &print
				}
				return t.InState(io, func(s *state.State) error { return t.verify(io, s, wanted) }) // which checks chain and head
			}
		},
	}
}

// verify looks for the head that is wanted, if one is.
func (t Transcript) verify(io *IO, s *state.State, wanted *fingerprint.Fingerprint) error {
	doc := map[string]any{"result": "SUCCESS", "records": len(s.Ledger.Entries()), "head": s.Ledger.Head(), "signed_head": s.Signed}
	text := fmt.Sprintf("%d records follow each other\n%s", len(s.Ledger.Entries()), describeHead(s))
	if wanted != nil {
		at, err := s.Ledger.Find(*wanted)
		if err != nil {
			return err
		}
		doc["found_at"] = at
		text += fmt.Sprintf("the head that was given is that of record %d\n", at)
	}
	stand, err := t.Stand(s)
	if err != nil {
		return err
	}
	return io.Result(doc, text+io.NextLines(doc, stand)+"\nResult: SUCCESS")
}
