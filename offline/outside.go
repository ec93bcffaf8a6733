// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/module"
	"keyferry/offline/internal/sandbox"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
)

// outsideSandbox is doctor's trial by --hsm-outside-sandbox: before the sandbox is entered, and
// without a PIN, whether the module shows a token, and what it opens for that. It only tells.
func (p *process) outsideSandbox(io *cli.IO, flags *pflag.FlagSet) {
	if asked := flags.Lookup("hsm-outside-sandbox"); asked == nil || asked.Value.String() != "true" || sandbox.Entered() {
		return
	}
	path, parameters := p.kept.Module, p.kept.Parameters
	if chosen := chosenPath(flags); chosen != "" {
		path, parameters = chosen, flags.Lookup("hsm-parameters").Value.String()
	}
	path, err := module.Find(path)
	if err == nil {
		err = module.Surroundings(path, io.Warn)
	}
	var tokens []string
	opens := module.Opens(func() {
		var m *module.Module
		if err != nil {
			return
		}
		if m, err = module.Load(path, parameters); err != nil {
			return
		}
		slots, _ := m.GetSlotList(true)
		for _, slot := range slots {
			if info, err := m.GetTokenInfo(slot); err == nil {
				tokens = append(tokens, control.Quote(strings.TrimRight(info.Label, " \x00")))
			}
		}
	})
	switch {
	case err != nil:
		io.Note("outside of the sandbox it is the same, so that the sandbox is not in the way: %v", err)
	case len(tokens) == 0:
		io.Note("outside of the sandbox the module shows no token either, so that the sandbox is not in the way")
	default:
		io.Note("outside of the sandbox the module shows the token %s", strings.Join(tokens, ", "))
	}
	for _, what := range opens {
		io.Note("it opens what the sandbox forbids, %s", what)
	}
}
