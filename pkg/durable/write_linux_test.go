// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyferry/pkg/control"
)

// Each way to write, against each thing that may be there already.
func TestWrite(t *testing.T) {
	text := []byte("new")
	write := map[string]func(path string) error{
		"Create":  func(p string) error { return Create(p, text, 0o640) },
		"Replace": func(p string) error { return Replace(p, text, 0o640) },
		"CreateFrom": func(p string) error {
			return CreateFrom(p, 0o640, func(w *os.File) error { return errors.Join(write(w, "n"), write(w, "ew")) })
		},
		"ToStick": func(p string) error { return ToStick(p, strings.NewReader("new"), 0o640) },
	}
	for name, run := range write {
		t.Run(name+"/new", func(t *testing.T) {
			dir := t.TempDir()
			if err := run(filepath.Join(dir, "f")); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir, files{"f": "new"})
			info, err := os.Stat(filepath.Join(dir, "f"))
			if err != nil || info.Mode() != 0o640 {
				t.Errorf("the mode is %v, %v", info.Mode(), err)
			}
		})
		t.Run(name+"/leftover of a crash", func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, ".f.part"), "a longer leftover")
			if err := run(filepath.Join(dir, "f")); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir, files{"f": "new"})
		})
		t.Run(name+"/planted link is not followed", func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "target"), "precious")
			if err := os.Symlink("target", filepath.Join(dir, ".f.part")); err != nil {
				t.Fatal(err)
			}
			if err := run(filepath.Join(dir, "f")); err != nil {
				t.Fatal(err)
			}
			wantTree(t, dir, files{"f": "new", "target": "precious"})
		})
		t.Run(name+"/planted directory", func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, ".f.part", "x"), "x")
			if err := run(filepath.Join(dir, "f")); err == nil {
				t.Error("no error")
			}
			wantTree(t, dir, files{".f.part": "dir", ".f.part/x": "x"})
		})
		t.Run(name+"/no such directory", func(t *testing.T) {
			dir := t.TempDir()
			if err := run(filepath.Join(dir, "none", "f")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
			wantTree(t, dir, files{})
		})
		for what, there := range map[string]struct {
			plant func(path string) error
			is    string
		}{
			"exists":               {func(path string) error { return os.WriteFile(path, []byte("old"), 0o600) }, "old"},
			"dangling link exists": {func(path string) error { return os.Symlink("elsewhere", path) }, "-> elsewhere"},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "f")
				if err := there.plant(path); err != nil {
					t.Fatal(err)
				}
				err := run(path)
				if name == "Replace" {
					if err != nil {
						t.Error(err)
					}
					wantTree(t, dir, files{"f": "new"})
					return
				}
				if !control.Is(err, control.OutputExists) {
					t.Errorf("got %v, want %s", err, control.OutputExists.ID)
				}
				wantTree(t, dir, files{"f": there.is})
			})
		}
	}
}

func write(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

func TestFillThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "old"), "old")
	for name, run := range map[string]func() error{
		"CreateFrom": func() error {
			return CreateFrom(filepath.Join(dir, "f"), 0o600, func(w *os.File) error { return errors.Join(write(w, "half"), errFill) })
		},
		"NewDir": func() error {
			return NewDir(filepath.Join(dir, "d"), 0o700, func(d string) error {
				return errors.Join(Create(filepath.Join(d, "f"), nil, 0o600), errFill)
			})
		},
		"ToStick": func() error {
			half := io.MultiReader(strings.NewReader("half"), failing{})
			return ToStick(filepath.Join(dir, "f"), half, 0o600)
		},
	} {
		if err := run(); !errors.Is(err, errFill) {
			t.Errorf("%s: got %v", name, err)
		}
		wantTree(t, dir, files{"old": "old"})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errFill }

// Where the kernel's rename can't refuse to replace, the look before it does.
func TestPublishLooking(t *testing.T) {
	dir := t.TempDir()
	part := filepath.Join(dir, ".f.part")
	parent, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.close()
	put(t, part, "new")
	if err := parent.publishLooking(".f.part", "f"); err != nil {
		t.Fatal(err)
	}
	put(t, part, "newer")
	if err := parent.publishLooking(".f.part", "f"); !control.Is(err, control.OutputExists) {
		t.Errorf("got %v, want %s", err, control.OutputExists.ID)
	}
	wantTree(t, dir, files{"f": "new", ".f.part": "newer"})
}

func TestStickThatLies(t *testing.T) {
	content := strings.Repeat("content ", 1000)
	for name, c := range map[string]struct {
		medium func(f *os.File) error
		says   string
	}{
		"a byte differs": {func(f *os.File) error { return overwrite(f.Name(), func(b []byte) []byte { b[4000] ^= 1; return b }) }, "as written"},
		"cut short":      {func(f *os.File) error { return overwrite(f.Name(), func(b []byte) []byte { return b[:7999] }) }, "as written"},
		"longer":         {func(f *os.File) error { return overwrite(f.Name(), func(b []byte) []byte { return append(b, 0) }) }, "as written"},
		"pulled":         {func(f *os.File) error { return os.ErrDeadlineExceeded }, "can't be read back"},
		"vanished":       {func(f *os.File) error { return errors.Join(os.Remove(f.Name()), errFill) }, "can't be removed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := toStick(filepath.Join(dir, "f"), strings.NewReader(content), 0o600, func(path string) (io.ReadCloser, error) {
				f, err := openMedium(path)
				if err == nil {
					err = c.medium(f.(*os.File))
				}
				return f, err
			})
			if !control.Is(err, control.ReadBack) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %s that says %q", err, control.ReadBack.ID, c.says)
			}
			wantTree(t, dir, files{})
		})
	}
}

func overwrite(path string, change func([]byte) []byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(slices.Clone(data)), 0o600)
}

// What an earlier run left on the stick counts only if it is whole.
func TestIsOnStick(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if there, err := IsOnStick(path, strings.NewReader("data")); there || err != nil {
		t.Errorf("no file: %v, %v", there, err)
	}
	for content, want := range map[string]bool{"data": true, "dat": false, "data ": false, "": false} {
		if err := Replace(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if there, err := IsOnStick(path, strings.NewReader("data")); there != want || err != nil {
			t.Errorf("%q: %v, %v", content, there, err)
		}
	}
}

// What a hostile stick has in a bundle's place is not read, or it could go on
// forever.
func TestIsOnStickReadsFilesOnly(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
		"huge":      func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := plant(path); err != nil {
			t.Fatal(err)
		}
		if there, err := IsOnStick(path, strings.NewReader("data")); there || err != nil {
			t.Errorf("%s: %v, %v", name, there, err)
		}
		if err := ToStick(path, strings.NewReader("data"), 0o600); !control.Is(err, control.OutputExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
