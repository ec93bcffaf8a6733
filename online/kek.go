// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

const defaultKEK = "keyferry-kek"

var kekCreateCommand = cli.Command{
	Name:    "kek create",
	Summary: "make the key exchange key in the vault, write the packages",
	Usage: `
Usage: online kek create --out DIR [flags]

Makes the key exchange key (KEK) in the vault's HSM, good for import alone, and
writes BYOK-KEK-pkg-<region>-<n> and BYOK-SecurityWorld-pkg-<region>-<n> to DIR.
Read the security world's fingerprint aloud to the offline side. The KEK's a
second person reads from the vault on a second machine.

  --out DIR         where to write the packages
  --attestation F   write the attestation that the vault gives with the KEK, a
                    JSON object, to a file of its own for who can judge it
  --kek-name NAME   the KEK's name in the vault (default: keyferry-kek)
  --size BITS       2048, 3072 or 4096 (default: 4096)
  --expires DAYS    for how long the KEK can be used, to the end of the last day
                    in UTC; 0: without end (default: 90)
  --key-tag NAME=VALUE
                    a tag of the KEK, where a policy demands one; may be
                    repeated

A run that was stopped is taken up by the same command on the same day; a KEK of
the same name that is not exactly what is asked for is refused.

Example: online kek create --out /media/stick --expires 30
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		o := kekFlags(flags)
		bits := flags.Int("size", 4096, "")
		days := flags.Uint16("expires", 90, "")
		tags := flags.StringToString("key-tag", nil, "")
		return o.runner(flags, func(ctx context.Context, c *vault.Client, purpose map[string]string) (*vault.KEK, error) {
			for name, value := range *tags {
				if _, taken := purpose[name]; taken {
					return nil, control.CommandLine.Refuse("--key-tag: the KEK has a tag %s of its own", name)
				}
				purpose[name] = value
			}
			return c.CreateKEK(ctx, vault.NewKEK{Name: o.name, Bits: *bits, Expires: expiry(time.Now(), *days), Tags: purpose})
		})
	},
}

// expiry is the end of the day, in UTC, so many days from now: the same for
// each run on one day, so that a run that was stopped finds its KEK to be the
// one that is asked for. No days are no expiry.
func expiry(now time.Time, days uint16) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return now.UTC().Truncate(24*time.Hour).AddDate(0, 0, int(days)+1)
}

var kekFetchCommand = cli.Command{
	Name:    "kek fetch",
	Summary: "take an existing key exchange key, write the packages",
	Usage: `
Usage: online kek fetch --out DIR [flags]

As "online kek create", with a KEK that is in the vault already.

  --out DIR         where to write the packages
  --attestation F   write the attestation that the vault gives with the KEK, a
                    JSON object, to a file of its own for who can judge it
  --kek-name NAME   the KEK's name in the vault (default: keyferry-kek)
  --kek-version V   that version of it (default: the current one)

Example: online kek fetch --kek-name transfer-kek --out /media/stick
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		o := kekFlags(flags)
		version := flags.String("kek-version", "", "")
		return o.runner(flags, func(ctx context.Context, c *vault.Client, _ map[string]string) (*vault.KEK, error) {
			return c.FetchKEK(ctx, o.name, *version)
		})
	},
}

type kekOptions struct {
	name, out, attestation string
	signIn                 *signIn
}

// getKEK makes or fetches a KEK. The purpose is for the vault's tags: by it a
// KEK that a stopped run has made is taken up again.
type getKEK func(ctx context.Context, c *vault.Client, purpose map[string]string) (*vault.KEK, error)

func kekFlags(flags *pflag.FlagSet) *kekOptions {
	o := &kekOptions{signIn: addSignIn(flags)}
	flags.StringVar(&o.name, "kek-name", defaultKEK, "")
	flags.StringVar(&o.out, "out", "", "")
	flags.StringVar(&o.attestation, "attestation", "", "")
	return o
}

func (o *kekOptions) runner(flags *pflag.FlagSet, get getKEK) cli.Run {
	return func(ctx context.Context, io *cli.IO, args []string) error {
		if err := errors.Join(io.NoArguments(args), cli.Require(flags, "out"), keyid.Check("KEK name", o.name)); err != nil {
			return err
		}
		return withState(io, func(s *state.State) error { return o.run(ctx, io, s, get) })
	}
}

