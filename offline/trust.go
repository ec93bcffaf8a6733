// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
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
	pin := cli.Pin{
		What: "security world", Path: path, File: file, Rehearsal: w.Rehearsal, Keep: worldFile,
		Replaces: func(pinned []byte) bool { return succeeds(io, w, pinned) },
		Given:    given, BothScreens: bothScreens, Event: ceremony.EventTrust, Data: ceremony.WorldPinned{World: fingerprint.Of(file), Name: w.Name, Region: w.Region, Vault: w.Vault, Number: w.Number, Approvers: w.Approvers, Threshold: w.Threshold},
	}
	io.Note("security world of %s, region %s, vault %s\n%s", w.Name, w.Region, w.Vault, w.ApprovalRule())
	if err := io.Pin(s, pin); err != nil {
		return err
	}
	return io.Result(worldDoc(w, pin.Fingerprint()), fmt.Sprintf("Pinned: the security world of %s, region %s, vault %s\nNext: offline import", w.Name, w.Region, w.Vault))
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
under it: signature, region, vault, import only, size, validity.

  -k, --exchange-key-package PATH        the KEK package
  -w, --new-security-world-package PATH  the security world package

Example: offline packages verify -k BYOK-KEK-pkg-NA-1 -w BYOK-SecurityWorld-pkg-NA-1
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		kek := flags.StringP("exchange-key-package", "k", "", "")
		world := flags.StringP("new-security-world-package", "w", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(io.NoArguments(args), cli.Require(flags, "exchange-key-package", "new-security-world-package")); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				v, err := verifyPackages(s, *kek, *world)
				if err != nil {
					return err
				}
				return reportKEK(io, v)
			})
		}
	},
}

// reportKEK shows the KEK of packages that hold.
func reportKEK(io *cli.IO, v *trust.VerifiedKEK) error {
	expires, attested := "does not expire", "without an attestation by the vault"
	if v.Expires() != nil {
		expires = "expires " + v.Expires().Format("2006-01-02 15:04 MST")
	}
	if v.Attested() {
		attested = "with the vault's attestation, which is not judged here"
	}
	doc := map[string]any{"result": "SUCCESS", "kid": v.KID(), "bits": v.Public().N.BitLen(), "expires": v.Expires(), "attested": v.Attested()}
	return io.Result(doc, fmt.Sprintf("KEK: %s, RSA-%d, import only\nIt %s; %s.\nResult: SUCCESS", v.KID(), v.Public().N.BitLen(), expires, attested))
}

// verifyPackages holds a KEK package against the pinned security world. The
// world's package need not be given again; one that is must be the pinned one.
func verifyPackages(s *state.State, kekPath, worldPath string) (*trust.VerifiedKEK, error) {
	w, pin, err := pinnedWorld(s)
	if err != nil {
		return nil, err
	}
	if worldPath != "" {
		file, err := cli.ReadInput(worldPath)
		if err != nil {
			return nil, err
		}
		if _, err := trust.OpenWorld(file); err != nil {
			return nil, err
		}
		if got := fingerprint.Of(file); got != pin {
			return nil, control.TrustFingerprint.Refuse("the security world's fingerprint is %s, the pinned one's %s", got, pin)
		}
	}
	file, err := cli.ReadInput(kekPath)
	if err != nil {
		return nil, err
	}
	return w.OpenKEK(file, pin, time.Now())
}
