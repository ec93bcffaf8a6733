// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// op is one use of the package that a child process makes on a directory.
type op struct {
	name  string
	run   func(dir string) error
	old   files  // what the directory holds before
	new   files  // and after
	also  files  // what it may hold as well after a failure, nil for nothing else
	calls string // the system calls, in order; os.Remove and os.RemoveAll try unlink and rmdir
}

var ops = []op{
	{"create", func(dir string) error { return Create(dir+"/f", []byte("new"), 0o600) },
		files{}, files{"f": "new"}, nil,
		"openat unlinkat openat write fsync close renameat2 fsync close"},
	{"replace", func(dir string) error { return Replace(dir+"/f", []byte("new"), 0o600) },
		files{"f": "old"}, files{"f": "new"}, nil,
		"openat unlinkat openat write fsync close renameat fsync close"},
	{"createfrom", func(dir string) error {
		return CreateFrom(dir+"/f", 0o600, func(w *os.File) error {
			if err := write(w, "n"); err != nil {
				return err
			}
			return write(w, "ew")
		})
	}, files{}, files{"f": "new"}, nil,
		"openat unlinkat openat write write fsync close renameat2 fsync close"},
	{"append", func(dir string) error { return Append(dir+"/f", 4, []byte("new\n"), 0o600) },
		files{"f": "old\nto"}, files{"f": "old\nnew\n"}, files{"f": "old\n"},
		"openat openat ftruncate pwrite64 fsync close fsync close"},
	{"mkdirall", func(dir string) error { return MkdirAll(dir+"/d", 0o700) },
		files{}, files{"d": "dir"}, nil,
		"openat mkdirat fsync close"},
	{"newdir", func(dir string) error {
		return NewDir(dir+"/d", 0o700, func(d string) error { return os.WriteFile(d+"/f", []byte("new"), 0o600) })
	}, files{"d": "dir"}, files{"d": "dir", "d/f": "new"}, nil,
		"openat close openat unlinkat unlinkat mkdirat openat write close " + // fill ends here
			"openat fsync close openat close openat fsync close renameat fsync close"},
	{"remove", func(dir string) error { return RemoveIfThere(dir + "/d") },
		files{"d": "dir", "d/f": "old"}, files{}, nil,
		"openat unlinkat unlinkat renameat fsync " + // gone; now what it held
			"unlinkat unlinkat openat unlinkat openat unlinkat close unlinkat close close"},
	{"tostick", func(dir string) error { return ToStick(dir+"/f", bytes.NewReader([]byte("new")), 0o600) },
		files{}, files{"f": "new"}, nil,
		"openat unlinkat openat write fsync close renameat2 fsync close openat fadvise64 read read close"},
	{"isonstick", func(dir string) error {
		there, err := IsOnStick(dir+"/f", strings.NewReader("old"))
		if err == nil && !there {
			err = errors.New("it is not there")
		}
		return err
	}, files{"f": "old"}, files{"f": "old"}, nil,
		"openat fsync close openat fsync close openat fadvise64 read read close"},
	{"scratch", func(dir string) error {
		f, err := Scratch(dir)
		if err != nil {
			return err
		}
		return f.Close()
	}, files{}, files{}, nil,
		"openat unlinkat openat unlinkat close close"},
}

// traced are the system calls that the package makes on its files.
const traced = "openat,close,read,write,pwrite64,fsync,ftruncate,fadvise64,renameat,renameat2,unlinkat,mkdirat"

const opVariable, dirVariable = "DURABLE_TEST_OP", "DURABLE_TEST_DIR"

// TestMain is the child as well: it carries one op out, on one thread, so that
// strace counts its calls in order.
func TestMain(m *testing.M) {
	name, dir := os.Getenv(opVariable), os.Getenv(dirVariable)
	unix.Umask(0o022) // for the modes that the tests look at
	if name == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	err := fmt.Errorf("no such op: %s", name)
	if name == "lock" || name == "holdlock" {
		_, err = Lock(dir)
	}
	if name == "holdlock" {
		fmt.Println(err)
		select {}
	}
	if i := slices.IndexFunc(ops, func(o op) bool { return o.name == name }); i >= 0 {
		err = ops[i].run(dir)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func child(op, dir string, tracer ...string) *exec.Cmd {
	line := append(tracer, os.Args[0])
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), opVariable+"="+op, dirVariable+"="+dir, "GORACE=atexit_sleep_ms=0", "GODEBUG=asyncpreemptoff=1")
	return cmd
}

// bench is a directory with the op's old files, and strace beside it.
type bench struct {
	t   *testing.T
	op  op
	dir string
}

