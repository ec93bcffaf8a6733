// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"slices"

	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/tpd"
)

// This file has what can be asked of an import and of a wrap, and what they answer.

// Exports says which TPDs are read, and how.
type Exports struct {
	Paths           []string
	IDs             []string // key identifiers, one for each path
	PEMs            []string // files of the keys of keyless TPDs, one for each path; or none
	Password        *cli.SecretFlags
	Roots           []fingerprint.Fingerprint // the root keys that a chain may end at; none: any
	AcceptTemplates []string
	Element         tpd.KeylessElement
	KeylessPassword string
}

// Values of Exports.KeylessPassword.
const (
	KeepPassword  = "keep"  // the export's
	FreshPassword = "fresh" // a one-time password that travels in the bundle
)

// check refuses what can be seen on the command line.
func (x Exports) check() error {
	if len(x.Paths) != len(x.IDs) {
		return control.CommandLine.Refuse("%d TPDs and %d key identifiers were given: want one each", len(x.Paths), len(x.IDs))
	}
	if len(x.PEMs) > 0 && len(x.PEMs) != len(x.Paths) {
		return control.CommandLine.Refuse("%d TPDs and %d files for --key-pem were given: want one each", len(x.Paths), len(x.PEMs)).
			WithHint("import the exports that carry their key in a command of their own")
	}
	seen := map[string]bool{SignerLabel: true}
	for _, id := range x.IDs {
		if err := keyid.Check("key identifier", id); err != nil {
			return err
		}
		if seen[id] {
			return control.CommandLine.Refuse("the key identifier %s is taken", id)
		}
		seen[id] = true
	}
	if x.KeylessPassword != KeepPassword && x.KeylessPassword != FreshPassword {
		return control.CommandLine.Refuse("--keyless-password is keep or fresh, not %s", control.Quote(x.KeylessPassword))
	}
	if x.Element != tpd.OmitElement && x.Element != tpd.EmptyElement {
		return control.CommandLine.Refuse("--keyless-element is omit or empty, not %s", control.Quote(string(x.Element)))
	}
	return nil
}

// CarryRequest is the part of a request that import and wrap share.
type CarryRequest struct {
	Exports
	KEK, World string // packages; World may be empty: the pinned one
	KEKPrint   string // the KEK's fingerprint, as a second person read it; may be empty
	Retain     bool   // leave the keys extractable
	DryRun     bool
	Out        string // where the bundle is sealed to at once; may be empty
	Tool       string // that goes on record, with its version
	Access
}

// CarryResult is what an import or a wrap has done.
type CarryResult struct {
	Keys   []Carried   // by this run
	Done   []*Key      // by an earlier run
	Sealed *SealResult // nil unless asked for
}

// ImportRequest says which keys go into the HSM, and how.
type ImportRequest struct {
	CarryRequest
	Wrap             string   // WrapHSM, WrapSoftware, or empty
	MicrosoftManaged bool     // keys of 1024 bits travel in their TPDs
	Again            []string // keys that were sealed and never arrived
	TryStore         bool     // a dry run may store a throw-away key
}

// Values of ImportRequest.Wrap. Without one the token wraps; a rehearsal takes
// software where its token can't.
const (
	WrapHSM      = "hsm"
	WrapSoftware = "software"
)

// Check refuses what can be seen on the command line.
func (r ImportRequest) Check() error {
	if err := r.check(); err != nil {
		return err
	}
	for _, id := range r.Again {
		if !slices.Contains(r.IDs, id) {
			return control.CommandLine.Refuse("--again %s names no key of this import", control.Quote(id)).
				WithHint("give its TPD too: --tpd-file-path TPD --key-identifier %s", control.Plain(id))
		}
	}
	if r.Wrap != "" && r.Wrap != WrapHSM && r.Wrap != WrapSoftware {
		return control.CommandLine.Refuse("--wrap is hsm or software, not %s", control.Quote(r.Wrap))
	}
	if r.KeylessPassword == FreshPassword && r.MicrosoftManaged {
		return control.CommandLine.Refuse("--keyless-password fresh does not go with --microsoft-managed").
			WithHint("a TPD that holds its key never travels with its password: import these keys apart, or export their domains again under a password of their own")
	}
	return nil
}

// SoftwareWrap names what byok.Wrap does.
const SoftwareWrap = "RSA-OAEP (SHA-1), AES-256-KWP"

// WrapRequest says which keys, in the HSM already, are wrapped for their TPDs.
type WrapRequest struct {
	CarryRequest
	Names []hsm.Name // of the keys in the HSM, one for each TPD
}

// Check refuses what can be seen on the command line.
func (r WrapRequest) Check() error { return r.check() }
