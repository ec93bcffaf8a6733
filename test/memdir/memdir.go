// SPDX-License-Identifier: Apache-2.0

// Package memdir makes directories for tests that sync hundreds of times, or
// measure what the disk has no part in.
package memdir

import (
	"os"
	"os/exec"
	"testing"
)

// New is a directory of the test that needs no disk, where there is such a thing.
func New(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyferry-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Copy is such a directory with the contents and modes of another.
func Copy(t testing.TB, dir string) string {
	t.Helper()
	to := New(t)
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", dir+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}
