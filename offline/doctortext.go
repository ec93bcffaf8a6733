// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/module"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
)

// This file turns what doctor finds into text for people, 80 columns wide.
// Programs read the JSON.

// describeMachine writes the section "machine".
func describeMachine(w *strings.Builder, found []machine.Finding) {
	fmt.Fprintln(w, "Machine")
	inspect.Line(w, "clock", "%s", cli.Clock(time.Now()))
	for _, f := range found {
		label := "seen"
		if f.Connected {
			label = "CONNECTED"
		}
		inspect.Line(w, label, "%s", cli.Fold(f.Text, 16))
	}
	if machine.Refuse(found) == nil {
		inspect.Line(w, "network", "none: nothing connects this machine now")
	}
}

// describe writes the section "program".
func (f programFinding) describe(w *strings.Builder) {
	fmt.Fprintln(w, "\nThis program")
	for _, held := range strings.Split(ceremony.SandboxText(f.Sandbox), "\n") {
		label, text, _ := strings.Cut(held, ": ")
		inspect.Line(w, label, "%s", cli.Fold(text, 16))
	}
	inspect.Line(w, "memory", "%s", cli.Fold(string(f.Memory), 16))
	inspect.Line(w, "self-test", "%s", cli.Fold(cmp.Or(strings.Join(f.SelfTest, ", "), "a wrong answer, see below"), 16))
	fmt.Fprintln(w)
}

// describe writes the section "hsm".
func (f hsmFinding) describe(w *strings.Builder, verbose bool) {
	t, l := f.Token, f.Library
	fmt.Fprintln(w, "HSM")
	inspect.Line(w, "module", "%s", t.Module)
	inspect.Line(w, "library", "%s\n%s, version %s, Cryptoki %s", control.Quote(l.Description), control.Quote(l.Manufacturer), l.Version, l.Cryptoki)
	inspect.Line(w, "token", "%s, serial %s, slot %d\n%s, %s, firmware %s", control.Quote(t.Label), control.Quote(t.Serial), t.ID,
		control.Quote(t.Model), control.Quote(t.Manufacturer), t.Firmware)
	inspect.Line(w, "login", "%s", describeLogin(t))
	if len(f.Nameless) > 0 {
		inspect.Line(w, "nameless", "%d keys tell neither label nor CKA_ID, so that none is in the way:\n%s", len(f.Nameless), cli.Fold(strings.Join(f.Nameless, "; "), 16))
	}
	f.describeMechanisms(w, verbose)
	describeVerdicts(w, "How a key comes in; the first that is exact is taken", f.Imports)
	describeVerdicts(w, "How it goes out, wrapped for the vault; likewise", f.Wraps)
	describeVerdicts(w, "What an imported key does, and random numbers", f.Uses)
	fmt.Fprintln(w, "\nSo an import")
	way := cmp.Or(f.Import, "no way: this token can't serve")
	if f.Imports[0].Result == hsm.Unproven {
		way = f.Imports[0].Mechanism + " (unproven)"
	}
	inspect.Line(w, "comes in by", "%s", way)
	inspect.Line(w, "goes out by", "%s", cmp.Or(f.Wrap, "--wrap software only: no mechanism is exact"))
	signer := "in the token, or in a file (--signer)"
	switch {
	case f.NoSigner == "" && !f.Signs:
		signer = "in a file; in the token too, perhaps (unproven)"
	case !f.Signs:
		signer = "in a file only, --signer file:\n" + cli.Fold(f.NoSigner, 16)
	}
	inspect.Line(w, "is signed", "%s", signer)
	if len(f.Unproven) > 0 {
		fmt.Fprintf(w, "\nNot proven, since the token would have to store something for it\n")
		for _, point := range f.Unproven {
			fmt.Fprintf(w, "  - %s\n", cli.SetIn(point, 4))
		}
		fmt.Fprintf(w, "  offline doctor --hsm-try-store proves it with throw-away keys, and removes them\n")
	}
}

func describeLogin(t module.Slot) string {
	text := "by PIN"
	switch {
	case !t.NeedPIN:
		text = "none needed"
	case t.PINPad:
		text = "at its PIN pad (--hsm-pin-pad), or by PIN"
	}
	if t.PIN != module.TriesUntold {
		text += "\n" + string(t.PIN)
	}
	return text
}

// describeMechanisms names those that Keyferry can use; with verbose, all.
func (f hsmFinding) describeMechanisms(w *strings.Builder, verbose bool) {
	var names []string
	for _, m := range f.Mechanisms {
		if m.Name != "" {
			names = append(names, m.Name)
		}
	}
	inspect.Line(w, "mechanisms", "%d by its own word; of those that serve here:\n%s", len(f.Mechanisms), cli.Fold(dash(strings.Join(names, " ")), 16))
	if !verbose {
		return
	}
	for _, m := range f.Mechanisms {
		fmt.Fprintf(w, "    %s %d to %d, %s\n", m.ID, m.MinKey, m.MaxKey, dash(strings.Join(m.For, ", ")+m.Fault))
	}
}

// describeVerdicts is a table, each reason beside its verdict or below it.
func describeVerdicts(w *strings.Builder, title string, verdicts []hsm.Verdict) {
	fmt.Fprintf(w, "\n%s\n", title)
	for _, v := range verdicts {
		head := fmt.Sprintf("  %-8s  %s", v.Result, v.Mechanism)
		switch {
		case v.Reason == "":
			fmt.Fprintln(w, head)
		case len(head)+len(": ")+len(v.Reason) <= cli.Width:
			fmt.Fprintf(w, "%s: %s\n", head, v.Reason)
		default:
			fmt.Fprintf(w, "%s:\n%s%s\n", head, strings.Repeat(" ", 12), cli.SetIn(v.Reason, 12))
		}
	}
}

func dash(s string) string { return cmp.Or(s, "-") }
