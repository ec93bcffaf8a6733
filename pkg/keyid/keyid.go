// SPDX-License-Identifier: Apache-2.0

// Package keyid holds the syntax of key identifiers, which is that of the names
// of sides and KEKs too: 1 to 127 lower-case ASCII letters, digits and dashes,
// as KeyTransferRemote and Azure Key Vault both take them. The first is no dash,
// since commands take it for a flag, and the whole is none of the names that mean
// a device in each directory of Windows. Such a name is safe as a file name, an
// HSM label, an argument and a part of a URL.
package keyid

import (
	"regexp"
	"strings"

	"keyferry/pkg/control"
)

var (
	syntax  = regexp.MustCompile(`^[0-9a-z][0-9a-z-]{0,126}$`)
	devices = regexp.MustCompile(`^(?i:con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])$`)
)

// Rule is the syntax, for people.
const Rule = "1 to 127 lower-case letters (a to z), digits and dashes, with no dash at the beginning; not con, prn, aux, nul, com0 to com9 or lpt0 to lpt9, which Windows takes for devices"

// Valid reports whether s has the syntax.
func Valid(s string) bool { return syntax.MatchString(s) && !IsDevice(s) }

// IsDevice reports whether Windows takes a name, without its ending, for a device in
// any directory.
func IsDevice(name string) bool {
	name, _, _ = strings.Cut(name, ".")
	return devices.MatchString(strings.TrimRight(name, " "))
}

// Check refuses what a person gave as a what (a key identifier, a name).
func Check(what, s string) error {
	if !Valid(s) {
		return control.CommandLine.Refuse("%s can't be a %s", control.Quote(s), what).WithHint("a %s has %s", what, Rule)
	}
	return nil
}
