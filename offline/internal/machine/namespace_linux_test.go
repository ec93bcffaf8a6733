// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"keyferry/test/testbin"
)

// lookHere set, this test's binary looks at the machine and prints what connects it.
const lookHere = "KEYFERRY_TEST_LOOK"

func TestMain(m *testing.M) {
	if os.Getenv(lookHere) == "" {
		os.Exit(m.Run())
	}
	if err := Refuse(withoutRadios(Look())); err != nil {
		fmt.Print(err)
		os.Exit(1)
	}
	fmt.Print("not connected")
}

// withoutRadios leaves out what no network namespace hides.
func withoutRadios(found []Finding) []Finding {
	return slices.DeleteFunc(found, func(f Finding) bool { return f.About == "radio" })
}

// TestLookInEmptyNamespace looks at this kernel, with the loopback alone: no
// connection is found, whatever /sys, which is mounted outside, shows.
func TestLookInEmptyNamespace(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), lookHere+"=1")
	testbin.NewNetwork(cmd)
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Skip("this system lets this user make no network namespace:", err)
	}
	if got := strings.TrimSpace(string(out)); got != "not connected" {
		t.Errorf("found: %s", got)
	}
}
