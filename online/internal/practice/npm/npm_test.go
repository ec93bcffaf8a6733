// SPDX-License-Identifier: Apache-2.0

// Package npm lets other people's JavaScript judge Keyferry: Microsoft's Key
// Vault client uses the practice vault, and a grammar of PowerShell reads the
// scripts that package rms makes. What is fetched is pinned by
// package-lock.json; without node, npm or the registry its tests are skipped.
package npm

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"keyferry/test/testbin"
)

// installed is a directory with the pinned packages and our scripts, made once
// for all tests.
var installed struct {
	once sync.Once
	dir  string
	why  string // it could not be made
}

func TestMain(m *testing.M) {
	code := testbin.Main(m)
	if installed.dir != "" {
		os.RemoveAll(installed.dir)
	}
	os.Exit(code)
}

// install returns the directory, or skips the test aloud.
func install(t *testing.T) string {
	t.Helper()
	installed.once.Do(func() { installed.why = fetch() })
	if installed.why != "" {
		t.Skipf("SKIPPED: %s", installed.why)
	}
	return installed.dir
}

// fetch says why the packages can't be had, or nothing.
func fetch() string {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "no " + tool + " command: install Debian's packages nodejs and npm (node 20 or later)"
		}
	}
	version, err := exec.Command("node", "--version").Output()
	if err != nil {
		return "node --version: " + err.Error()
	}
	if major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), "."); len(major) < 2 || major < "20" {
		return "the client needs node 20 or later, not " + strings.TrimSpace(string(version))
	}
	if installed.dir, err = os.MkdirTemp("", "keyferry-npm-"); err != nil {
		return err.Error()
	}
	for _, name := range []string{"package.json", "package-lock.json", "keys.mjs", "parse.mjs"} {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(installed.dir, name), data, 0o600)
		}
		if err != nil {
			return err.Error()
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = installed.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "npm ci: " + err.Error() + "\n" + string(out)
	}
	return ""
}

// node runs a script with an input and decodes its answer. The grammar's large
// WebAssembly is compiled in one quick pass, not well for half a minute.
func node(t *testing.T, script string, env []string, input []byte, answer any) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", "--liftoff-only", script)
	cmd.Dir, cmd.Stdin = install(t), bytes.NewReader(input)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, stderr.Bytes())
	}
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}
