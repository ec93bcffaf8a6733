// SPDX-License-Identifier: Apache-2.0

// Package judges finds programs that this project did not write and that tests
// hold its files and scripts against: .NET's own readers, a real PowerShell,
// HSM vendors' own PKCS#11 modules before simulated devices. Users do not have
// them, so a test that finds none is skipped aloud.
package judges

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// dirVariable names the directory of the judges. By default it is
// shared/judges beside the module's directory.
const dirVariable = "KEYFERRY_JUDGE_DIR"

// Find returns the absolute path of a judge, such as "tpd-dotnet" or
// "hsm-device", and skips the test where it is not there.
func Find(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(dir(t), name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the judge %s is not here: set %s to its directory", name, dirVariable)
	}
	return path
}

// PowerShell returns the path of a PowerShell: KEYFERRY_POWERSHELL, else
// powershell.exe or pwsh on the PATH, else the judges' own that shows scripts
// the version of Windows PowerShell 5.1. It skips the test where none is there.
func PowerShell(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("KEYFERRY_POWERSHELL"); path != "" {
		return path
	}
	for _, name := range []string{"powershell.exe", "pwsh"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return Find(t, "powershell.exe")
}

func dir(t testing.TB) string {
	t.Helper()
	if set := os.Getenv(dirVariable); set != "" {
		return set
	}
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(filepath.Dir(at), "shared", "judges")
		}
		if at == filepath.Dir(at) {
			t.Fatal("no go.mod above the test's directory")
		}
		at = filepath.Dir(at)
	}
}
