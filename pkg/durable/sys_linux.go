// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// dir is an open directory. Names are of what is in it.
type dir struct{ *os.File }

func openDir(path string) (*dir, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &dir{f}, nil
}

func (d *dir) close() error { return d.Close() }
func (d *dir) sync() error  { return d.Sync() }
func (d *dir) fd() int      { return int(d.Fd()) }

// join is the path of a name.
func (d *dir) join(name string) string { return filepath.Join(d.Name(), name) }

// failed is the error of a call on a name, nil if it did not fail.
func (d *dir) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: d.join(name), Err: err}
}

func (d *dir) open(name string, flags int, perm fs.FileMode) (*os.File, error) {
	for {
		fd, err := unix.Openat(d.fd(), name, flags|unix.O_CLOEXEC, uint32(perm))
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), d.join(name)), nil
		case !errors.Is(err, unix.EINTR): // a file system of a user's process is interrupted
			return nil, d.failed("open", name, err)
		}
	}
}

func (d *dir) mkdir(name string, perm fs.FileMode) error {
	return d.failed("mkdir", name, unix.Mkdirat(d.fd(), name, uint32(perm)))
}

func (d *dir) remove(name string) error {
	return d.failed("remove", name, unix.Unlinkat(d.fd(), name, 0))
}

// unlink removes a file that may not be there, or an empty directory.
func (d *dir) unlink(name string) error {
	err := unix.Unlinkat(d.fd(), name, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return d.failed("remove", name, err)
}

func (d *dir) removeAll(name string) error { return os.RemoveAll(d.join(name)) }

// publish gives part its final name, which must be free. File systems without
// RENAME_NOREPLACE (some vfat and FUSE) get a look before the rename.
func (d *dir) publish(part, name string) error {
	err := unix.Renameat2(d.fd(), part, d.fd(), name, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EEXIST):
		return exists(d.join(name))
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return d.publishLooking(part, name)
	}
	return d.failed("rename to", name, err)
}

// publishLooking is publish where the kernel has no rename that refuses to
// replace: between the look and the rename another process could slip in.
func (d *dir) publishLooking(part, name string) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(d.fd(), name, &stat, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return exists(d.join(name))
	}
	return d.replace(part, name)
}

// publishDir gives the directory part its final name, which must be free or an
// empty directory: rename(2) refuses any other.
func (d *dir) publishDir(part, name string) error {
	err := unix.Renameat(d.fd(), part, d.fd(), name)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOTDIR) {
		return exists(d.join(name))
	}
	return d.failed("rename to", name, err)
}

// replace gives part its final name, in place of what may be there.
func (d *dir) replace(part, name string) error {
	return d.failed("rename to", name, unix.Renameat(d.fd(), part, d.fd(), name))
}

// scratch opens a new file and takes its name away.
func (d *dir) scratch(part string) (*os.File, error) {
	f, err := openPart(d, part, 0o600, 0)
	if err != nil {
		return nil, err
	}
	if err := d.remove(part); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// syncFile fsyncs a file or a directory.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
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
	if err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return d.Close, nil
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = busy(dir, holder(d))
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		err = control.MachineFailed.Refuse("the file system of %s has no locks: %w", dir, err).
			WithHint("put the state directory on a local disk, and name it with --state: a network file system can't keep two commands apart")
	default:
		err = &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	return nil, errors.Join(err, d.Close())
}

// busy says who holds the lock of a directory, if that is known (not 0).
func busy(dir string, pid int) error {
	if pid == 0 {
		return control.StateBusy.Refuse("another command uses %s", dir)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if _, state, _ := strings.Cut(string(stat), ") "); err == nil && strings.HasPrefix(state, "T") {
		return control.StateBusy.Refuse("another command uses %s, process %d, which is suspended", dir, pid).
			WithHint("let it go on where it was started, with 'fg', or end it with 'kill -CONT %d; kill %d'; then run this one again", pid, pid)
	}
	return control.StateBusy.Refuse("another command uses %s, process %d", dir, pid)
}

// holder is the process that holds the lock of an open directory, 0 if that can't
// be found out. A line of the kernel's table is: number, FLOCK, ADVISORY, WRITE,
// process, device:inode, and the range.
func holder(d *os.File) int {
	var stat unix.Stat_t
	table, err := os.Open("/proc/locks")
	if err != nil || unix.Fstat(int(d.Fd()), &stat) != nil {
		return 0
	}
	defer table.Close()
	for lines := bufio.NewScanner(table); lines.Scan(); {
		var n, kind, advisory, mode, inode string
		var pid int
		fmt.Sscan(lines.Text(), &n, &kind, &advisory, &mode, &pid, &inode)
		if kind == "FLOCK" && strings.HasSuffix(inode, fmt.Sprintf(":%d", stat.Ino)) {
			return max(pid, 0) // a negative one is of another container
		}
	}
	return 0
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

// IsReadOnly reports whether an error is the system's word that the medium can't
// be written.
func IsReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// IsGone reports whether an error is the system's word that the medium is not
// there any more.
func IsGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOTCONN) ||
		errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, unix.EIO) || errors.Is(err, unix.ESTALE)
}

// OnOneMedium reports whether two paths are on one file system. That of a path
// that is not there is its parent's.
func OnOneMedium(a, b string) (bool, error) {
	x, err := device(a)
	if err != nil {
		return false, err
	}
	y, err := device(b)
	return x == y, err
}

func device(path string) (uint64, error) {
	var stat unix.Stat_t
	err := unix.Stat(path, &stat)
	if parent := filepath.Dir(path); errors.Is(err, unix.ENOENT) && parent != path {
		return device(parent)
	}
	if err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return stat.Dev, nil
}

// CheckPrivate refuses (KF-RUN-MACHINE) a directory that was made for its owner alone
// and is not: FAT and exFAT keep no rights, and some network file systems others.
func CheckPrivate(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = notPrivate(dir)
	}
	return err
}

// EjectFirst reports whether the system may still hold back, from a medium, what
// this package reports as written.
const EjectFirst = false
