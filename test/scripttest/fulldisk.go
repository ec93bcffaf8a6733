// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// diskSize is the size of the disk in bytes; a page is what a tmpfs hands out.
const (
	diskSize = 4 << 20
	page     = 4096
)

// fullDisk runs a command with DIR on a disk with no page left, then with one,
// two, four … pages left, each time in a fresh copy of $WORK, until it succeeds.
// Whenever it does not, it must have been refused for the full disk and have
// left nothing behind, and once there is room the same command works.
func fullDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fulldisk DIR COMMAND…")
	}
	refusals := 0
	for free := 0; ; free = max(1, 2*free) {
		if fits(ts, free, args[0], args[1:]) {
			break
		}
		refusals++
	}
	if refusals == 0 {
		ts.Fatalf("the command needs no room on %s: this shows nothing", args[0])
	}
	ts.Logf("count: refused with %d amounts of free space", refusals)
}

// fits reports whether the command succeeds with that many free pages.
func fits(ts *testscript.TestScript, free int, dir string, command []string) bool {
	a, remove := newAttempt(ts)
	defer remove()
	disk := filepath.Join(a.dir, dir)
	ts.Check(syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"))
	defer func() { ts.Check(syscall.Unmount(disk, 0)) }()
	a.copy(filepath.Join(ts.Getenv("WORK"), dir), disk)
	filler := filepath.Join(disk, "filler")
	fill(ts, filler, free)
	before, err := snapshot(a.dir)
	ts.Check(err)
	code := a.run(command...)
	if code == 0 {
		return true
	}
	if said := a.stderr.String(); code != 3 || !regexp.MustCompile(`\[KF-RUN-DISK-FULL\]\n(?:.*\n)*?.*hint: `).MatchString(said) {
		ts.Fatalf("%d free pages: exit code %d: %s", free, code, said)
	}
	after, err := snapshot(a.dir)
	ts.Check(err)
	for path := range after {
		switch filepath.Base(path) {
		case "ledger.jsonl", "ledger.head": // says what was begun and undone, and that it was refused
			after[path] = before[path]
		case "outbox", "sent": // may stay, empty
			delete(before, path)
			delete(after, path)
		}
	}
	if changes := difference(before, after); changes != "" {
		ts.Fatalf("%d free pages: the command changed files:\n%s\nit said: %s", free, changes, a.stderr.String())
	}
	ts.Check(os.Remove(filler))
	a.must("with room again", command...)
	return false
}

// fill writes a file that leaves so many pages of its disk free.
func fill(ts *testscript.TestScript, path string, free int) {
	err := os.WriteFile(path, make([]byte, diskSize+page), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		ts.Fatalf("the disk did not fill up: %v", err)
	}
	info, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.Truncate(path, max(0, info.Size()/page-int64(free))*page))
}