// run checks that the packages can be written before it touches the vault.
func (o *kekOptions) run(ctx context.Context, io *cli.IO, s *state.State, get getKEK) error {
	w, worldPackage, err := ceremony.OwnWorld(s)
	if err != nil {
		return err
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	pin, number := fingerprint.Of(worldPackage), len(h.KEKs)+1
	world := durable.File{Path: filepath.Join(o.out, trust.WorldName(w.Region, w.Number)), Data: worldPackage}
	out := durable.File{Path: filepath.Join(o.out, trust.KEKName(w.Region, number))}
	if o.attestation != "" {
		if err := durable.CheckAbsent(o.attestation); err != nil {
			return err
		}
	}
	missing, err := o.missing(world)
	if err != nil {
		return err
	}
	written, err := packaged(w, pin, out.Path)
	if err != nil {
		return err
	}
	if err := errors.Join(durable.CheckRoom(o.out, ceremony.Room), durable.CheckRoom(s.Dir, ceremony.Room)); err != nil {
		return err
	}
	var kek *vault.KEK
	err = withCloud(ctx, io, s, o.signIn, func(c ceremony.Cloud) error {
		kek, err = get(ctx, c.Vault, map[string]string{"keyferry-world": pin.Hex(), "keyferry-package": fmt.Sprint(number)})
		return err
	})
	if err != nil {
		return err
	}
	if o.attestation != "" && kek.Attestation == nil {
		return control.PackageAttestation.Refuse("the vault gives no attestation of the KEK that could be written")
	}
	switch {
	case written == nil:
		if out.Data, err = sealKEK(s, w, pin, number, kek); err != nil {
			return err
		}
		missing = append(missing, out)
	case written.kid == kek.KID:
		out.Data = written.file
	default:
		return durable.CheckAbsent(out.Path)
	}
	if err := durable.CreateAll(missing, 0o644); err != nil {
		return err
	}
	dir, err := filepath.Abs(o.out)
	if err != nil {
		return err
	}
	if err := h.Record(ceremony.EventKEK, ceremony.KEKPackaged{KID: kek.KID, KEK: fingerprint.OfKey(kek.Public), Number: number, Package: fingerprint.Of(out.Data), Out: dir}); err != nil {
		return err
	}
	if o.attestation != "" {
		if err := durable.CreateAll([]durable.File{{Path: o.attestation, Data: append(kek.Attestation, '\n')}}, 0o644); err != nil {
			return err
		}
	}
	return o.report(io, s, out.Path, world.Path, kek, pin)
}

// missing refuses places that are taken, and returns what is to be written
// beside the KEK package: the security world's, unless it is there already.
func (o *kekOptions) missing(world durable.File) ([]durable.File, error) {
	if err := durable.CheckDir(o.out); err != nil {
		return nil, err
	}
	return durable.Missing(world)
}

// kekPackage is one that a run wrote that was stopped before its last record.
type kekPackage struct {
	file []byte
	kid  string
}

// packaged returns the KEK package at path, nil if nothing is there. What is not
// a package of this side is refused.
func packaged(w *trust.World, pin fingerprint.Fingerprint, path string) (*kekPackage, error) {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		if kek, err := w.OpenKEK(file, pin, time.Now()); err == nil {
			return &kekPackage{file, kek.KID()}, nil
		}
	}
	return nil, durable.CheckAbsent(path)
}

// sealKEK makes the KEK's package and opens it as the offline side will.
func sealKEK(s *state.State, w *trust.World, pin fingerprint.Fingerprint, number int, kek *vault.KEK) ([]byte, error) {
	signer, err := s.Signer()
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(kek.Public)
	if err != nil {
		return nil, err
	}
	pkg := trust.KEK{
		World: pin, Region: w.Region, Number: number, Created: time.Now().UTC().Truncate(time.Second), Rehearsal: s.Rehearsal,
		KID: kek.KID, KeyOps: kek.Ops, PublicKey: public, Attestation: kek.Attestation,
	}
	if !kek.Expires.IsZero() {
		pkg.Expires = &kek.Expires
	}
	file, err := pkg.Seal(signer)
	if err != nil {
		return nil, err
	}
	_, err = w.OpenKEK(file, pin, time.Now())
	return file, err
}

func (o *kekOptions) report(io *cli.IO, s *state.State, out, world string, kek *vault.KEK, pin fingerprint.Fingerprint) error {
	expires, attested := "does not expire", "gives no attestation"
	face := fingerprint.OfKey(kek.Public)
	doc := map[string]any{
		"kid": kek.KID, "bits": kek.Public.N.BitLen(), "expires": nil, "attested": kek.Attestation != nil, "resumed": kek.Resumed,
		"kek_package": out, "security_world_package": world, "fingerprint": pin, "kek_fingerprint": face,
	}
	if !kek.Expires.IsZero() {
		doc["expires"] = kek.Expires.UTC()
		expires = "expires " + cli.Clock(kek.Expires)
	}
	if kek.Attestation != nil {
		attested = fmt.Sprintf("gives an attestation (%d bytes, in the package), which nothing here judges", len(kek.Attestation))
	}
	if o.attestation != "" {
		attested += "; it is in " + o.attestation
	}
	return result(io, s, nil, doc, fmt.Sprintf(`KEK: %s, RSA-%d, import only
It %s; the vault %s.
The KEK's fingerprint, %s:
%s
%s
in words: %s
KEK package: %s
Security world package: %s
Its fingerprint, to be read aloud at "offline trust":
%s
%s`, kek.KID, kek.Public.N.BitLen(), expires, attested, cli.KEKWhere, face, face.Grouped(), io.Line("online", "fingerprint", "kek"), out, world, pin, pin.Spoken()))
}
