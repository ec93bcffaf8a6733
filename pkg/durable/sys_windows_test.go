// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"keyferry/pkg/control"
)

// tempDir is as t.TempDir, but for os.RemoveAll, which fails in Wine.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "durable")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// hold opens a file or directory as a virus scanner does, which reads it and lets nobody
// else write, rename or remove it, for a while.
func hold(t *testing.T, path string, share uint32) {
	t.Helper()
	name, err := wide(path)
	if err != nil {
		t.Fatal(err)
	}
	handle, err := windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { windows.CloseHandle(handle) })
}

// Each operation waits for what another program holds, and leaves nothing beside it.
func TestHeldByAScanner(t *testing.T) {
	const readers = windows.FILE_SHARE_READ
	filled := func(during func(path string)) func(dir string) error {
		return func(dir string) error {
			err := os.WriteFile(filepath.Join(dir, "f"), []byte("new"), 0o600)
			during(dir)
			return err
		}
	}
	for name, test := range map[string]struct {
		there string
		do    func(path string) error
		want  files
	}{
		"replace, the old file is held": {"file", func(path string) error { hold(t, path, readers); return Replace(path, []byte("new"), 0o600) }, files{"f": "new"}},
		"create, the part is held": {"", func(path string) error {
			return CreateFrom(path, 0o600, func(f *os.File) error {
				hold(t, filepath.Join(filepath.Dir(path), ".f.part"), readers|windows.FILE_SHARE_WRITE)
				_, err := f.WriteString("new")
				return err
			})
		}, files{"f": "new"}},
		"append, the file is held": {"file", func(path string) error { hold(t, path, readers); return Append(path, 3, []byte("new"), 0o600) }, files{"f": "oldnew"}},
		"remove, the file is held": {"file", func(path string) error { hold(t, path, readers); return Remove(path) }, files{}},
		"remove, a file in it":     {"directory", func(path string) error { hold(t, filepath.Join(path, "f"), readers); return Remove(path) }, files{}},
		"make, the directory is held": {"", func(path string) error {
			return NewDir(path, 0o700, filled(func(dir string) { hold(t, dir, readers) }))
		}, files{"f": "dir", "f/f": "new"}},
		"make, a file in it": {"", func(path string) error {
			return NewDir(path, 0o700, filled(func(dir string) { hold(t, filepath.Join(dir, "f"), readers) }))
		}, files{"f": "dir", "f/f": "new"}},
		"to a stick": {"", func(path string) error {
			return ToStick(path, io.MultiReader(strings.NewReader("n"), held(func() { hold(t, filepath.Join(filepath.Dir(path), ".f.part"), readers|windows.FILE_SHARE_WRITE) }), strings.NewReader("ew")), 0o600)
		}, files{"f": "new"}},
		"lock": {"lock", func(path string) error {
			hold(t, filepath.Join(filepath.Dir(path), ".lock"), readers)
			unlock, err := Lock(filepath.Dir(path))
			if err == nil {
				err = unlock()
			}
			return errors.Join(err, os.Remove(filepath.Join(filepath.Dir(path), ".lock")))
		}, files{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			switch test.there {
			case "file":
				put(t, filepath.Join(dir, "f"), "old")
			case "directory":
				put(t, filepath.Join(dir, "f", "f"), "old")
			case "lock":
				put(t, filepath.Join(dir, ".lock"), "")
			}
			begun := time.Now()
			if err := test.do(filepath.Join(dir, "f")); err != nil {
				t.Error(err)
			}
			if waited := time.Since(begun); waited < 200*time.Millisecond {
				t.Errorf("nothing was held: %v", waited)
			}
			wantTree(t, dir, test.want)
		})
	}
}

// held does something when it is read.
type held func()

func (h held) Read([]byte) (int, error) { h(); return 0, io.EOF }

// A path that is longer than older systems take goes to Windows in the form that lifts
// the limit, also where only the current directory makes it long.
func TestLongPaths(t *testing.T) {
	deep := filepath.Join(tempDir(t), strings.Repeat(`a folder with a long name\`, 12))
	if err := MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(deep, "f"), `\\server\share\` + strings.Repeat("x", 300)} {
		name, err := wide(path)
		if err != nil || !strings.HasPrefix(windows.UTF16PtrToString(name), `\\?\`) {
			t.Errorf("%s: %s, %v", path, windows.UTF16PtrToString(name), err)
		}
	}
	t.Chdir(deep)
	if err := errors.Join(Create("f", []byte("new"), 0o600), ToStick("g", strings.NewReader("new"), 0o600), Remove("f")); err != nil {
		t.Error(err)
	}
	wantTree(t, ".", files{"g": "new"})
}

// What is its owner's alone names no other user, whatever the directory's list says.
func TestAccessList(t *testing.T) {
	dir := tempDir(t)
	if err := errors.Join(Create(filepath.Join(dir, "f"), nil, 0o600), MkdirAll(filepath.Join(dir, "d"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "d"} {
		list, err := windows.GetNamedSecurityInfo(filepath.Join(dir, name), windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
		if err != nil || strings.Contains(list.String(), ";WD)") || strings.Contains(list.String(), ";BU)") || !strings.Contains(list.String(), ";SY)") {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

func TestNoDrive(t *testing.T) {
	for _, path := range []string{`Q:\a\b`, `\\nowhere\share\a`, `Q:\`} {
		if err := MkdirAll(path, 0o700); !control.Is(err, control.InputFile) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
