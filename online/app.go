// SPDX-License-Identifier: Apache-2.0

// Command online is the half of Keyferry that runs on the connected
// workstation: it makes the key exchange key in the vault, checks the bundle
// that comes over the gap, and brings what is in it into the vault and the
// Azure RMS tenant. It never sees a clear key, but for one of 1024 bits, which no
// vault takes and which travels in its TPD.
//
// Its files, one a command: flags, help, and what is printed. What they do, in
// the order in which it happens, is in internal/ceremony; cloud.go and tenant.go
// sign in to the vault and the tenant.
package main

import (
	"strings"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/harden"
)

// version is set by the build.
var version = "development build"

var app = &cli.App{
	Name:    "online",
	Summary: "online: Keyferry's connected side, which takes keys into vault and tenant",
	Version: "keyferry online, " + version,
	Around:  hardened,
	Commands: []cli.Command{
		initCommand,
		kekCreateCommand,
		kekFetchCommand,
		approversCommand,
		trustCommand,
		inspectCommand,
		verifyCommand,
		packageCommand,
		uploadCommand,
		receiptCommand,
		importTPDCommand,
		nextCommand,
		statusCommand,
		doctorCommand,
		fingerprints.Show(),
		runSheets.Write(),
		transcript.Show(),
		transcript.Verify(),
		practiceServeCommand,
	},
	Seeds: []cli.Seed{{
		Switch:  "-ImportAadrmTpd",
		Command: "import-tpd",
		Params: []cli.Param{
			{Name: "-TpdFile", Flag: "--tpd-file"},
			{Name: "-TpdFilePath", Flag: "--tpd-file"},
			{Name: "-ProtectionPassword", Flag: "--protection-password", Kind: cli.Secret},
			{Name: "-HsmKeyFile", Flag: "--hsm-key-file"},
			{Name: "-Active", Flag: "--active"},
			{Name: "-FriendlyName", Flag: "--friendly-name"},
			{Name: "-KeyVaultKeyUrl", Flag: "--vault-key-name", Turn: nameInVault},
			{Name: "-WhatIf", Flag: "--dry-run", Kind: cli.Bare},
			{Name: "-Force", Flag: "--yes", Kind: cli.Bare},
			{Name: "-Verbose", Flag: "--verbose", Kind: cli.Bare},
		},
	}},
}

// nameInVault is the key's name in its URL, https://<vault>/keys/<name>/<version>.
func nameInVault(url string) string {
	_, name, isURL := strings.Cut(url, "/keys/")
	if !isURL {
		return url
	}
	name, _, _ = strings.Cut(name, "/")
	return name
}

// hardened has every command run without core dumps, and unread by other processes
// of the same user: it holds identities and, for a key of 1024 bits, a password.
func hardened(*pflag.FlagSet) func(*cli.IO, func() error) error {
	return func(_ *cli.IO, command func() error) error {
		if err := harden.Process(); err != nil {
			return err
		}
		return command()
	}
}
