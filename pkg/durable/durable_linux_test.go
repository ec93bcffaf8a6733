// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

var errFill = errors.New("fill failed")

func TestAppend(t *testing.T) {
	for name, c := range map[string]struct {
		before, want string
		at           int64
	}{
		"absent":    {"", "record\n", 0},
		"whole":     {"first\n", "first\nrecord\n", 6},
		"torn tail": {"first\nto", "first\nrecord\n", 6},
		"long tail": {"first\n" + strings.Repeat("torn", 100), "first\nrecord\n", 6},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "ledger")
			if c.before != "" {
				put(t, path, c.before)
			}
			if err := Append(path, c.at, []byte("record\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir, files{"ledger": c.want})
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("the mode is %v, %v", info.Mode(), err)
			}
		})
	}
	if err := Append(filepath.Join(t.TempDir(), "none", "ledger"), 0, nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: got %v", err)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{"a/b/c", "a/b/d/", "a/b/c", ".", "a/./e/../f"} {
		if err := MkdirAll(dir+"/"+path, 0o700); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	wantTree(t, dir, files{"a": "dir", "a/b": "dir", "a/b/c": "dir", "a/b/d": "dir", "a/f": "dir"})
	if info, err := os.Stat(filepath.Join(dir, "a/b")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	put(t, filepath.Join(dir, "file"), "x")
	if err := MkdirAll(filepath.Join(dir, "file"), 0o700); !control.Is(err, control.OutputExists) {
		t.Errorf("a file: got %v, want %s", err, control.OutputExists.ID)
	}
	if err := MkdirAll(filepath.Join(dir, "file", "d"), 0o700); err == nil {
		t.Error("below a file: no error")
	}
}

func TestNewDir(t *testing.T) {
	fill := func(d string) error { return Create(filepath.Join(d, "f"), []byte("new"), 0o600) }
	done := files{"d": "dir", "d/f": "new"}
	for name, c := range map[string]struct {
		before  func(dir string) error
		want    files
		refused bool
	}{
		"new":       {func(string) error { return nil }, done, false},
		"empty":     {func(dir string) error { return os.Mkdir(filepath.Join(dir, "d"), 0o755) }, done, false},
		"leftover":  {func(dir string) error { return os.MkdirAll(filepath.Join(dir, ".d.part", "x"), 0o755) }, done, false},
		"left file": {func(dir string) error { return os.WriteFile(filepath.Join(dir, ".d.part"), nil, 0o600) }, done, false},
		"not empty": {func(dir string) error { return os.MkdirAll(filepath.Join(dir, "d", "x"), 0o755) }, files{"d": "dir", "d/x": "dir"}, true},
		"file":      {func(dir string) error { return os.WriteFile(filepath.Join(dir, "d"), []byte("old"), 0o600) }, files{"d": "old"}, true},
		"dangling":  {func(dir string) error { return os.Symlink("none", filepath.Join(dir, "d")) }, files{"d": "-> none"}, true},
	} {
		for _, slash := range []string{"", "/"} {
			t.Run(name+slash, func(t *testing.T) {
				dir := t.TempDir()
				if err := c.before(dir); err != nil {
					t.Fatal(err)
				}
				err := NewDir(dir+"/d"+slash, 0o700, fill)
				if c.refused != control.Is(err, control.OutputExists) || !c.refused && err != nil {
					t.Errorf("got %v", err)
				}
				wantTree(t, dir, c.want)
				if info, err := os.Stat(dir + "/d"); err == nil && !c.refused && info.Mode().Perm() != 0o700 {
					t.Errorf("the mode is %v", info.Mode())
				}
			})
		}
	}
}

// A link planted where NewDir works is removed, not followed.
func TestNewDirPlantedLink(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "target", "x"), "precious")
	if err := os.Symlink("target", filepath.Join(dir, ".d.part")); err != nil {
		t.Fatal(err)
	}
	if err := NewDir(filepath.Join(dir, "d"), 0o700, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantTree(t, dir, files{"d": "dir", "target": "dir", "target/x": "precious"})
}

