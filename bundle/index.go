// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"math"
	"regexp"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/keyid"
)

var nameSyntax = regexp.MustCompile(`^[0-9a-z_][0-9a-z_.-]{0,149}$`)

// check refuses paths that are not keys/<id>/<name> or a plain name, anything
// twice, and sizes that can't be: the index is signed, but what it says may end
// up in file names.
func (x Index) check() error {
	seen := map[string]bool{indexName: true, keysDir: true}
	left := int64(math.MaxInt64)
	take := func(prefix string, files []File) error {
		for _, f := range files {
			name, ok := strings.CutPrefix(f.Path, prefix)
			if !ok || !nameSyntax.MatchString(name) || seen[f.Path] || f.Size < 0 || f.Size > left {
				return control.BundleContents.Refuse("the index lists %s of %d bytes, which can't be", control.Quote(f.Path), f.Size)
			}
			seen[f.Path] = true
			left -= f.Size
		}
		return nil
	}
	ids := map[string]bool{}
	for _, k := range x.Keys {
		if !keyid.Valid(k.ID) || ids[k.ID] {
			return control.BundleContents.Refuse("the index lists the key %s, which can't be, or twice", control.Quote(k.ID))
		}
		ids[k.ID] = true
		switch k.Disposition {
		case DispositionHSM:
		case DispositionMicrosoftManaged:
			if k.KID+k.WrappedBy+k.Mechanism != "" {
				return control.BundleContents.Refuse("the key %s is %s, which is wrapped for no HSM, but names the KEK %s", k.ID, k.Disposition, control.Quote(k.KID))
			}
		default:
			return control.BundleContents.Refuse("the key %s has the disposition %s, which this version does not know", k.ID, control.Quote(k.Disposition))
		}
		if !validWarnings(k.Warnings) {
			return control.BundleContents.Refuse("the warnings of the key %s are not a sorted list of control IDs", k.ID)
		}
		if err := take(KeyPath(k.ID, ""), k.Files); err != nil {
			return err
		}
	}
	return take("", x.Files)
}

// checkSize refuses more than the receiver takes, before any of it is unpacked.
func (x Index) checkSize(pins Pins) error {
	var total int64
	for _, f := range x.files() {
		total += f.Size
	}
	return pins.checkSize("the bundle holds", total)
}
