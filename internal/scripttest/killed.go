// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// killed runs a command and kills it at the first, second, third … of each of
// the system calls named (NAME/3: at every third), every time in a fresh copy
// of $WORK. Then the same
// command runs again. It must end where a run that was not killed ends: the same
// tables of files, the same keys in the token, the same status of both sides.
func killed(ts *testscript.TestScript, neg bool, args []string) {
	at := slices.Index(args, "--")
	if neg || at < 1 {
		ts.Fatalf("usage: killed SYSCALL… -- COMMAND…")
	}
	syscalls, command := args[:at], args[at+1:]
	a, remove := newAttempt(ts)
	a.must("not killed", command...)
	want := outcome(a)
	remove()
	kills := 0
	for _, syscall := range syscalls {
		name, by, stepped := strings.Cut(syscall, "/")
		step := 1
		if stepped {
			var err error
			step, err = strconv.Atoi(by)
			ts.Check(err)
		}
		for n := 1; killedAt(ts, name, n, command, want); n += step {
			kills++
		}
	}
	if kills < len(syscalls) {
		ts.Fatalf("killed %d times only", kills)
	}
	ts.Logf("killed %d times", kills)
}

// killedAt reports whether the run got as far as the n-th call of one of its
// threads, and was killed there.
func killedAt(ts *testscript.TestScript, syscall string, n int, command []string, want string) bool {
	a, remove := newAttempt(ts)
	defer remove()
	inject := fmt.Sprintf("inject=%s:signal=KILL:when=%d", syscall, n)
	code := a.run(append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + syscall, "-e", inject}, command...)...)
	if code == 0 {
		return false
	}
	about := fmt.Sprintf("killed at %s %d", syscall, n)
	if code != -1 {
		ts.Fatalf("%s: exit code %d: %s", about, code, a.stderr.String())
	}
	if code := a.run(command...); code != 0 && !isDone(a) {
		ts.Fatalf("%s, then again: exit code %d: %s", about, code, a.stderr.String())
	}
	if got := outcome(a); got != want {
		ts.Fatalf("%s, then again: ends in\n%s\nnot in\n%s", about, less(got, want), less(want, got))
	}
	return true
}

// isDone reports whether the command was refused because the run that was
// killed had done all there was to do.
func isDone(a *attempt) bool {
	return regexp.MustCompile(`\[KF-(IMPORT-EXISTS|BUNDLE-EMPTY|STATE-EXISTS|VAULT-KEY-EXISTS)\]`).MatchString(a.stderr.String())
}

// outcome is what the run left: files, keys in the token, and what both sides
// say of each key.
func outcome(a *attempt) string {
	found, err := snapshot(a.dir)
	a.ts.Check(err)
	var lines []string
	for path, line := range found {
		if strings.Contains(path, "tokens/") { // SoftHSM may leave an empty file that it takes for no object
			continue
		}
		lines = append(lines, line[:len("-rw-------")]+" "+withoutRandom(path))
	}
	var b bytes.Buffer
	b.Write(table(lines))
	// A public key that SoftHSM had not finished may stay: it has no numbers yet.
	b.WriteString(strings.ReplaceAll(tokenKeys(a.ts, a.dir), ": Public Key Object; RSA 0 bits\n", ""))
	for _, side := range []struct{ program, state string }{{"offline", "S"}, {"online", "T"}} {
		if _, err := os.Stat(filepath.Join(a.dir, side.state)); err != nil {
			continue
		}
		a.must("status", side.program, "status", "--state", side.state)
		_, keys, _ := strings.Cut(a.stdout.String(), "KEY ") // above it are the ledger's length and head
		b.WriteString(withoutRandom(keys))
	}
	return b.String()
}

// less is a without the lines that b has too.
func less(a, b string) string {
	others := strings.Split(b, "\n")
	return strings.Join(slices.DeleteFunc(strings.Split(a, "\n"), func(line string) bool { return slices.Contains(others, line) }), "\n")
}
