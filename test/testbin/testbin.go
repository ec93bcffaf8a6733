// SPDX-License-Identifier: Apache-2.0

// Package testbin is test support: it builds the two real binaries, as a
// release is built, and puts them on the PATH of a package's tests.
package testbin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main builds both binaries into a temporary directory, puts it at the head of
// PATH, runs the tests, and removes it. It returns the exit code:
//
//	func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }
func Main(m *testing.M) int { return withBinaries(m.Run) }

// withBinaries runs f with both binaries on the PATH.
func withBinaries(f func() int) int {
	dir, err := os.MkdirTemp("", "keyferry-testbin-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return f()
}

// build builds offline with cgo, which PKCS#11 needs, without the C library's
// resolver, and with the experiment that erases memory (see pkg/secret); and
// online without cgo.
func build(dir string) error {
	for name, settings := range map[string]struct{ cgo, tags, experiment string }{
		"offline": {"1", "netgo,osusergo", "runtimesecret"},
		"online":  {"0", "", ""},
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-tags", settings.tags, "-o", filepath.Join(dir, name), "keyferry/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+settings.cgo, "GOEXPERIMENT="+settings.experiment)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
