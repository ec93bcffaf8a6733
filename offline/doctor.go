// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/probe"
	"keyferry/offline/internal/sandbox"
	"keyferry/offline/internal/selftest"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/harden"
	"keyferry/pkg/state"
)

func doctorCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "doctor",
		Summary: "look at the machine, the sandbox and the HSM before the day",
		Shows:   true,
		Usage: `
Usage: offline doctor [flags]

Looks at what a ceremony stands on, and changes nothing:

The machine: what connects it to a network, or could. One that is connected ends
with exit code 3 (--unsafe-network-present: a warning, as in a rehearsal). No
packet is sent to find out.

The program: what the kernel forbids it, whether its memory may be swapped out,
and the self-test.

The HSM: the module, the token and its mechanisms, and, proven on throw-away
keys that end with its session, each way by which a key can come in, each
mechanism by which it can go out wrapped for the vault, signing, decryption,
random numbers. Each verdict is exact, flawed (how is said), or none. A token
that takes no key in ends with exit code 3; one that wraps by no mechanism
exactly does for --wrap software. Without flags it is the token of the state
directory.

A token that keeps all it is given, such as a YubiHSM 2 or a NetHSM, can't be
tried without storing something: then what could not be proven is said.
--hsm-try-store proves it with throw-away keys that are removed again, and of
any other token that it stores what it takes for the time of a session.

Each import looks at all of this again.

` + tokenUsage + `  --hsm-try-store        store throw-away keys in a token that keeps all it is
                         given, to prove the rest, and remove them again
  --hsm-outside-sandbox  first see, without a PIN and before the sandbox is
                         entered, whether the module shows its token there, and
                         name what it opens that the sandbox forbids

Example: offline doctor --hsm-module /usr/lib/softhsm/libsofthsm2.so
           --hsm-token hsm --hsm-pin-file pin
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			o := doctorOptions{process: p, token: addTokenFlags(flags, p)}
			flags.BoolVar(&o.tryStore, "hsm-try-store", false, "")
			flags.Bool("hsm-outside-sandbox", false, "") // see outsideSandbox
			return func(ctx context.Context, io *cli.IO, args []string) error {
				if err := errors.Join(io.NoArguments(args), o.token.check()); err != nil {
					return err
				}
				return o.run(ctx, io)
			}
		},
	}
}

type doctorOptions struct {
	*process
	token    *tokenFlags
	tryStore bool         // may store a throw-away key
	state    *state.State // nil where flags choose the token
}

// doctorSections are what doctor looks at, in order. A section writes for
// people into w and returns its part of the JSON document, nil if it has none
// to show.
var doctorSections = []struct {
	name string // in the JSON document
	look func(o *doctorOptions, ctx context.Context, io *cli.IO, w *strings.Builder) (any, error)
}{
	{"machine", (*doctorOptions).lookAtMachine},
	{"program", (*doctorOptions).lookAtProgram},
	{"hsm", (*doctorOptions).lookAtHSM},
}

// problem is, in the JSON document, why a section is not whole or not well.
type problem struct {
	Section string `json:"section"`
	Control string `json:"control"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

func (o *doctorOptions) run(ctx context.Context, io *cli.IO) error {
	if o.token.given() {
		return o.lookAround(ctx, io)
	}
	return withState(io, func(s *state.State) error {
		o.state = s
		return o.lookAround(ctx, io)
	})
}

// lookAround looks at every section, whatever the others find. Its error is
// theirs.
func (o *doctorOptions) lookAround(ctx context.Context, io *cli.IO) error {
	doc, problems := map[string]any{}, []problem{}
	var text strings.Builder
	var failures []error
	for _, section := range doctorSections {
		found, err := section.look(o, ctx, io, &text)
		if found != nil {
			doc[section.name] = found
		}
		if err != nil {
			failures = append(failures, o.inTheWay(err))
			for _, r := range cli.Refusals(err) {
				problems = append(problems, problem{section.name, r.Control.ID, r.Message, r.Hint})
			}
		}
	}
	doc["problems"], doc["clock"] = problems, time.Now().UTC().Truncate(time.Second)
	switch stand := (&cli.Standing{}); {
	case len(failures) > 0:
	case o.state != nil:
		return result(io, o.state, doc, text.String())
	case io.Began():
		return io.ResultNext(doc, text.String(), side.StandHere(io))
	default:
		stand.Next("", "offline", append([]string{"init"}, o.token.words()...)...)
		return io.ResultNext(doc, text.String(), stand)
	}
	return errors.Join(io.Result(doc, text.String()), errors.Join(failures...))
}

