// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

var packageCommand = cli.Command{
	Name:    "package",
	Summary: "write the .byok and keyless TPD files, for other tools",
	Usage: `
Usage: online package BUNDLE --out DIR

Checks a bundle as "online verify" does and writes, for each key in it,
KeyTransferPackage-<id>.byok and no_key_tpd_<id>.xml to DIR, and the keyless
TPD's one_time_password_<id>.txt if it has one: all of them, or none. "online
upload" does not need them.

  --out DIR   where to write

Example: online package keyferry-vault-room-1.kfb --out transfer
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		out := flags.String("out", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			if err := cli.Require(flags, "out"); err != nil {
				return err
			}
			if err := cli.CheckOut(*out); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(s, path, func(_ *history, v *bundle.Verified) error { return writeTransfer(io, v, *out) })
			})
		}
	},
}

// generator names what made a transfer blob, inside it.
const generator = "Keyferry"

// transfer is what a key's import needs.
type transfer struct {
	key     bundle.Key
	blob    []byte // the .byok file
	keyless []byte // the keyless TPD
	oneTime []byte // its password, if it is not the export's
}

// readTransfers takes the keys out of a verified bundle.
func readTransfers(v *bundle.Verified) ([]transfer, error) {
	var paths []string
	for _, k := range v.Index.Keys {
		paths = append(paths, wrappedPath(k.ID), keylessPath(k.ID))
		if hasOneTime(k) {
			paths = append(paths, oneTimePath(k.ID))
		}
	}
	files, err := v.ReadFiles(paths...)
	if err != nil {
		return nil, err
	}
	var transfers []transfer
	for _, k := range v.Index.Keys {
		blob, err := byok.Marshal(k.KID, files[wrappedPath(k.ID)], generator)
		if err != nil {
			return nil, err
		}
		transfers = append(transfers, transfer{k, blob, files[keylessPath(k.ID)], files[oneTimePath(k.ID)]})
	}
	return transfers, nil
}

func wrappedPath(id string) string { return bundle.KeyPath(id, bundle.WrappedName) }
func keylessPath(id string) string { return bundle.KeyPath(id, bundle.KeylessName(id)) }
func oneTimePath(id string) string { return bundle.KeyPath(id, bundle.OneTimeName) }

// hasOneTime reports whether the keyless TPD of a key brings its own password.
func hasOneTime(k bundle.Key) bool {
	return slices.ContainsFunc(k.Files, func(f bundle.File) bool { return f.Path == oneTimePath(k.ID) })
}

func writeTransfer(io *cli.IO, v *bundle.Verified, out string) error {
	transfers, err := readTransfers(v)
	if err != nil {
		return err
	}
	var files []durable.File
	for _, t := range transfers {
		files = append(files,
			durable.File{Path: filepath.Join(out, "KeyTransferPackage-"+t.key.ID+".byok"), Data: t.blob},
			durable.File{Path: filepath.Join(out, bundle.KeylessName(t.key.ID)), Data: t.keyless})
		if t.oneTime != nil {
			files = append(files, durable.File{Path: filepath.Join(out, "one_time_password_"+t.key.ID+".txt"), Data: t.oneTime})
		}
	}
	if err := durable.CreateAll(files, 0o600); err != nil {
		return err
	}
	var paths []string
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	return io.Result(map[string]any{"files": paths}, fmt.Sprintf("Written:\n%s", strings.Join(paths, "\n")))
}
