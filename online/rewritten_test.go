// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
)

// rewrite puts another ledger in the place of a state directory's, with one fact
// changed, whole and signed: what somebody can do who has the directory with its
// signing key.
func rewrite(t *testing.T, dir, from, to string) {
	t.Helper()
	s, err := state.Open(dir, state.Offline, func(s *state.State) (state.Self, error) { return state.Self{Key: s.HeadBy}, nil })
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ledger.jsonl")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	forged, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, e := range s.Ledger.Entries() {
		changed += strings.Count(string(e.Data), from)
		e.Data = []byte(strings.ReplaceAll(string(e.Data), from, to))
		if err := forged.Pin(e.Time, e.Event, e.Data, e.Files); err != nil {
			t.Fatal(err)
		}
	}
	s.Ledger = forged
	if err := s.SignLedger(); err != nil || changed == 0 {
		t.Fatalf("%d changes, %v", changed, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A ledger that was rewritten looks good where it is. The copy that travelled
// gives it away, in both directions.
func TestRewrittenLedger(t *testing.T) {
	dir, vectors := t.TempDir(), "../testdata/vectors/tpd/"
	for name, from := range map[string]string{"one.xml": "contoso-mode2.xml", "two.xml": "contoso-utf16.xml"} {
		data, err := os.ReadFile(vectors + from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte("Passw0rd!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(command string) (string, error) {
		cmd := exec.Command("sh", "-c", command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			if out, err := run(command); err != nil {
				t.Fatalf("%s: %v\n%s", command, err, out)
			}
		}
	}
	carry := "offline import --state S --out . --protection-password-file pw --exchange-key-package BYOK-KEK-pkg-NA-1 "
	must(
		"offline init --rehearsal --state S --out .", "online init --rehearsal --state T", "online kek create --state T --size 2048 --out .",
		"online trust --state T --yes offline-card-offline.json", "offline trust --state S --yes BYOK-SecurityWorld-pkg-NA-1",
		"offline import --dry-run --state S --tpd-file-path one.xml --key-identifier one --protection-password-file pw --exchange-key-package BYOK-KEK-pkg-NA-1",
		carry+"--tpd-file-path one.xml --key-identifier one",
		"online upload --state T keyferry-offline-1.kfb --protection-password-file pw", "online receipt --state T keyferry-offline-1.kfb --out .",
	)
	rewrite(t, filepath.Join(dir, "S"), `"command":"import"`, `"command":"doctor"`)
	must("offline transcript verify --state S", carry+"--tpd-file-path two.xml --key-identifier two")
	for command, id := range map[string]string{
		"online verify --state T keyferry-offline-2.kfb":  "KF-BUNDLE-TRANSCRIPT",
		"offline receipt --state S keyferry-online-1.kfb": "KF-LEDGER-HEAD",
	} {
		if out, err := run(command); err == nil || !strings.Contains(out, "["+id+"]") {
			t.Errorf("%s: %v, want %s\n%s", command, err, id, out)
		}
	}
	must("online verify --state T keyferry-offline-1.kfb") // taken before: goes on
}
