// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
	"github.com/spf13/pflag"

	"keyferry/offline/internal/module"
	"keyferry/offline/internal/sandbox"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
)

// outsideSandbox is doctor's trial by --hsm-outside-sandbox: before the sandbox is entered, and
// without a PIN, whether the module shows a token, and what it opens for that or for a
// session. It only tells.
func (p *process) outsideSandbox(io *cli.IO, flags *pflag.FlagSet, writable []string) (err error) {
	if asked := flags.Lookup("hsm-outside-sandbox"); asked == nil || asked.Value.String() != "true" || sandbox.Entered() {
		return nil
	}
	if err := othersToStderr(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stdoutAgain()) }()
	path, parameters := p.kept.Module, p.kept.Parameters
	if chosen := chosenPath(flags); chosen != "" {
		path, parameters = chosen, flags.Lookup("hsm-parameters").Value.String()
	}
	var tokens []string
	path, failure := module.Find(path)
	if failure == nil {
		failure = module.Surroundings(path, parameters, io.Warn)
	}
	opened, untold := module.Opens(func() {
		if failure == nil {
			tokens, failure = shown(path, parameters)
		}
	})
	switch {
	case failure != nil:
		io.Note("outside of the sandbox it is the same, so that the sandbox is not in the way: %v", failure)
	case len(tokens) == 0 && len(opened) > 0: // a connector without a device, say
		io.Note("outside of the sandbox the module shows no token either")
	case len(tokens) == 0:
		io.Note("outside of the sandbox the module shows no token either, so that the sandbox is not in the way")
	default:
		io.Note("outside of the sandbox the module shows the token %s", strings.Join(tokens, ", "))
	}
	if untold != nil {
		io.Note("this kernel does not tell what the module opens: %v", untold)
	}
	var told, places, give []string
	for _, need := range opened {
		forbidden := need.Flag == module.NetworkFlag && !p.Needs.Network || need.Flag == module.AbstractFlag && !p.Needs.AbstractSockets ||
			need.Place != "" && !mayWrite(writable, need.Place)
		if !forbidden || slices.Contains(told, need.What) {
			continue
		}
		told = append(told, need.What)
		if need.Place != "" {
			places = append(places, need.Place)
			need.Flag += " " + need.Place
		} else {
			give = append(give, need.Flag)
		}
		io.Note("it opens what the sandbox forbids, %s: %s", need.What, need.Flag)
	}
	if places = distinct(append(places, filepath.SplitList(p.Needs.Writes)...)); len(places) > 0 {
		give = append(give, module.WritesFlag+" "+strings.Join(places, string(filepath.ListSeparator)))
	}
	if len(told) > 0 {
		io.Note("so give %s", strings.Join(distinct(give), " "))
	}
	return nil
}

// shown loads a module and lists the tokens that it shows, each with a session for a moment.
func shown(path, parameters string) (tokens []string, err error) {
	m, err := module.Load(path, parameters)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Unload() }() // what it answers to that is the run's to tell
	slots, err := m.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		info, err := m.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		tokens = append(tokens, control.Quote(strings.TrimRight(info.Label, " \x00")))
		if session, err := m.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err == nil {
			_ = m.CloseSession(session)
		}
	}
	return tokens, nil
}

// mayWrite reports whether the sandbox lets a place be written.
func mayWrite(writable []string, place string) bool {
	real := func(path string) string {
		if found, err := filepath.EvalSymlinks(path); err == nil {
			return found
		}
		return path
	}
	return slices.ContainsFunc(append(writable, "/dev/null", "/dev/tty"), func(dir string) bool {
		below, err := filepath.Rel(real(dir), real(place))
		return err == nil && filepath.IsLocal(below)
	})
}

func distinct(texts []string) []string {
	slices.Sort(texts)
	return slices.Compact(texts)
}
