// SPDX-License-Identifier: Apache-2.0

// Package scripttest is test support: it runs testscripts against the two real
// binaries, with the commands that scripts about a ceremony need.
//
//	ceremony [-flag…] STEP          play the ceremony up to the step (see ceremony.go)
//	world DIR                       make the packages of a real ceremony's connected side (see world.go)
//	refused KF-ID N COMMAND…        the command ends with exit code N by that control, with a hint,
//	                                and nothing below $WORK is changed, added or left behind, but for
//	                                the record of the refusal in the ledger
//	unchanged COMMAND…              the command succeeds and changes nothing below $WORK; a dry run is recorded
//	tree DIR…                       print the directories as a table of modes and paths
//	json PATH VALUE                 the last standard output is one JSON document that says so
//	token                           print the keys in the token of S, by another program than ours
//	typed PROMPT FILE COMMAND…      run on a terminal, type FILE at the prompt; nothing is echoed
//	sum VARIABLE FILE               put the file's fingerprint into the variable
//	flip FILE                       change one byte in the middle
//	cut FILE                        keep the first half
//	fulldisk DIR COMMAND…           the command with DIR on a disk that is full (see fulldisk.go)
//	result KIT FILE STATUS          write what a hand-over kit's script would (see kit.go)
//	killed SYSCALL… -- COMMAND…     the command killed at those system calls (see killed.go)
//	failed SYSCALL… -- COMMAND…     the command where those system calls fail (see killed.go)
//
// Scripts find the vectors in $V, SoftHSM in $MODULE, NSS in $NSS. A state directory of the offline side is S,
// of the online side T; the stick is the directory stick; the sample's password
// is in the file pw.
package scripttest

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"keyferry/test/entra"
)

// Password is that of most vectors. No command may ever print it.
const Password = "Passw0rd!"

// Run runs the testscripts of testdata. state is the state directory that
// commands take when none is named.
func Run(t *testing.T, state string) {
	before := syscall.Umask(0o022) // tables of modes must not depend on the caller's
	t.Cleanup(func() { syscall.Umask(before) })
	vectors, err := filepath.Abs(filepath.Join("..", "testdata", "vectors", "tpd"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files: scripts(t), RequireUniqueNames: true, RequireExplicitExec: true, Condition: condition,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "", // takes over the tables of a run: read them before you keep them
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ceremony": ceremony, "world": world, "ownkek": ownKEK, "refused": refused, "unchanged": unchanged, "tree": tree, "json": jsonSays,
			"token": token, "typed": typed, "sum": sum, "flip": flip, "cut": cut, "fulldisk": fullDisk, "killed": killed,
			"failed": failed,
			"result": result, "azure": azure,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[azureAt{}] = new(*entra.Azure)
			env.Setenv("V", vectors)
			env.Setenv("MODULE", Module)
			env.Setenv("NSS", NSS())
			env.Setenv("KEYFERRY_STATE", filepath.Join(env.WorkDir, state))
			if err := os.WriteFile(filepath.Join(env.WorkDir, "pw"), []byte(Password+"\n"), 0o600); err != nil {
				return err
			}
			// A script's files may be passwords or PINs, which are their owner's alone.
			return filepath.WalkDir(env.WorkDir, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() {
					return err
				}
				return os.Chmod(path, 0o600)
			})
		},
	})
}

func scripts(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no scripts in testdata: %v", err)
	}
	return found
}

// Covers wants a command line in scripts of testdata both where it succeeds and
// where it is refused.
func Covers(t *testing.T, command string) {
	t.Helper()
	var all []byte
	for _, path := range scripts(t) {
		script, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, script...)
	}
	for _, how := range []string{`(exec|unchanged)`, `refused KF-\S+ \d`} {
		if !regexp.MustCompile(`(?m)^` + how + ` ` + command + `( |$)`).Match(all) {
			t.Errorf("no script says %q of %q", how, command)
		}
	}
}

// NSS is where NSS's PKCS#11 module is, empty without it and the program that
// makes its tokens.
func NSS() string {
	found, err := filepath.Glob("/usr/lib/*/libsoftokn3.so")
	if _, lacks := exec.LookPath("certutil"); err != nil || lacks != nil || len(found) == 0 {
		return ""
	}
	return found[0]
}

// condition knows [root], [strace] and [nss]. Scripts skip with a reason, so
// that a skip is seen.
func condition(cond string) (bool, error) {
	switch cond {
	case "root":
		return os.Geteuid() == 0, nil
	case "strace":
		_, err := exec.LookPath("strace")
		return err == nil, nil
	case "nss":
		return NSS() != "", nil
	}
	return false, fmt.Errorf("unknown condition %s", cond)
}
