// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// small mounts a file system with 64 KiB of room and few inodes.
func small(t *testing.T, inodes string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes="+inodes); err != nil {
		t.Skipf("SKIPPED, NOT SHOWN: a full disk needs a small tmpfs, and this user may not mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("something is still open in it: %v", err)
		}
	})
	return dir
}

var tooMuch = bytes.Repeat([]byte("x"), 128<<10)

func TestDiskFullOfBytes(t *testing.T) {
	for name, run := range map[string]func(dir string) error{
		"Create":  func(dir string) error { return Create(filepath.Join(dir, "new"), tooMuch, 0o600) },
		"Replace": func(dir string) error { return Replace(filepath.Join(dir, "old"), tooMuch, 0o600) },
		"CreateFrom": func(dir string) error {
			return CreateFrom(filepath.Join(dir, "new"), 0o600, func(w *os.File) error {
				_, err := io.Copy(w, bytes.NewReader(tooMuch))
				return err
			})
		},
		"Append": func(dir string) error { return Append(filepath.Join(dir, "old"), 3, tooMuch, 0o600) },
		"NewDir": func(dir string) error {
			return NewDir(filepath.Join(dir, "d"), 0o700, func(d string) error {
				return errors.Join(Create(filepath.Join(d, "small"), []byte("x"), 0o600), Create(filepath.Join(d, "f"), tooMuch, 0o600))
			})
		},
		"ToStick": func(dir string) error { return ToStick(filepath.Join(dir, "new"), bytes.NewReader(tooMuch), 0o600) },
		"Scratch": func(dir string) error {
			f, err := Scratch(dir)
			if err != nil {
				return err
			}
			_, err = f.Write(tooMuch)
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := small(t, "100")
			put(t, filepath.Join(dir, "old"), "old")
			if err := run(dir); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("got %v, want ENOSPC", err)
			}
			wantTree(t, dir, files{"old": "old"})
			if err := Create(filepath.Join(dir, "room"), bytes.Repeat([]byte("x"), 32<<10), 0o600); err != nil {
				t.Errorf("the room was not given back: %v", err)
			}
		})
	}
}

func TestDiskFullOfFiles(t *testing.T) {
	for name, run := range map[string]func(dir string) error{
		"Create":   func(dir string) error { return Create(filepath.Join(dir, "new"), nil, 0o600) },
		"Replace":  func(dir string) error { return Replace(filepath.Join(dir, "old"), nil, 0o600) },
		"Append":   func(dir string) error { return Append(filepath.Join(dir, "new"), 0, nil, 0o600) },
		"MkdirAll": func(dir string) error { return MkdirAll(filepath.Join(dir, "d", "e"), 0o700) },
		"NewDir": func(dir string) error {
			return NewDir(filepath.Join(dir, "d"), 0o700, func(string) error { return nil })
		},
		"ToStick": func(dir string) error { return ToStick(filepath.Join(dir, "new"), bytes.NewReader(nil), 0o600) },
		"Scratch": func(dir string) error { _, err := Scratch(dir); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := small(t, "3") // the root, and these two
			put(t, filepath.Join(dir, "old"), "old")
			put(t, filepath.Join(dir, "other"), "")
			if err := run(dir); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("got %v, want ENOSPC", err)
			}
			wantTree(t, dir, files{"old": "old", "other": ""})
		})
	}
}

// What makes room works on a full disk.
func TestDiskFullRemove(t *testing.T) {
	dir := small(t, "3")
	put(t, filepath.Join(dir, "old"), "old")
	f, err := os.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(tooMuch); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Remove(filepath.Join(dir, "big")); err != nil {
		t.Error(err)
	}
	wantTree(t, dir, files{"old": "old"})
}
