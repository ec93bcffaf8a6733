// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var trustCommand = cli.Command{
	Name:    "trust",
	Summary: "pin the security world of the connected side",
	Usage: `
Usage: offline trust SECURITY-WORLD-PACKAGE [--fingerprint SHA256:…]

Pins the connected side: its vault, who signs KEK packages and receipts, and to
whom bundles are encrypted. Compare the words with those that "online kek
create" showed, read aloud by a person you know.

A pin is never replaced, but by a newer security world of the same side with
other approvers ("online approvers"), compared in the same way.

  --fingerprint SHA256:…   the fingerprint that was read aloud, as hex or as the
                           32 words; without it you are asked for three of
                           its words, which --yes answers in a rehearsal only
` + cli.BothScreensHelp + `
Example: offline trust /media/stick/BYOK-SecurityWorld-pkg-NA-1
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		given, bothScreens := flags.String("fingerprint", "", ""), cli.AddBothScreens(flags)
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "security world package")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return pinWorld(io, s, path, *given, *bothScreens) })
		}
	},
}

func pinWorld(io *cli.IO, s *state.State, path, given string, bothScreens bool) error {
	file, err := cli.ReadInput(path)
	if err != nil {
		return err
	}
	w, err := trust.OpenWorld(file)
	if err != nil {
		return err
	}
	where, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	pin := cli.Pin{
		What: "security world", Path: path, Created: w.Created, File: file, Rehearsal: w.Rehearsal, Keep: ceremony.WorldFile,
		Replaces: func(pinned []byte) bool { return succeeds(io, w, pinned) },
		Given:    given, BothScreens: bothScreens, Event: ceremony.EventTrust, Data: ceremony.WorldPinned{World: fingerprint.Of(file), Name: w.Name, Region: w.Region, Vault: w.Vault, Path: where, Number: w.Number, Approvers: w.Approvers, Threshold: w.Threshold},
	}
	io.Note("security world of %s, region %s, vault %s\n%s", w.Name, w.Region, w.Vault, w.ApprovalRule())
	if err := io.Pin(s, pin); err != nil {
		return err
	}
	return result(io, s, worldDoc(w, pin.Fingerprint()), fmt.Sprintf("Pinned: the security world of %s, region %s, vault %s", w.Name, w.Region, w.Vault))
}

// succeeds reports whether w is a newer security world of the pinned one's side,
// with other approvers and nothing else that differs, and shows both lists. Dual
// control is not switched off that way.
func succeeds(io *cli.IO, w *trust.World, pinned []byte) bool {
	old, err := trust.OpenWorld(pinned)
	if err != nil || w.Number <= old.Number || w.Name != old.Name || w.Region != old.Region || w.Vault != old.Vault || w.Rehearsal != old.Rehearsal ||
		!w.Signer.Equal(old.Signer) || w.Recipient != old.Recipient || old.Threshold > 0 && w.Threshold == 0 {
		return false
	}
	io.Warn("it replaces the pinned security world number %d of %s. Until now: %s", old.Number, old.Name, old.ApprovalRule())
	return true
}

func worldDoc(w *trust.World, print fingerprint.Fingerprint) map[string]any {
	return map[string]any{"fingerprint": print, "name": w.Name, "region": w.Region, "vault": w.Vault, "signer": w.Signer, "kind": state.KindName(w.Rehearsal),
		"approvers": w.Approvers, "threshold": w.Threshold}
}

var packagesCommand = cli.Command{
	Name:    "packages verify",
	Summary: "check the packages of the connected side against the pin",
	Shows:   true,
	Usage: `
Usage: offline packages verify -k BYOK-KEK-pkg-… -w BYOK-SecurityWorld-pkg-…

Checks that the security world is the pinned one, and that the KEK package holds
under it: signature, region, vault, number, import only, size, validity. Shows
the KEK's fingerprint: a second person reads it from the vault on a second
machine, since a connected machine that was taken over could have put a KEK of
its own there.

  -k, --exchange-key-package PATH        the KEK package
  -w, --new-security-world-package PATH  the security world package
  --attestation FILE                     write the attestation that the vault
                                         gave with the KEK, for who can judge it

Example: offline packages verify -k BYOK-KEK-pkg-NA-1
           -w BYOK-SecurityWorld-pkg-NA-1
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		kek := flags.StringP("exchange-key-package", "k", "", "")
		world := flags.StringP("new-security-world-package", "w", "", "")
		attestation := cli.FileFlag(flags, "attestation")
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(io.NoArguments(args), cli.Require(flags, "exchange-key-package", "new-security-world-package")); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				h, err := ceremony.ReadJournal(s.Ledger)
				if err != nil {
					return err
				}
				v, _, err := ceremony.VerifyPackages(io, s, h, *kek, *world)
				if err != nil {
					return err
				}
				return reportKEK(io, s, v, *kek, *attestation)
			})
		}
	},
}

// reportKEK shows the KEK of packages that hold, of which path is one.
func reportKEK(io *cli.IO, s *state.State, v *trust.VerifiedKEK, path, attestationFile string) error {
	expires, attested := "does not expire", "without an attestation"
	if v.Expires() != nil {
		expires = "expires " + cli.Clock(*v.Expires())
	}
	if v.Attestation() != nil {
		attested = fmt.Sprintf("with an attestation of %d bytes, which nothing here judges", len(v.Attestation()))
	}
	if attestationFile != "" {
		if v.Attestation() == nil {
			return control.PackageAttestation.Refuse("the KEK package has no attestation that could be written")
		}
		if err := durable.CreateAll([]durable.File{{Path: attestationFile, Data: append(v.Attestation(), '\n')}}, 0o644); err != nil {
			return err
		}
		attested += "; it is in " + attestationFile
	}
	doc := map[string]any{
		"result": "SUCCESS", "kid": v.KID(), "number": v.Number(), "bits": v.Public().N.BitLen(), "expires": v.Expires(),
		"kek_fingerprint": v.Fingerprint(), "attested": v.Attestation() != nil,
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	stand, err := standing(s, path)
	if err != nil {
		return err
	}
	return io.Result(doc, fmt.Sprintf("KEK: %s, RSA-%d, import only\nIt %s; %s.\nIts fingerprint, %s:\n%s\n%s\nResult: SUCCESS",
		v.KID(), v.Public().N.BitLen(), expires, attested, cli.KEKWhere, v.Fingerprint().Spoken(), io.NextLines(doc, stand)))
}
