// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func refused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: refused KF-ID N COMMAND…")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	holdsStill(ts, `"`+args[0]+`"`, func() {
		if code := run(ts, args[2:]); code != want {
			ts.Fatalf("exit code %d, want %d", code, want)
		}
	})
	checkRefusal(ts, args[0])
}

// checkRefusal looks on standard error for a sentence that names the control,
// and a hint below it.
func checkRefusal(ts *testscript.TestScript, id string) {
	said := ts.ReadFile("stderr")
	if !regexp.MustCompile(`(offline|online): (error|now by hand): .+ \[` + id + `\]\n(.*\n)*?(offline|online): hint: .+`).MatchString(said) {
		ts.Fatalf("standard error names no %s with a hint:\n%s", id, said)
	}
	if strings.Contains(said+ts.ReadFile("stdout"), Password) {
		ts.Fatalf("the password is in the output")
	}
}

func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: unchanged COMMAND…")
	}
	holdsStill(ts, `"dry_run":true,"controls":[]`, func() { must(ts, args...) })
}

// run runs a command in the script's directory and returns its exit code.
func run(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode() // -1: killed
	}
	ts.Check(err)
	return 0
}

// must runs a command that has to succeed.
func must(ts *testscript.TestScript, args ...string) {
	if code := run(ts, args); code != 0 {
		ts.Fatalf("%s: exit code %d", strings.Join(args, " "), code)
	}
}

// jsonSays looks a value up in the last standard output: json error.control
// KF-TRUST-NONE, json keys.0.id contoso-slc. The value * stands for any.
func jsonSays(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: json PATH VALUE")
	}
	var value any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &value); err != nil {
		ts.Fatalf("standard output is not one JSON document: %v", err)
	}
	for _, step := range strings.Split(args[0], ".") {
		switch at := value.(type) {
		case map[string]any:
			value = at[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				ts.Fatalf("no element %s in %d", step, len(at))
			}
			value = at[i]
		default:
			ts.Fatalf("nothing at %s of %s", step, args[0])
		}
	}
	if got := fmt.Sprint(value); value == nil || args[1] != "*" && got != args[1] {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

// Module is where Debian has SoftHSM's PKCS#11 module.
const Module = "/usr/lib/softhsm/libsofthsm2.so"

func token(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: token")
	}
	_, err := fmt.Fprint(ts.Stdout(), tokenKeys(ts, ts.MkAbs(".")))
	ts.Check(err)
}

// tokenKeys lists the keys in the token below a script's directory, a line
// each, by another program than ours: the rehearsal's in S; without one NSS's in
// nss; else SoftHSM's of softhsm2.conf. The PIN of the latter two is in pin.
func tokenKeys(ts *testscript.TestScript, dir string) string {
	conf, pinFile := "softhsm2.conf", "pin"
	if _, err := os.Stat(filepath.Join(dir, "S", "token")); err == nil {
		conf, pinFile = filepath.Join("S", "token", "softhsm2.conf"), filepath.Join("S", "token", "pin")
	} else if _, err := os.Stat(filepath.Join(dir, "nss")); err == nil {
		return nssKeys(ts, dir)
	}
	pin, err := os.ReadFile(filepath.Join(dir, pinFile))
	ts.Check(err)
	cmd := exec.Command("pkcs11-tool", "--module", Module, "--login", "--pin", strings.TrimSpace(string(pin)), "--list-objects")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	out, err := cmd.Output()
	ts.Check(err)
	var lines []string
	for _, object := range regexp.MustCompile(`(?m)^(\S+ Key Object; .*)\n\s+label:[ ]*(.*)`).FindAllStringSubmatch(string(out), -1) {
		lines = append(lines, object[2]+": "+strings.TrimSpace(object[1])+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// nssKeys lists the keys of an NSS token, without the numbers that certutil
// gives them.
func nssKeys(ts *testscript.TestScript, dir string) string {
	cmd := exec.Command("certutil", "-K", "-d", "sql:nss", "-f", "pin")
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "no keys found") {
		return ""
	}
	ts.Check(err)
	return regexp.MustCompile(`(?m)^<\s*\d+> `).ReplaceAllString(string(out), "")
}

func sum(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sum VARIABLE FILE")
	}
	ts.Setenv(args[0], fmt.Sprintf("SHA256:%x", sha256.Sum256([]byte(ts.ReadFile(args[1])))))
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, neg, args, func(data []byte) []byte {
		data[len(data)/2] ^= 1
		return data
	})
}

func cut(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, neg, args, func(data []byte) []byte { return data[:len(data)/2] })
}

func change(ts *testscript.TestScript, neg bool, args []string, f func([]byte) []byte) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE or cut FILE")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(os.WriteFile(path, f(data), 0o600))
}
