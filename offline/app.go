// SPDX-License-Identifier: Apache-2.0

// Command offline is the half of Keyferry that runs on the disconnected
// workstation with the HSM: it takes a key out of a TPD export into the HSM and
// seals what may leave, the wrapped key and the keyless TPD, into a bundle.
package main

import "keyferry/pkg/cli"

// version is set by the build.
var version = "development build"

// newApp is the command line. Its commands learn by p what the process gave up.
func newApp() *cli.App {
	p := &process{}
	return &cli.App{
		Name:    "offline",
		Summary: "offline: Keyferry's disconnected side, which takes AD RMS keys into an HSM",
		Version: "keyferry offline, " + version,
		Around:  p.enter, AroundHelp: sandboxHelp,
		Commands: []cli.Command{
			doctorCommand(p),
			initCommand(p),
			trustCommand,
			packagesCommand,
			inspectCommand,
			importCommand(p),
			wrapCommand(p),
			sealCommand(p),
			approveCommand,
			receiptCommand,
			statusCommand,
			nextCommand,
			rehearsalCommand(p),
			fingerprints.Show(),
			runSheets.Write(),
			transcript.Show(),
			transcript.Verify(),
			selftestCommand(p),
		},
		Seeds: []cli.Seed{{
			Switch:  "-ImportRmsCentrallyManagedKey",
			Command: "import",
			Params: []cli.Param{
				{Name: "-TpdFilePath", Flag: "--tpd-file-path"},
				{Name: "-TpdFile", Flag: "--tpd-file-path"},
				{Name: "-ProtectionPassword", Flag: "--protection-password", Kind: cli.Secret},
				{Name: "-KeyIdentifier", Flag: "--key-identifier"},
				{Name: "-ExchangeKeyPackage", Flag: "--exchange-key-package"},
				{Name: "-NewSecurityWorldPackage", Flag: "--new-security-world-package"},
				{Name: "-WhatIf", Flag: "--dry-run", Kind: cli.Bare},
				{Name: "-Force", Flag: "--yes", Kind: cli.Bare},
				{Name: "-Verbose", Flag: "--verbose", Kind: cli.Bare},
			},
		}},
	}
}
