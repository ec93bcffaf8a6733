// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"os"
	"path/filepath"

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

// dropCache asks the kernel to forget the file's pages, so that the next read
// comes from the medium.
func dropCache(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
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

// CheckRoom refuses (KF-RUN-DISK-FULL) when the file system of dir, which may
// not exist yet in its parent, has less than that many bytes left. It is for
// what must not be begun on a full disk: a change in a vault, or in a token in
// files that does not say when its disk is full.
func CheckRoom(dir string, bytes uint64) error {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Statfs(filepath.Dir(filepath.Clean(dir)), &fs)
	}
	if err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < bytes {
		return control.DiskFull.Refuse("%s has %d bytes of room, %d are needed", dir, free, bytes)
	}
	return nil
}
