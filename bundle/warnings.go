// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"regexp"
	"slices"

	"keyferry/pkg/control"
)

// maxWarnings is how many warnings a manifest or a key may have.
const maxWarnings = 64

var warningSyntax = regexp.MustCompile(`^KF-[A-Z0-9-]{1,60}$`)

// warnings lists, sorted and once each, the letter's own and those of its keys.
func (l Letter) warnings() []string {
	all := slices.Clone(l.Warnings)
	for _, k := range l.Keys {
		all = append(all, k.Warnings...)
	}
	return sorted(all)
}

// sorted returns a list's IDs in order, once each.
func sorted(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

// validWarnings reports whether a list is sorted, names control IDs, and none
// twice.
func validWarnings(list []string) bool {
	if list == nil || len(list) > maxWarnings {
		return false
	}
	for i, w := range list {
		if !warningSyntax.MatchString(w) || i > 0 && w <= list[i-1] {
			return false
		}
	}
	return true
}

// checkWarnings wants every warning of a key in the manifest too, where
// approvers see it.
func (x Index) checkWarnings(manifest []string) error {
	for _, k := range x.Keys {
		for _, w := range k.Warnings {
			if !slices.Contains(manifest, w) {
				return control.BundleContents.Refuse("the index has the warning %s for the key %s, and the manifest does not", w, k.ID)
			}
		}
	}
	return nil
}
