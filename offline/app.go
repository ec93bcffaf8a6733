// SPDX-License-Identifier: Apache-2.0

// Command offline is the half of Keyferry that runs on the disconnected
// workstation with the HSM: it takes a key out of a TPD export into the HSM and
// seals what may leave, the wrapped key and the keyless TPD, into a bundle.
//
// Its files, in the order of the ceremony:
//
//	app.go        the commands; sandbox.go, what all of them run in
//	doctor.go     shows what the HSM can do; doctortext.go, to people
//	init.go       makes the state directory; initrun.go, its steps; token.go, its
//	              HSM; tokenflags.go, the choice of it
//	trust.go      pins the security world, checks packages
//	inspect.go    reports on TPDs; report.go, to people
//	import.go     the import's flags and order; preflight.go, what comes before it;
//	              export.go, a TPD that was read and checked; carry.go, its key's
//	              way into the HSM; managed.go, that of a key that goes into no HSM;
//	              wrap.go, that of a key that is in the HSM already
//	outbox.go     where keys wait to be sealed
//	seal.go       outbox -> bundle on the stick
//	approve.go    attaches approvals to a bundle
//	receipt.go    closes the ledger
//	status.go     shows the ledger: as keys, and as transcript
//	sheet.go      the transcript as a sheet to sign
//	selftest.go   known answers
//	state.go      the state directory: who this side is, whom it has pinned
//	history.go    what the ledger's events add up to
package main

import "keyferry/pkg/cli"

// version is set by the build.
var version = "development build"

var app = &cli.App{
	Name:    "offline",
	Summary: "offline: Keyferry's disconnected side. Takes AD RMS keys from TPD exports into an HSM and seals them for the vault.",
	Version: "keyferry offline, " + version,
	Around:  inSandbox, AroundHelp: sandboxHelp,
	Commands: []cli.Command{
		doctorCommand,
		initCommand,
		trustCommand,
		packagesCommand,
		inspectCommand,
		importCommand,
		wrapCommand,
		sealCommand,
		approveCommand,
		receiptCommand,
		statusCommand,
		transcript.Show(),
		transcript.Verify(),
		selftestCommand,
	},
	Seeds: []cli.Seed{{
		Switch:  "-ImportRmsCentrallyManagedKey",
		Command: "import",
		Params: []cli.Param{
			{Name: "-TpdFilePath", Flag: "--tpd-file-path"},
			{Name: "-ProtectionPassword", Flag: "--protection-password", Kind: cli.Optional},
			{Name: "-KeyIdentifier", Flag: "--key-identifier"},
			{Name: "-ExchangeKeyPackage", Flag: "--exchange-key-package"},
			{Name: "-NewSecurityWorldPackage", Flag: "--new-security-world-package"},
			{Name: "-Verbose", Flag: "--verbose", Kind: cli.Bare},
		},
	}},
}
