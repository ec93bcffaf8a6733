// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// attempt is a copy of $WORK in which a command may do what it will.
type attempt struct {
	ts             *testscript.TestScript
	dir            string
	stdout, stderr bytes.Buffer // of the last command
}

// newAttempt copies $WORK. remove takes the copy away.
func newAttempt(ts *testscript.TestScript) (a *attempt, remove func()) {
	work := ts.Getenv("WORK")
	dir, err := os.MkdirTemp(filepath.Dir(work), "attempt-*")
	ts.Check(err)
	a = &attempt{ts: ts, dir: dir}
	a.copy(work, dir)
	return a, func() { ts.Check(os.RemoveAll(dir)) }
}

// copy keeps modes, which os.CopyFS does not for directories.
func (a *attempt) copy(from, to string) {
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		a.ts.Fatalf("copy %s: %v\n%s", from, err, out)
	}
}

// run runs a command in the copy and returns its exit code, -1 when it was
// killed.
func (a *attempt) run(args ...string) int {
	state, err := filepath.Rel(a.ts.Getenv("WORK"), a.ts.Getenv("KEYFERRY_STATE"))
	a.ts.Check(err)
	a.stdout.Reset()
	a.stderr.Reset()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.dir, &a.stdout, &a.stderr
	cmd.Env = append(os.Environ(), "KEYFERRY_STATE="+filepath.Join(a.dir, state), "TMPDIR="+filepath.Join(a.dir, ".tmp"), "SOFTHSM2_CONF="+a.ts.Getenv("SOFTHSM2_CONF"))
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	a.ts.Check(err)
	return 0
}

// must runs a command that has to succeed.
func (a *attempt) must(about string, args ...string) {
	if code := a.run(args...); code != 0 {
		a.ts.Fatalf("%s: exit code %d: %s", about, code, a.stderr.String())
	}
}