// lookAtMachine refuses what an import would refuse.
func (o *doctorOptions) lookAtMachine(_ context.Context, io *cli.IO, w *strings.Builder) (any, error) {
	found := append([]machine.Finding{}, machine.Look()...)
	describeMachine(w, found)
	_, err := o.Tolerate(io, machine.Refuse(found), o.state != nil && ceremony.IsPractice(o.state))
	return found, err
}

// programFinding is the section "program".
type programFinding struct {
	Sandbox  sandbox.Held  `json:"sandbox"`
	Memory   harden.Memory `json:"memory"`
	SelfTest []string      `json:"selftest"` // what was asked; empty if an answer was wrong
}

func (o *doctorOptions) lookAtProgram(_ context.Context, io *cli.IO, w *strings.Builder) (any, error) {
	o.WarnOfSandbox(io)
	asked, err := selftest.Run()
	found := programFinding{o.Held, o.Memory, append([]string{}, asked...)}
	found.describe(w)
	return found, err
}

// hsmFinding is the section "hsm": what the token was shown to do, and what an
// import makes of it.
type hsmFinding struct {
	*probe.Report
	Import string `json:"import"` // the way that is taken, empty if there is none
	Wrap   string `json:"wrap"`   // the mechanism that is taken, empty if only software is left
	Signs  bool   `json:"signs"`  // whether the key that signs bundles can live in the token
}

func (o *doctorOptions) lookAtHSM(ctx context.Context, io *cli.IO, w *strings.Builder) (any, error) {
	token, err := o.open(ctx, io)
	if err != nil {
		return nil, err
	}
	if o.tryStore {
		io.Note("throw-away keys are stored in the token, and removed again; a run that is killed leaves one, which the next run removes")
	}
	report, err := probe.Run(token, o.tryStore)
	if err = errors.Join(err, token.Close()); err != nil {
		return nil, err
	}
	found := hsmFinding{report, firstExact(report.Imports), firstExact(report.Wraps), report.NoSigner == "" && len(report.Unproven) == 0}
	found.describe(w, io.Verbose)
	if found.Import == "" && report.Imports[0].Result != hsm.Unproven {
		return found, hsm.NoWay(report.Token, report.Imports)
	}
	if report.Storable != nil {
		refusal := control.HSMImport.Refuse("the token %s takes a private key in, but could not store it: %w", control.Quote(report.Token.Label), report.Storable)
		return found, refusal.WithHint("%s", cmp.Or(module.Hint(report.Storable), refusal.Hint))
	}
	return found, nil
}

// open opens the token that the flags choose or, without any, that of the state
// directory.
func (o *doctorOptions) open(ctx context.Context, io *cli.IO) (*hsm.Token, error) {
	if o.token.given() {
		settings := o.token.chosen
		var err error
		if settings.Module, err = module.Find(settings.Module); err != nil {
			return nil, err
		}
		return settings.Login(ctx, io, o.token.Access)
	}
	settings, err := ceremony.ReadTokenSettings(o.state)
	if err != nil {
		return nil, err
	}
	settings.PINPad = settings.PINPad || o.token.chosen.PINPad
	return settings.Open(ctx, io, o.state, o.token.Access)
}

func firstExact(verdicts []hsm.Verdict) string {
	i := slices.IndexFunc(verdicts, func(v hsm.Verdict) bool { return v.Result == hsm.Exact })
	if i < 0 {
		return ""
	}
	return verdicts[i].Mechanism
}
