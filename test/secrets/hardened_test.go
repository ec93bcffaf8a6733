// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// TestHardened holds a command of either side where it prints its result, and has
// another process of the same user look at it: it can't be read or traced, and leaves
// no core dump. A program that does nothing about that can.
func TestHardened(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may see where a process waits that forbids it")
	}
	needStrace(t)
	dir, err := os.MkdirTemp("", "keyferry-hardened-*") // the user below may enter it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const nobody = 65534
	as := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"offline", "online"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), program, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := as("./"+name, "init", "--rehearsal", "--state", name+"-state").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	noCore := regexp.MustCompile(`(?m)^Max core file size +0 +0 `)
	for _, test := range []struct {
		cmd      *exec.Cmd
		hardened bool
	}{
		{as("dd", "if=/dev/zero", "bs=1", "count=1", "status=none"), false},
		{as("./offline", "status", "--state", "offline-state"), true},
		{as("./online", "status", "--state", "online-state"), true},
	} {
		limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20} // inherited
		if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &limit); err != nil {
			t.Fatal(err)
		}
		atEnd(t, test.cmd, func(pid int) {
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
			if err != nil || noCore.Match(limits) != test.hardened {
				t.Errorf("%s: %v, %s", test.cmd, err, limits)
			}
			// Both need the right to read a process's memory, which debuggers need too.
			for _, file := range []string{"environ", "maps"} {
				if err := as("cat", fmt.Sprintf("/proc/%d/%s", pid, file)).Run(); (err != nil) != test.hardened {
					t.Errorf("%s: its %s is read by another process: %v", test.cmd, file, err)
				}
			}
			if out, _ := as("timeout", "2", "strace", "-p", fmt.Sprint(pid)).CombinedOutput(); test.hardened && !bytes.Contains(out, []byte("Operation not permitted")) {
				t.Errorf("%s is traced:\n%s", test.cmd, out)
			}
		})
	}
}
