// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/sandbox"
	"keyferry/offline/internal/sandbox/container"
	"keyferry/pkg/cli"
	"keyferry/pkg/durable"
)

func init() { broker = (*process).broker }

// broker lists what a container is to get at, and what must work in it. There, a
// process can't even read what is not on the list: so that is all that the command
// line names, by whatever flag, beside what belongs to the module.
func (p *process) broker(io *cli.IO, flags *pflag.FlagSet, writable []string) {
	if !container.Told(&machine.Seen) {
		sandbox.Broker.See = append([]machine.Finding{}, machine.Look()...) // not nothing, where nothing was seen
	}
	chosen, here := p.chosen(flags)
	var places []container.Place
	add := func(given string, write, deep, plain bool) {
		path, err := filepath.Abs(given)
		same := func(p container.Place) bool { return strings.EqualFold(p.Path, path) }
		if err == nil && given != "" && !isAbsent(path) && !slices.ContainsFunc(places, same) {
			places = append(places, container.Place{Path: path, Write: write, Deep: deep, Plain: plain})
		}
	}
	if real, err := filepath.EvalSymlinks(chosen.Module); err == nil && !strings.EqualFold(filepath.Base(real), filepath.Base(chosen.Module)) {
		sandbox.Broker.Not = "the module is a link, whose end can't be seen from there"
	}
	owned := filepath.SplitList(p.Needs.Writes)
	if os.Getenv("SOFTHSM2_CONF") != "" && !chosen.Practice && strings.HasPrefix(filepath.Base(chosen.Module), "softhsm2") {
		owned = append(owned, module.Writes("libsofthsm2", "")...) // as it is called elsewhere
	}
	if here {
		owned = append(owned, io.State)
	}
	for _, path := range owned {
		add(path, true, true, false)
	}
	for _, path := range writable {
		add(there(path), true, false, false)
	}
	for _, dir := range append(filepath.SplitList(p.Needs.DLLDirs), dirOf(chosen.Module)) {
		add(dir, false, true, false)
	}
	flags.Visit(func(f *pflag.Flag) {
		for _, value := range cli.Named(f) {
			add(value, false, true, false)
		}
	})
	for _, word := range flags.Args() {
		add(word, slices.Contains(besides, flags.Name()), true, false)
	}
	for _, variable := range os.Environ() { // where a module reads its configuration
		name, path, _ := strings.Cut(variable, "=")
		if strings.Contains(strings.ToUpper(name), "CONF") && len(filepath.VolumeName(path)) == len("C:") && filepath.IsAbs(path) { // no share, and nothing relative
			add(path, false, true, false)
		}
	}
	if program, err := os.Executable(); err == nil {
		add(program, false, false, false)
	}
	if dir, err := os.Getwd(); err == nil {
		add(dir, false, false, true)
	}
	sandbox.Broker.Places = places
	sandbox.Broker.Try = func() error {
		if here || flags.Name() == "init" {
			if err := durable.CheckPrivate(there(io.State)); errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("it can't look at the volume of %s: %w", io.State, err)
			}
		}
		return p.reachToken(flags, chosen, io.State)
	}
}

// chosen is the token that the command is to use, and whether the state directory
// is there.
func (p *process) chosen(flags *pflag.FlagSet) (chosen ceremony.TokenSettings, here bool) {
	value := func(name string) string {
		if flag := flags.Lookup(name); flag != nil {
			return flag.Value.String()
		}
		return ""
	}
	chosen = ceremony.TokenSettings{Module: chosenPath(flags), Label: value("hsm-token"), Serial: value("hsm-serial"), URI: value("hsm-uri"), Parameters: value("hsm-parameters")}
	if chosen == (ceremony.TokenSettings{}) {
		chosen = p.kept
	}
	if path, err := module.Find(chosen.Module); err == nil && (chosen.Module != "" || flags.Lookup("hsm-module") != nil) {
		chosen.Module = path
	}
	return chosen, p.kept.Module != ""
}

// reachToken finds the token in the container, as the command will, without a PIN. A
// rehearsal's own is not there before init has made it.
func (p *process) reachToken(flags *pflag.FlagSet, chosen ceremony.TokenSettings, state string) error {
	if flags.Lookup("hsm-pin-file") == nil || chosen.Module == "" {
		return nil
	}
	if chosen.Practice {
		conf, err := filepath.Abs(filepath.Join(state, ceremony.SoftHSMConf))
		if err == nil {
			err = os.Setenv("SOFTHSM2_CONF", conf)
		}
		if err != nil {
			return err
		}
	} else if chosen.Label == "" && chosen.Serial == "" && chosen.URI == "" {
		if _, fault := module.Open(chosen.Module); fault != "" {
			return fmt.Errorf("the module %s can't be loaded in it: %s", chosen.Module, fault)
		}
		return nil
	}
	choice := module.Choice{Module: chosen.Module, TokenLabel: chosen.Label, TokenSerial: chosen.Serial, Parameters: chosen.Parameters}
	if chosen.URI != "" {
		uri, err := module.ParseURI(chosen.URI)
		if err != nil {
			return nil // the command will refuse it
		}
		choice.TokenURI = uri
	}
	token, err := module.Choose(choice)
	if err != nil {
		return fmt.Errorf("the HSM's module does not reach its token in it: %w", err)
	}
	token.Close()
	return nil
}

// there is the path, or the nearest one above that is there.
func there(path string) string {
	for isAbsent(path) && filepath.Dir(path) != path {
		path = filepath.Dir(path)
	}
	return cmp.Or(path, ".")
}

// dirOf is the directory of a module, if there is one.
func dirOf(path string) string {
	if path == "" {
		return path
	}
	return filepath.Dir(path)
}
