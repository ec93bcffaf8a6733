// SPDX-License-Identifier: Apache-2.0

// Command online is the half of Keyferry that runs on the connected
// workstation: it makes the key exchange key in the vault, checks the bundle
// that comes over the gap, and brings what is in it into the vault and the
// Azure RMS tenant. It never sees a clear key, but for one of 1024 bits, which no
// vault takes and which travels in its TPD.
//
// Its files, in the order of the ceremony:
//
//	app.go        the commands
//	init.go       makes the state directory and the security world
//	kek.go        makes or fetches the KEK, writes the packages
//	approvers.go  names other approvers
//	trust.go      pins the offline side's card
//	verify.go     opens and checks a bundle
//	package.go    writes .byok and keyless TPD files
//	upload.go     vault and tenant, step by step; plan.go, which steps;
//	              handover.go, the kit for a person at a Windows machine
//	receipt.go    seals the answer
//	importtpd.go  one .byok and keyless TPD without their bundle
//	status.go     shows what the ledger says
//	doctor.go     shows what vault, tenant and machine are ready for
//	transcript.go shows all of it, or a sheet to sign
//	practice.go   serves the practice vault to other clients
//	cloud.go      the vault: Azure, or the practice cloud; tenant.go, the ways
//	              into the tenant
//	state.go      the state directory: who this side is, whom it has pinned
//	internal/ceremony  what the ledger's events add up to
package main

import (
	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/secret"
)

// version is set by the build.
var version = "development build"

var app = &cli.App{
	Name:    "online",
	Summary: "online: Keyferry's connected side. Brings what the disconnected side sealed into the key vault and Azure RMS.",
	Version: "keyferry online, " + version,
	Around:  hardened,
	Commands: []cli.Command{
		initCommand,
		kekCreateCommand,
		kekFetchCommand,
		approversCommand,
		trustCommand,
		verifyCommand,
		packageCommand,
		uploadCommand,
		receiptCommand,
		importTPDCommand,
		statusCommand,
		doctorCommand,
		fingerprints.Show(),
		transcript.Show(),
		transcript.Verify(),
		practiceServeCommand,
	},
	Seeds: []cli.Seed{{
		Switch:  "-ImportAadrmTpd",
		Command: "import-tpd",
		Params: []cli.Param{
			{Name: "-TpdFile", Flag: "--tpd-file"},
			{Name: "-ProtectionPassword", Flag: "--protection-password", Kind: cli.Optional},
			{Name: "-HsmKeyFile", Flag: "--hsm-key-file"},
			{Name: "-Active", Flag: "--active"},
			{Name: "-Verbose", Flag: "--verbose", Kind: cli.Bare},
		},
	}},
}

// hardened has every command run without core dumps, and unread by other processes
// of the same user: it holds identities and, for a key of 1024 bits, a password.
func hardened(*pflag.FlagSet) func(*cli.IO, func() error) error {
	return func(_ *cli.IO, command func() error) error {
		if err := secret.Harden(); err != nil {
			return err
		}
		return command()
	}
}
