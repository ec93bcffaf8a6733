// SPDX-License-Identifier: Apache-2.0

// Package durable is the only place where Keyferry creates, replaces or
// extends a file. What it reports as written has reached the disk, and under
// its final name there is the whole file or none: a crash leaves at most a
// hidden .NAME.part, which the next run of the same command removes.
//
// Above each function stand the system calls that carry the promise, in their
// order, as Linux has them; sys_windows.go says what Windows has in their place.
// The parent directory is opened first and held: all of one operation happens in
// the same directory, whatever becomes of its path. The calls on one directory
// are not safe for concurrent use; a state directory is locked for the length of a
// command (see [Lock]).
//
// BUG: fsync tells of a lost write once, and maybe to another process that has the
// file open. A disk that lies about its cache is believed. Where that matters, on
// a stick, the copy is read back.
package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keyferry/pkg/control"
)

// inParent runs f on the open parent directory of path, and the name of path in it.
func inParent(path string, f func(parent *dir, name string) error) error {
	path = filepath.Clean(path) // dir/ is a name, too
	parent, err := openDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(f(parent, filepath.Base(path)), parent.close())
}

// partName is the hidden sibling under which name comes into being.
func partName(name string) string { return "." + name + ".part" }

// Create writes data to path, which must not exist (KF-RUN-OUTPUT-EXISTS).
//
//	open directory; unlink .part; open .part O_EXCL; write; fsync; close; rename NOREPLACE; fsync directory
func Create(path string, data []byte, perm fs.FileMode) error {
	return create(path, perm, writeAll(data), (*dir).publish)
}

// File is one file for [CreateAll].
type File struct {
	Path string
	Data []byte
}

// CreateAll creates all files, none of which may exist, or leaves none of them
// behind. Missing directories are made.
func CreateAll(files []File, perm fs.FileMode) error {
	for _, f := range files {
		if err := CheckAbsent(f.Path); err != nil {
			return err
		}
	}
	for i, f := range files {
		err := MkdirAll(filepath.Dir(f.Path), 0o700)
		if err == nil {
			err = Create(f.Path, f.Data, perm)
		}
		if err != nil {
			for _, done := range files[:i] {
				err = errors.Join(err, Remove(done.Path))
			}
			return err
		}
	}
	return nil
}

// Replace writes data to path, in place of what may be there.
//
//	open directory; unlink .part; open .part O_EXCL; write; fsync; close; rename; fsync directory
func Replace(path string, data []byte, perm fs.FileMode) error {
	return create(path, perm, writeAll(data), (*dir).replace)
}

// CreateFrom is [Create] for content that is written in pieces. When fill
// fails, nothing is left behind.
func CreateFrom(path string, perm fs.FileMode, fill func(*os.File) error) error {
	return create(path, perm, fill, (*dir).publish)
}

// ReplaceFrom is [Replace] for content that is written in pieces. When fill
// fails, what was there stays.
func ReplaceFrom(path string, perm fs.FileMode, fill func(*os.File) error) error {
	return create(path, perm, fill, (*dir).replace)
}

func writeAll(data []byte) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.Write(data)
		return err
	}
}

func create(path string, perm fs.FileMode, fill func(*os.File) error, publish func(parent *dir, part, name string) error) error {
	return inParent(path, func(parent *dir, name string) error {
		part := partName(name)
		err := writePart(parent, part, perm, fill)
		if err == nil {
			err = publish(parent, part, name)
		}
		if err != nil {
			return errors.Join(err, parent.unlink(part))
		}
		return parent.sync()
	})
}

