// SPDX-License-Identifier: Apache-2.0

// Package keyid holds the syntax of key identifiers, which is that of the names
// of sides and KEKs too: 1 to 127 lower-case ASCII letters, digits and dashes,
// as KeyTransferRemote and Azure Key Vault both take them. Such a name is safe
// as a file name, an HSM label and a part of a URL.
package keyid

import (
	"regexp"

	"keyferry/pkg/control"
)

var syntax = regexp.MustCompile(`^[0-9a-z-]{1,127}$`)

// Valid reports whether s has the syntax.
func Valid(s string) bool { return syntax.MatchString(s) }

// Check refuses what a person gave as a what (a key identifier, a name).
func Check(what, s string) error {
	if !Valid(s) {
		return control.CommandLine.Refuse("%s can't be a %s", control.Quote(s), what).
			WithHint("a %s has 1 to 127 lower-case ASCII letters, digits and dashes", what)
	}
	return nil
}