// What fails late is refused before the work is done.
func TestNewDirLooksFirst(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "old")
	put(t, filepath.Join(dir, "full", "x"), "old")
	for _, name := range []string{"file", "full"} {
		err := NewDir(filepath.Join(dir, name), 0o700, func(string) error { return errFill })
		if !control.Is(err, control.OutputExists) || errors.Is(err, errFill) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "f"), "x")
	put(t, filepath.Join(dir, "d", "e", "f"), "x")
	put(t, filepath.Join(dir, ".d.part", "leftover"), "x")
	put(t, filepath.Join(dir, ".gone.part", "leftover"), "x")
	put(t, filepath.Join(dir, "stays"), "x")
	if err := os.Symlink("stays", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d", "link"} {
		if err := Remove(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := Remove(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s again: got %v", name, err)
		}
	}
	for _, name := range []string{"gone", "f"} {
		if err := RemoveIfThere(filepath.Join(dir, name)); err != nil {
			t.Errorf("%s, if there: %v", name, err)
		}
	}
	wantTree(t, dir, files{"stays": "x"})
	if err := RemoveIfThere(filepath.Join(dir, "stays")); err != nil {
		t.Error(err)
	}
	wantTree(t, dir, files{})
}

func TestScratchHasNoName(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "precious"), "old")
	if err := os.Symlink("precious", filepath.Join(dir, ".scratch.part")); err != nil {
		t.Fatal(err)
	}
	var open []*os.File
	for i := range 2 {
		f, err := Scratch(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprint(f, i)
		open = append(open, f)
		wantTree(t, dir, files{"precious": "old"})
	}
	for i, f := range open {
		data, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
		if err != nil || string(data) != fmt.Sprint(i) {
			t.Errorf("scratch %d holds %q, %v", i, data, err)
		}
		if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
			t.Errorf("the mode is %v, %v", info.Mode(), err)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir + "/."); !control.Is(err, control.StateBusy) {
		t.Errorf("second: got %v, want %s", err, control.StateBusy.ID)
	}
	if out, err := child("lock", dir).CombinedOutput(); err == nil || !strings.Contains(string(out), control.StateBusy.ID) {
		t.Errorf("other process: got %v, %s", err, out)
	}
	if _, err := Lock(dir); !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("the holder is not named: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	if out, err := child("lock", dir).CombinedOutput(); err != nil {
		t.Errorf("other process, unlocked: %v, %s", err, out)
	}
	unlock, err = Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	wantTree(t, dir, files{})
	if _, err := Lock(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: got %v", err)
	}
}

// A network file system without locks is told as such.
func TestNoLocks(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	for _, answer := range []string{"ENOLCK", "EOPNOTSUPP"} {
		out, err := child("lock", t.TempDir(), "strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=flock", "-e", "inject=flock:error="+answer).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "has no locks") || !strings.Contains(string(out), control.MachineFailed.ID) {
			t.Errorf("%s: got %v, %s", answer, err, out)
		}
	}
}

// A suspended command holds the lock for ever: it is named, with the way out.
func TestSuspendedHolder(t *testing.T) {
	dir := t.TempDir()
	holder := child("holdlock", dir)
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	if _, err := stdout.Read(make([]byte, 1)); err != nil { // it has the lock
		t.Fatal(err)
	}
	if err := holder.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		var refusal *control.Refusal
		if _, err = Lock(dir); errors.As(err, &refusal) && strings.Contains(refusal.Hint, fmt.Sprintf("kill %d", holder.Process.Pid)) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("got %v", err)
}

// The directory that an operation began in is the one that it ends in.
func TestParentIsHeld(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "stick", "old"), "")
	err := CreateFrom(filepath.Join(dir, "stick", "f"), 0o600, func(w *os.File) error {
		return errors.Join(write(w, "new"), os.Rename(filepath.Join(dir, "stick"), filepath.Join(dir, "pulled")), os.Mkdir(filepath.Join(dir, "stick"), 0o700))
	})
	if err != nil {
		t.Error(err)
	}
	wantTree(t, dir, files{"stick": "dir", "pulled": "dir", "pulled/old": "", "pulled/f": "new"})
}

func TestOnOneMedium(t *testing.T) {
	dir := t.TempDir()
	if one, err := OnOneMedium(dir, filepath.Join(dir, "not", "there")); err != nil || !one {
		t.Errorf("got %t, %v", one, err)
	}
	if one, err := OnOneMedium(dir, "/proc"); err != nil || one {
		t.Errorf("got %t, %v", one, err)
	}
}
