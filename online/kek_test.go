// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestExpiry(t *testing.T) {
	morning := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	night := time.Date(2026, 3, 1, 18, 59, 59, 0, time.FixedZone("west", -5*3600))
	want := time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC)
	if a, b := expiry(morning, 1), expiry(night, 1); !a.Equal(want) || !b.Equal(want) {
		t.Errorf("got %v and %v, want %v", a, b, want)
	}
	if got := expiry(morning, 0); !got.IsZero() {
		t.Errorf("without days: %v", got)
	}
}