func newBench(t *testing.T, o op) *bench {
	t.Helper()
	b := &bench{t, o, filepath.Join(t.TempDir(), "x")}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(o.old)) {
		if o.old[name] == "dir" {
			if err := os.Mkdir(filepath.Join(b.dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		put(t, filepath.Join(b.dir, name), o.old[name])
	}
	return b
}

var callLine = regexp.MustCompile(`(?m)^(?:\[pid +\d+\] |\d+ +)?([a-z0-9]+)\((.*)$`)

// trace runs the op under strace and returns its system calls on files below
// the directory, and how the child ended.
func (b *bench) trace(options ...string) (calls []string, lines string, err error) {
	b.t.Helper()
	log := filepath.Join(filepath.Dir(b.dir), "trace")
	line := append([]string{"strace", "-f", "-qq", "-y", "-e", "signal=none", "-o", log, "-e", "trace=" + traced}, options...)
	_, err = child(b.op.name, b.dir, line...).CombinedOutput()
	data, readErr := os.ReadFile(log)
	if readErr != nil {
		b.t.Fatal(readErr)
	}
	for _, m := range callLine.FindAllStringSubmatch(string(data), -1) {
		if strings.Contains(m[2], b.dir) {
			calls = append(calls, m[1])
			lines += m[0] + "\n"
		}
	}
	return calls, lines, err
}

// check holds what is in the directory against what it may be.
func (b *bench) check(what string, got files) {
	b.t.Helper()
	for _, allowed := range []files{b.op.old, b.op.new, b.op.also} {
		if allowed != nil && maps.Equal(got, allowed) {
			return
		}
	}
	b.t.Errorf("%s: %s: got %q, which is neither old nor new", b.op.name, what, got)
}

// visible leaves out what is hidden under a part's name.
func visible(got files) files {
	maps.DeleteFunc(got, func(name, _ string) bool { return regexp.MustCompile(`(^|/)\.[^/]*\.part(/|$)`).MatchString(name) })
	return got
}

func needStrace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("strace", "-qq", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, NOT SHOWN: system calls that fail need strace (Debian package strace): %v %s", err, out)
	}
}

// The order of system calls that the functions' comments promise; and what is
// opened under a part's name is new.
func TestSystemCallOrder(t *testing.T) {
	needStrace(t)
	for _, o := range ops {
		b := newBench(t, o)
		calls, lines, err := b.trace()
		if err != nil {
			t.Errorf("%s: %v", o.name, err)
		}
		if got := strings.Join(calls, " "); got != o.calls {
			t.Errorf("%s:\ngot  %s\nwant %s\n%s", o.name, got, o.calls, lines)
		}
		for line := range strings.Lines(lines) {
			if strings.Contains(line, `.part", `) && strings.Contains(line, "O_CREAT") && !strings.Contains(line, "O_EXCL") {
				t.Errorf("%s: this may open what was planted: %s", o.name, line)
			}
		}
		wantTree(t, b.dir, o.new)
	}
}

// Each system call of each op fails once: what is there is the old or the new,
// and nothing is left over, unless it is the clean-up that failed, or a removal:
// the next one goes on with it.
func TestFailingSystemCalls(t *testing.T) {
	needStrace(t)
	count := 0
	for _, o := range ops {
		seen := map[string]int{}
		for call := range strings.FieldsSeq(o.calls) {
			seen[call]++
			if call == "close" || call == "read" {
				continue // a close that fails says nothing about the file; reads are shown by TestStickThatLies
			}
			what := fmt.Sprintf("%s %d", call, seen[call])
			b := newBench(t, o)
			injected, err := b.inject(call, seen[call], "error=EIO")
			if !injected {
				t.Errorf("%s: %s: the failure did not happen", o.name, what)
			}
			count++
			got := tree(t, b.dir)
			if call == "unlinkat" || o.name == "remove" {
				got = visible(got)
			}
			b.check(what, got)
			if err == nil && !maps.Equal(got, o.new) {
				t.Errorf("%s: %s: reported as done, but it is not: %q", o.name, what, got)
			}
		}
	}
	t.Logf("count: %d system calls failed, one at a time", count)
}

// The process is killed before each system call of each op: what is visible is
// the old or the new, and the same op again ends with the new and no leftover.
func TestKilledAtSystemCalls(t *testing.T) {
	needStrace(t)
	count := 0
	for _, o := range ops {
		seen := map[string]int{}
		for call := range strings.FieldsSeq(o.calls) {
			seen[call]++
			what := fmt.Sprintf("killed at %s %d", call, seen[call])
			b := newBench(t, o)
			if _, err := b.inject(call, seen[call], "signal=KILL"); err == nil {
				t.Errorf("%s: %s: it was not killed", o.name, what)
			}
			count++
			state := visible(tree(t, b.dir))
			b.check(what, state)
			if err := o.run(b.dir); err != nil && !control.Is(err, control.OutputExists) {
				t.Errorf("%s: %s: again: %v", o.name, what, err)
			}
			wantTree(t, b.dir, o.new)
		}
	}
	t.Logf("count: killed at %d system calls", count)
}

// inject makes the nth call on the directory's files fail, or be the last.
func (b *bench) inject(call string, n int, fault string) (injected bool, err error) {
	b.t.Helper()
	paths := []string{"-P", b.dir}
	for _, name := range []string{"f", ".f.part", "d", ".d.part", ".d.part/f", "d/f", ".scratch.part"} {
		paths = append(paths, "-P", filepath.Join(b.dir, name))
	}
	inject := fmt.Sprintf("inject=%s:%s:when=%d", call, fault, n)
	_, lines, err := b.trace(append(paths, "-e", inject)...)
	return strings.Contains(lines, "(INJECTED)"), err
}
