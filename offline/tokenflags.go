// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/module"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
)

// tokenFlags are the flags that choose a token: at init, whose choice the state
// directory keeps, and at doctor, which may come before.
type tokenFlags struct {
	chosen ceremony.TokenSettings // as far as flags say
	ceremony.Access
}

const tokenUsage = `  --hsm-module PATH      PKCS#11 module (default: SoftHSM 2 in its usual places)
  --hsm-token LABEL      the HSM's token, by its label,
  --hsm-serial NUMBER    by its serial number,
  --hsm-uri URI          or by its PKCS#11 URI (RFC 7512), whose module-path may
                         name the module; of several, all must fit
  --hsm-parameters TEXT  what the module takes at C_Initialize, such as NSS's
  --hsm-pin-file PATH    the PIN (or --hsm-pin-fd N; default: the terminal)
  --hsm-so-pin-file PATH the secret of the second role, the administrator or
                         security officer, of an HSM that wants it to make or
                         destroy keys (or --hsm-so-pin-fd N; else it is asked
                         for once the HSM wants it)
  --hsm-pin-pad          the PIN is entered at the HSM's own PIN pad
`

func addTokenFlags(flags *pflag.FlagSet, p *process) *tokenFlags {
	f := &tokenFlags{}
	flags.StringVar(&f.chosen.Module, "hsm-module", "", "")
	flags.StringVar(&f.chosen.Label, "hsm-token", "", "")
	flags.StringVar(&f.chosen.Serial, "hsm-serial", "", "")
	flags.StringVar(&f.chosen.URI, "hsm-uri", "", "")
	flags.StringVar(&f.chosen.Parameters, "hsm-parameters", "", "")
	f.Access = addAccess(flags, p)
	flags.BoolVar(&f.chosen.PINPad, "hsm-pin-pad", false, "")
	return f
}

// choose reports whether the flags choose a token, not only a module.
func (f *tokenFlags) choose() bool {
	return f.chosen.Label != "" || f.chosen.Serial != "" || f.chosen.URI != ""
}

// words are the flags that choose this token at init, which wants a module and a token.
func (f *tokenFlags) words() (words []string) {
	c := f.chosen
	if !f.choose() {
		c.Label = "LABEL"
	}
	for _, flag := range [][2]string{{"--hsm-module", cmp.Or(c.Module, "MODULE")}, {"--hsm-token", c.Label}, {"--hsm-serial", c.Serial}, {"--hsm-uri", c.URI}, {"--hsm-parameters", c.Parameters}} {
		if flag[1] != "" {
			words = append(words, flag[:]...)
		}
	}
	if c.PINPad {
		words = append(words, "--hsm-pin-pad")
	}
	return words
}

// given reports whether any flag was used that has to do with which token it is.
func (f *tokenFlags) given() bool {
	return f.chosen != ceremony.TokenSettings{PINPad: f.chosen.PINPad, Signer: f.chosen.Signer}
}

// onlyModule reports whether no flag but --hsm-module was used.
func (f *tokenFlags) onlyModule() bool {
	return f.chosen == ceremony.TokenSettings{Module: f.chosen.Module, Signer: f.chosen.Signer} && !f.PIN.Given()
}

// check refuses what does not go together, and fills in the module that the URI
// names.
func (f *tokenFlags) check() error {
	if f.chosen.PINPad && f.PIN.Given() {
		return control.CommandLine.Refuse("--hsm-pin-pad and a PIN were given: want one of them")
	}
	if f.chosen.URI == "" {
		return nil
	}
	uri, err := module.ParseURI(f.chosen.URI)
	if err == nil && f.chosen.Module == "" {
		f.chosen.Module = uri.ModulePath
	}
	return err
}

// addAccess declares the flags by which a run gets at the token.
func addAccess(flags *pflag.FlagSet, p *process) ceremony.Access {
	return ceremony.Access{
		PIN:     cli.AddSecretFlags(flags, "hsm-pin", "PIN", false),
		Officer: cli.AddSecretFlags(flags, "hsm-so-pin", "secret of the HSM's administrator or security officer", false),
		Process: &p.Process,
	}
}
