// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// publishNew gives part its final name, which must be free. File systems
// without RENAME_NOREPLACE (some vfat and FUSE) get a look before the rename.
func publishNew(part, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return exists(path)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return publishLooking(part, path)
	}
	return &os.LinkError{Op: "rename", Old: part, New: path, Err: err}
}

// publishLooking is publishNew where the kernel has no rename that refuses to
// replace: between the look and the rename another process could slip in.
func publishLooking(part, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return exists(path)
	}
	return os.Rename(part, path)
}

// publishDir gives the directory part its final name, which must be free or an
// empty directory: rename(2) refuses any other.
func publishDir(part, path string) error {
	err := unix.Rename(part, path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR):
		return exists(path)
	}
	return &os.LinkError{Op: "rename", Old: part, New: path, Err: err}
}

// replace gives part its final name, in place of what may be there.
func replace(part, path string) error { return os.Rename(part, path) }

func mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// syncFile fsyncs a file or a directory.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// scratch opens a new file and takes its name away.
func scratch(path string) (*os.File, error) {
	f, err := openPart(path, 0o600, 0)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openMedium opens a file whose bytes are to come from the medium: the kernel is
// asked to forget its pages.
func openMedium(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, errors.Join(&os.PathError{Op: "fadvise", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// Lock takes the lock of the directory dir until the process ends or unlock is
// called. Another process that holds it gives KF-STATE-BUSY.
func Lock(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = &os.PathError{Op: "flock", Path: dir, Err: err}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = control.StateBusy.Refuse("another command uses %s", dir)
		}
		return nil, errors.Join(err, d.Close())
	}
	return d.Close, nil
}

// room is how many bytes the file system of dir has left for this user.
func room(dir string) (free uint64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// IsFull reports whether an error is the system's word that there is no room.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
