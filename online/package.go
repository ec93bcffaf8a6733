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
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

var packageCommand = cli.Command{
	Name:    "package",
	Summary: "write the .byok and TPD files, for other tools",
	Usage: `
Usage: online package BUNDLE --out DIR

Checks a bundle as "online verify" does and writes, for each key in it,
KeyTransferPackage-<id>.byok and no_key_tpd_<id>.xml to DIR, and the keyless
TPD's one_time_password_<id>.txt if it has one: all of them, or none. "online
upload" does not need them.

Of a key of 1024 bits, to be Microsoft-managed, it writes tpd_with_key_<id>.xml
alone: whoever has that file and the export's password has the key. Delete it
once it is in the tenant.

  --out DIR         where to write
  --out-of-order    as in online verify

Example: online package keyferry-vault-room-1.kfb --out transfer
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		out, outOfOrder := flags.String("out", "", ""), addOutOfOrder(flags)
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			if err := cli.Require(flags, "out"); err != nil {
				return err
			}
			if err := durable.CheckDir(*out); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(io, s, path, *outOfOrder, func(_ *ceremony.Journal, r received) error { return writeTransfer(io, r.Verified, *out) })
			})
		}
	},
}

// generator names what made a transfer blob, inside it.
const generator = "Keyferry"

// transfer is what a key's import needs.
type transfer struct {
	key     bundle.Key
	blob    []byte // the .byok file; none of a Microsoft-managed key
	tpd     []byte // the keyless TPD, or that of a Microsoft-managed key, which holds it
	oneTime []byte // its password, if it is not the export's
}

// readTransfers takes the keys out of a verified bundle.
func readTransfers(v *bundle.Verified) ([]transfer, error) {
	var paths []string
	for _, k := range v.Index.Keys {
		paths = append(paths, tpdPath(k))
		if !k.MicrosoftManaged() {
			paths = append(paths, wrappedPath(k.ID))
		}
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
		t := transfer{key: k, tpd: files[tpdPath(k)], oneTime: files[oneTimePath(k.ID)]}
		if !k.MicrosoftManaged() {
			if t.blob, err = byok.Marshal(k.KID, files[wrappedPath(k.ID)], generator); err != nil {
				return nil, err
			}
		}
		transfers = append(transfers, t)
	}
	return transfers, nil
}

func wrappedPath(id string) string { return bundle.KeyPath(id, bundle.WrappedName) }
func oneTimePath(id string) string { return bundle.KeyPath(id, bundle.OneTimeName) }
func tpdPath(k bundle.Key) string  { return bundle.KeyPath(k.ID, tpdName(k)) }

// tpdName says by its name whether the TPD holds the key.
func tpdName(k bundle.Key) string {
	if k.MicrosoftManaged() {
		return bundle.WithKeyName(k.ID)
	}
	return bundle.KeylessName(k.ID)
}

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
		if t.blob != nil {
			files = append(files, durable.File{Path: filepath.Join(out, "KeyTransferPackage-"+t.key.ID+".byok"), Data: t.blob})
		}
		files = append(files, durable.File{Path: filepath.Join(out, tpdName(t.key)), Data: t.tpd})
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
	withKey := []string{}
	for _, t := range transfers {
		if path := filepath.Join(out, tpdName(t.key)); t.key.MicrosoftManaged() {
			warnOfKeyIn(io, path, t.key.ID)
			withKey = append(withKey, path)
		}
	}
	return io.Result(map[string]any{"files": paths, "files_with_key": withKey}, fmt.Sprintf("Written:\n%s", strings.Join(paths, "\n")))
}

// warnOfKeyIn names a TPD that was written and holds its key.
func warnOfKeyIn(io *cli.IO, path, id string) {
	io.Warn("%s holds the key %s: whoever has it and the export's password has the key; delete it, and each copy of it, once it is in the tenant [%s]",
		path, id, control.TPDMode1.ID)
}
