// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

// A bundle takes as many keys as the connected side reads; the rest waits for the
// next one.
func TestFitting(t *testing.T) {
	const most = bundle.MaxContents - maxLedger
	s := &state.State{Dir: t.TempDir()}
	sizes := map[string]int64{"a": most / 2, "b": most / 2, "c": 1, "huge": most + 1}
	for id, size := range sizes {
		path := filepath.Join(outboxDir(s, id), "tpd")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil { // a hole: it takes no room
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		ids  []string
		left int
	}{
		{nil, 0}, {[]string{"a"}, 0}, {[]string{"a", "b"}, 0}, {[]string{"a", "b", "c"}, 1}, {[]string{"a", "huge", "c"}, 2},
		{[]string{"huge", "c"}, 1}, // which seal refuses
	} {
		fit, err := fitting(s, c.ids)
		if err != nil || !slices.Equal(fit, c.ids[:len(c.ids)-c.left]) {
			t.Errorf("%v: %v, %v", c.ids, fit, err)
		}
	}
	if _, err := fitting(s, []string{"gone"}); !control.Is(err, control.StateDamaged) {
		t.Errorf("an outbox that lost a key: %v", err)
	}
}