func writePart(parent *dir, part string, perm fs.FileMode, fill func(*os.File) error) error {
	f, err := openPart(parent, part, perm, 0)
	if err != nil {
		return err
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// openPart never follows what an attacker may have planted under the part's
// name: it removes the name, and O_EXCL refuses to open anything there.
func openPart(parent *dir, part string, perm fs.FileMode, flags int) (*os.File, error) {
	if err := parent.unlink(part); err != nil {
		return nil, err
	}
	return parent.open(part, os.O_RDWR|os.O_CREATE|os.O_EXCL|flags, perm)
}

// Append writes data, one record, at offset at of path, which it creates when
// absent, and cuts off what was behind: at is the length up to which the
// caller has found the file good, and a torn record of a crash ends there. A
// record that can't be written whole is cut off again (a file that was absent
// may then stay, empty).
//
//	open directory; open O_CREAT; ftruncate at; pwrite; fsync; close; fsync directory
func Append(path string, at int64, data []byte, perm fs.FileMode) error {
	return inParent(path, func(parent *dir, name string) error {
		f, err := parent.open(name, os.O_WRONLY|os.O_CREATE, perm)
		if err != nil {
			return err
		}
		err = f.Truncate(at)
		if err == nil {
			_, err = f.WriteAt(data, at)
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			err = errors.Join(err, f.Truncate(at))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return parent.sync()
	})
}

// MkdirAll makes path and its missing parents. Where the root itself is not there,
// it refuses (KF-RUN-INPUT): Windows has one for each drive and share.
//
//	for each: open parent; mkdir; fsync parent
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	switch parent := filepath.Dir(path); {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return control.OutputExists.Refuse("%s is not a directory", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case parent == path:
		return control.InputFile.Refuse("there is no drive or share %s", path)
	default:
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	return inParent(path, func(parent *dir, name string) error {
		if err := parent.mkdir(name, perm); err != nil {
			return err
		}
		return parent.sync()
	})
}

// NewDir makes the directory path, which must not exist or be empty, with the
// content that fill puts into the directory it is given; that one gets its
// final name when fill is done. When fill fails, nothing is left behind.
//
//	open parent; rm -r .part; mkdir .part; fill; fsync each file and directory in it; rename; fsync parent
func NewDir(path string, perm fs.FileMode, fill func(dir string) error) error {
	entries, err := os.ReadDir(path)
	if len(entries) > 0 || errors.Is(err, syscall.ENOTDIR) {
		return exists(path)
	}
	return inParent(path, func(parent *dir, name string) error {
		part := partName(name)
		err := parent.removeAll(part)
		if err == nil {
			err = parent.mkdir(part, perm)
		}
		if err == nil {
			err = fill(parent.join(part))
		}
		if err == nil {
			err = syncTree(parent.join(part))
		}
		if err == nil {
			err = parent.publishDir(part, name)
		}
		if err != nil {
			return errors.Join(err, parent.removeAll(part))
		}
		return parent.sync()
	})
}

// Remove deletes the file, or the directory with all in it.
//
//	open parent; unlink; fsync parent                       a file
//	open parent; rename .part; fsync parent; rm -r .part    a directory
func Remove(path string) error {
	return inParent(path, func(parent *dir, name string) error {
		part := partName(name)
		if err := parent.removeAll(part); err != nil {
			return err
		}
		info, err := os.Lstat(parent.join(name))
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return errors.Join(parent.remove(name), parent.sync())
		}
		if err := parent.replace(name, part); err != nil {
			return err
		}
		if err := parent.sync(); err != nil {
			return err
		}
		return parent.removeAll(part)
	})
}

// CheckAbsent refuses a path at which there is something already.
func CheckAbsent(path string) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return exists(path)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// Missing returns the files that are not there yet: one that is there, the same to
// the byte, a run that was stopped has written. Another one in its place is refused
// (KF-RUN-OUTPUT-EXISTS).
func Missing(files ...File) (missing []File, err error) {
	for _, f := range files {
		if there, err := os.ReadFile(f.Path); err == nil && bytes.Equal(there, f.Data) {
			continue
		}
		if err := CheckAbsent(f.Path); err != nil {
			return nil, err
		}
		missing = append(missing, f)
	}
	return missing, nil
}

// CheckDir refuses (KF-RUN-INPUT) a directory that a person named for output and
// that is neither there nor to be made in one that is.
func CheckDir(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(filepath.Dir(filepath.Clean(path)))
	}
	if err != nil {
		return control.InputFile.Refuse("the place for output: %w", err)
	}
	if !info.IsDir() {
		return control.InputFile.Refuse("the place for output, %s, is not a directory", path)
	}
	return nil
}

// RemoveIfThere is [Remove] for what may not exist.
func RemoveIfThere(path string) error {
	if err := Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Scratch opens a new file in dir that has no name: it is gone when it is
// closed, also when the process is killed.
//
//	open directory; unlink .part; open .part O_EXCL; unlink .part
func Scratch(where string) (*os.File, error) {
	var f *os.File
	err := inParent(filepath.Join(where, "scratch"), func(parent *dir, name string) (err error) {
		f, err = parent.scratch(partName(name))
		return err
	})
	return f, err
}

// CheckRoom refuses (KF-RUN-DISK-FULL) when the file system of dir, which may
// not exist yet in its parent, has less than that many bytes left. It is for
// what must not be begun on a full disk: a change in a vault, or in a token in
// files that does not say when its disk is full.
func CheckRoom(dir string, bytes uint64) error {
	free, err := room(dir)
	if errors.Is(err, fs.ErrNotExist) {
		free, err = room(filepath.Dir(filepath.Clean(dir)))
	}
	if err == nil && free < bytes {
		return control.DiskFull.Refuse("%s has %d bytes of room, %d are needed", dir, free, bytes)
	}
	return err
}

func notPrivate(dir string) error {
	return control.MachineFailed.Refuse("the file system of %s can't keep its files from other users, as FAT and exFAT can't", filepath.Dir(dir)).
		WithHint("put the state directory on this machine's own disk, and name it with --state")
}

func exists(path string) error { return control.OutputExists.Refuse("%s exists already", path) }

func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() && !entry.Type().IsRegular() {
			return nil
		}
		return syncFile(path)
	})
}
