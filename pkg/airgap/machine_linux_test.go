// SPDX-License-Identifier: Apache-2.0

package airgap

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"keyferry/internal/testbin"
)

// withoutRadios leaves out what no network namespace hides.
func withoutRadios(found []Finding) []Finding {
	return slices.DeleteFunc(found, func(f Finding) bool { return f.About == "radio" })
}

// TestLookInEmptyNamespace looks at this kernel, with the loopback alone: no
// connection is found, whatever /sys, which is mounted outside, shows.
func TestLookInEmptyNamespace(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), trying+"=look", outside+"=1")
	testbin.NewNetwork(cmd)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Skip("this system lets this user make no network namespace:", err)
	}
	if got := strings.TrimSpace(string(out)); got != "did" {
		t.Errorf("found: %s", got)
	}
}
