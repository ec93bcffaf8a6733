// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// Whoever has the connected side's signing key can sign a security world that asks
// for no approvals. Its own ledger does not know that one.
func TestThresholdIsHeldAgainstTheLedger(t *testing.T) {
	dir := t.TempDir()
	run := func(command string) (string, error) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("ssh-keygen -q -t ed25519 -N '' -f alice && online init --rehearsal --state T --approver alice.pub && online status --state T"); err != nil {
		t.Fatal(out)
	}
	s, err := state.Open(filepath.Join(dir, "T"), state.Online, ceremony.Self)
	if err != nil {
		t.Fatal(err)
	}
	w, file, err := ceremony.OwnWorld(s)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := s.Signer()
	if err != nil {
		t.Fatal(err)
	}
	w.Threshold = 0
	weak, err := w.Seal(signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.OpenWorld(weak); err != nil { // it is a good one by itself
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(ceremony.WorldFile), weak, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := run("online status --state T"); err == nil || !strings.Contains(out, "[KF-STATE-DAMAGED]") {
		t.Errorf("%v, %s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "T", ceremony.WorldFile), file, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := run("online transcript --state T --json")
	if err != nil {
		t.Fatal(out)
	}
	for _, want := range []string{`"event": "world"`, `"threshold": 1`, `"key": "ssh-ed25519`} {
		if !strings.Contains(out, want) {
			t.Errorf("the ledger does not say %s", want)
		}
	}
}
