// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"strings"
	"testing"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// A real bundle that was sealed after now, or before its KEK's package was made, comes
// from a clock that is wrong; one of another KEK is held against its own.
func TestClocksOfBundle(t *testing.T) {
	now := time.Now()
	kek, other := fingerprint.Of([]byte("kek")), fingerprint.Of([]byte("other"))
	j := &Journal{KEKs: []KEKPackaged{{KEK: other, at: now.Add(-time.Minute)}, {KEK: kek, at: now.Add(-time.Hour)}}}
	for name, test := range map[string]struct {
		sealed time.Duration
		kek    *fingerprint.Fingerprint
		says   string // nothing: it is taken
	}{
		"between the two":             {-30 * time.Minute, &kek, ""},
		"clocks that differ a little": {-62 * time.Minute, &kek, ""},
		"before the KEK":              {-2 * time.Hour, &kek, "the bundle was sealed, by the other machine's clock, "},
		"before its own KEK":          {-30 * time.Minute, &other, "which is before the KEK package was made, "},
		"of no KEK":                   {-2 * time.Hour, nil, ""},
		"after now":                   {time.Hour, &kek, "which is before the bundle was sealed, "},
	} {
		m := bundle.Manifest{Created: now.Add(test.sealed), Keys: []bundle.ManifestKey{{KEK: test.kek}}}
		err := checkClocks(&cli.IO{}, &state.State{}, j, m)
		if test.says == "" && err != nil || test.says != "" && (!control.Is(err, control.Clock) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
	}
}
