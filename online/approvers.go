// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var approversCommand = cli.Command{
	Name:    "approvers",
	Summary: "name other approvers, in a new security world of this side",
	Usage: `
Usage: online approvers --approver FILE… --out DIR [--threshold N]

Writes a new security world of this side, with other approvers and the next
number. The offline side pins it by its fingerprint, read aloud again, with
"offline trust"; until then each side refuses what the other makes. KEK packages
belong to their security world: write them anew with "online kek fetch".

Name all approvers, not the new ones alone.

  --approver FILE   public SSH key (.pub) of a person who may approve bundles;
                    may be repeated
  --threshold N     how many of them must (default: all)
  --out DIR         where to write the package

Example: online approvers --approver alice.pub --approver dave.pub
           --out /media/stick
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o initOptions
		flags.StringArrayVar(&o.approvers, "approver", nil, "")
		flags.IntVar(&o.threshold, "threshold", 0, "")
		out := flags.String("out", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(io.NoArguments(args), cli.Require(flags, "approver", "out")); err != nil {
				return err
			}
			if !flags.Changed("threshold") {
				o.threshold = len(o.approvers)
			} else if o.threshold < 1 {
				return control.CommandLine.Refuse("--threshold is %d: dual control is not switched off, a ceremony without it begins with a state directory of its own", o.threshold)
			}
			if err := errors.Join(o.readApprovers(), durable.CheckDir(*out)); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return renewWorld(io, s, o.listed, o.threshold, *out) })
		}
	},
}

// renewWorld makes the next security world and tells the ledger, unless a run that
// was stopped has, and writes its package.
func renewWorld(io *cli.IO, s *state.State, approvers []trust.Approver, threshold int, out string) error {
	old, file, err := ceremony.OwnWorld(s)
	if err != nil {
		return err
	}
	w := *old
	if !reflect.DeepEqual(w.Approvers, approvers) || w.Threshold != threshold {
		signer, err := s.Signer()
		if err != nil {
			return err
		}
		w.Number, w.Created, w.Approvers, w.Threshold = w.Number+1, time.Now().UTC().Truncate(time.Second), approvers, threshold
		if file, err = w.Seal(signer); err != nil {
			return err
		}
		if _, err := trust.OpenWorld(file); err != nil {
			return err
		}
	}
	path := filepath.Join(out, trust.WorldName(w.Region, w.Number))
	missing, err := durable.Missing(durable.File{Path: path, Data: file})
	if err != nil {
		return err
	}
	made := ceremony.WorldMade{World: fingerprint.Of(file), Vault: w.Vault, Approvers: w.Approvers, Threshold: w.Threshold}
	if w.Number != old.Number {
		if err := s.Keep(time.Now(), ceremony.EventWorld, made, ceremony.WorldFile, file); err != nil {
			return err
		}
	}
	if err := durable.CreateAll(missing, 0o644); err != nil {
		return err
	}
	doc := map[string]any{"security_world_package": path, "number": w.Number, "fingerprint": made.World, "approvers": w.Approvers, "threshold": w.Threshold}
	return result(io, s, nil, doc, fmt.Sprintf("Security world package: %s\nIts fingerprint, to be read aloud at \"offline trust\":\n%s\n%s", path, made.World.Spoken(), w.ApprovalRule()))
}
