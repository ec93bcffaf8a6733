// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"encoding/json"
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
// the system calls named, every time in a fresh copy of $WORK. Then the same
// command runs again. It must end where a run that was not killed ends: the same
// tables of files, the same keys in the token, the same status of both sides.
// In between there may be nothing on the stick that looks like a bundle and is
// none.
//
// A call is named NAME; NAME/3, to take every third; NAME:FILE, to count only
// what is done to that file.
func killed(ts *testscript.TestScript, neg bool, args []string) {
	everywhere(ts, neg, args, fault{"killed", "signal=KILL", []int{-1}})
}

// failed is killed with a call that fails by an I/O error, as of a stick that is
// pulled or broken: the command must say so by its exit code; or by a warning,
// where what it was asked for is done and the next command mends the rest, such
// as the signature of the ledger's head.
func failed(ts *testscript.TestScript, neg bool, args []string) {
	everywhere(ts, neg, args, fault{"failed", "error=EIO", []int{3, 4}})
}

// fault is what becomes of a system call.
type fault struct {
	name   string
	inject string // for strace
	codes  []int  // by which the command may end; -1: killed
}

func everywhere(ts *testscript.TestScript, neg bool, args []string, f fault) {
	at := slices.Index(args, "--")
	if neg || at < 1 {
		ts.Fatalf("usage: %s SYSCALL… -- COMMAND…", f.name)
	}
	calls, command := args[:at], args[at+1:]
	a, remove := newAttempt(ts)
	a.must("without a fault", command...)
	want := outcome(a)
	remove()
	for _, call := range calls {
		name, file, _ := strings.Cut(call, ":")
		name, by, stepped := strings.Cut(name, "/")
		step := 1
		if stepped {
			var err error
			step, err = strconv.Atoi(by)
			ts.Check(err)
		}
		n := 1
		for f.at(ts, name, file, n, command, want) {
			n += step
		}
		ts.Logf("count: %s at %s: %d times", f.name, call, (n-1)/step)
		if n == 1 {
			ts.Fatalf("the command makes no call of %s", call)
		}
	}
}

// at reports whether the run got as far as the n-th call of one of its threads,
// and met the fault there.
func (f fault) at(ts *testscript.TestScript, syscall, file string, n int, command []string, want string) bool {
	a, remove := newAttempt(ts)
	defer remove()
	log := a.dir + ".strace"
	defer os.Remove(log)
	tracer := []string{"strace", "-f", "-qq", "-o", log, "-e", "trace=" + syscall}
	if file != "" {
		tracer = append(tracer, "-P", filepath.Join(a.dir, file))
	}
	tracer = append(tracer, "-e", fmt.Sprintf("inject=%s:%s:when=%d", syscall, f.inject, n))
	code := a.run(append(tracer, command...)...)
	traced, err := os.ReadFile(log)
	ts.Check(err)
	if code == 0 && !bytes.Contains(traced, []byte("(INJECTED)")) {
		return false
	}
	about := fmt.Sprintf("%s at %s %s %d", f.name, syscall, file, n)
	warned := code == 0 && strings.Contains(a.stderr.String(), "input/output error")
	// strace says so and ends by 1 where it has not seen that the process is dead.
	surprised := code == 1 && slices.Contains(f.codes, -1) && strings.Contains(a.stderr.String(), "strace: ptrace(")
	if !slices.Contains(f.codes, code) && !warned && !surprised {
		ts.Fatalf("%s: exit code %d: %s", about, code, a.stderr.String())
	}
	wholeBundles(a, about)
	if code := a.run(command...); code != 0 && !isDone(a) {
		ts.Fatalf("%s, then again: exit code %d: %s", about, code, a.stderr.String())
	}
	if got := outcome(a); got != want {
		ts.Fatalf("%s, then again: ends in\n%s\nnot in\n%s", about, less(got, want), less(want, got))
	}
	return true
}

// wholeBundles wants each bundle on the stick to be one that a side has sealed,
// or the one that was there before.
func wholeBundles(a *attempt, about string) {
	there, err := filepath.Glob(filepath.Join(a.dir, "stick", "*.kfb"))
	a.ts.Check(err)
	for _, path := range there {
		bundle, err := os.ReadFile(path)
		a.ts.Check(err)
		name := filepath.Base(path)
		good, err := filepath.Glob(filepath.Join(a.dir, "[ST]", "sent", "*", name))
		a.ts.Check(err)
		good = append(good, filepath.Join(a.ts.Getenv("WORK"), "stick", name))
		isGood := func(path string) bool {
			want, err := os.ReadFile(path)
			return err == nil && bytes.Equal(bundle, want)
		}
		if !slices.ContainsFunc(good, isGood) {
			a.ts.Fatalf("%s: %s on the stick is not one that was sealed", about, name)
		}
	}
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
		a.must("status", side.program, "status", "--state", side.state, "--json")
		var status struct { // without the ledger's length and head
			Keys []map[string]any `json:"keys"`
		}
		a.ts.Check(json.Unmarshal(a.stdout.Bytes(), &status))
		for _, key := range status.Keys {
			for name, value := range key {
				if text, ok := value.(string); ok && strings.HasPrefix(text, "SHA256:") || name == "files" {
					key[name] = "" // other ones in each run, such as those of a ciphertext
				}
			}
			line, err := json.Marshal(key)
			a.ts.Check(err)
			b.WriteString(withoutRandom(string(line)) + "\n")
		}
	}
	return b.String()
}

// less is a without the lines that b has too.
func less(a, b string) string {
	others := strings.Split(b, "\n")
	return strings.Join(slices.DeleteFunc(strings.Split(a, "\n"), func(line string) bool { return slices.Contains(others, line) }), "\n")
}
