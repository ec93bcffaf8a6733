// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"keyferry/pkg/control"
)

// Windows has no fsync of a directory. A rename goes to the disk before the
// call returns (MOVEFILE_WRITE_THROUGH), so a file that has its final name keeps
// it; a removed or new directory is written when the file system's journal is.

// dir is an open directory. While it is open, nobody renames or removes it, so
// that a path below it stays the same place.
type dir struct {
	path   string
	handle windows.Handle
}

func openDir(path string) (*dir, error) {
	name, err := wide(path)
	if err != nil {
		return nil, err
	}
	handle, err := windows.CreateFile(name, windows.FILE_LIST_DIRECTORY, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &dir{path, handle}, nil
}

func (d *dir) close() error            { return windows.CloseHandle(d.handle) }
func (d *dir) sync() error             { return nil }
func (d *dir) join(name string) string { return filepath.Join(d.path, name) }

// wide is a path as Windows takes it. One that is longer than older systems take
// (260 characters) gets the prefix that lifts the limit.
func wide(path string) (*uint16, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if len(full) >= windows.MAX_PATH-12 && !strings.HasPrefix(full, `\\?\`) { // 12: for a short name in a directory
		if share, is := strings.CutPrefix(full, `\\`); is {
			full = `UNC\` + share
		}
		path = `\\?\` + full
	}
	return windows.UTF16PtrFromString(path)
}

// patience is how long a virus scanner or an indexer may hold a new file.
const patience = 5 * time.Second

// patiently calls f again for a while where another program holds the file: it is then
// neither renamed nor removed nor, by the one that holds it, to be written, and a name that
// was removed is free only afterwards.
func patiently(f func() error) error {
	for begun, pause := time.Now(), 10*time.Millisecond; ; pause *= 2 {
		err := f()
		held := errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
		if !held || time.Since(begun) > patience {
			return err
		}
		time.Sleep(pause)
	}
}

// open opens a file, which it makes when absent; with O_EXCL there must be none.
func (d *dir) open(name string, flags int, perm fs.FileMode) (*os.File, error) {
	path := d.join(name)
	access, err := accessFor(perm, "")
	if err != nil {
		return nil, err
	}
	in, err := wide(path)
	if err != nil {
		return nil, err
	}
	how := uint32(windows.OPEN_ALWAYS)
	if flags&os.O_EXCL != 0 {
		how = windows.CREATE_NEW
	}
	attributes := uint32(windows.FILE_ATTRIBUTE_NORMAL)
	if flags&windows.O_FILE_FLAG_DELETE_ON_CLOSE != 0 {
		attributes |= windows.FILE_FLAG_DELETE_ON_CLOSE
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE
	var handle windows.Handle
	err = patiently(func() (err error) {
		handle, err = windows.CreateFile(in, windows.GENERIC_READ|windows.GENERIC_WRITE, share, access, how, attributes, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// Container is the security identifier of the AppContainer that the program runs
// in, now or the next time, if it has one. Its entry lets in nobody but a process
// of the same user that is in that container.
var Container string

// accessFor is the access list of what is its owner's alone by perm: only the user,
// the system and the administrators, and the container. It does not depend on the directory that it is
// made in. Windows knows no other modes.
func accessFor(perm fs.FileMode, inherited string) (*windows.SecurityAttributes, error) {
	if perm&0o077 != 0 {
		return nil, nil
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, err
	}
	all := "(A;" + inherited + ";FA;;;"
	list := "D:P" + all + user.User.Sid.String() + ")" + all + "SY)" + all + "BA)"
	if Container != "" {
		const modify = "0x1301bf" // not the list itself
		list += "(A;" + inherited + ";" + modify + ";;;" + Container + ")"
	}
	access, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		return nil, err
	}
	attributes := &windows.SecurityAttributes{SecurityDescriptor: access}
	attributes.Length = uint32(unsafe.Sizeof(*attributes))
	return attributes, nil
}

// mkdir makes a directory, whose access list all in it inherit.
func (d *dir) mkdir(name string, perm fs.FileMode) error {
	path := d.join(name)
	access, err := accessFor(perm, "OICI")
	if err != nil {
		return err
	}
	in, err := wide(path)
	if err != nil {
		return err
	}
	if err := windows.CreateDirectory(in, access); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

func (d *dir) remove(name string) error {
	return patiently(func() error { return os.Remove(d.join(name)) })
}

// unlink removes a file that may not be there, or an empty directory.
func (d *dir) unlink(name string) error {
	if err := d.remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes what may not be there, and follows no link. It does without
// os.RemoveAll, which has no patience (and fails in Wine).
func (d *dir) removeAll(name string) error {
	path := d.join(name)
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		in := &dir{path: path}
		for _, e := range entries {
			if err := in.removeAll(e.Name()); err != nil {
				return err
			}
		}
	}
	return d.unlink(name)
}

// publish gives part its final name, which must be free.
func (d *dir) publish(part, name string) error {
	err := d.move(part, name, 0)
	if errors.Is(err, windows.ERROR_ALREADY_EXISTS) || errors.Is(err, windows.ERROR_FILE_EXISTS) {
		return exists(d.join(name))
	}
	return err
}

// replace gives part its final name, in place of the file that may be there.
func (d *dir) replace(part, name string) error {
	return d.move(part, name, windows.MOVEFILE_REPLACE_EXISTING)
}

// publishDir gives the directory part its final name, which must be free or an
// empty directory. A directory is never replaced, so the empty one goes first.
func (d *dir) publishDir(part, name string) error {
	if info, err := os.Lstat(d.join(name)); err == nil {
		if !info.IsDir() || d.remove(name) != nil {
			return exists(d.join(name))
		}
	}
	return d.publish(part, name)
}

func (d *dir) move(from, to string, flags uint32) error {
	f, err := wide(d.join(from))
	if err != nil {
		return err
	}
	t, err := wide(d.join(to))
	if err != nil {
		return err
	}
	if err := patiently(func() error { return windows.MoveFileEx(f, t, flags|windows.MOVEFILE_WRITE_THROUGH) }); err != nil {
		return &os.LinkError{Op: "rename", Old: d.join(from), New: d.join(to), Err: err}
	}
	return nil
}

// scratch opens a new file that is gone with its last handle.
func (d *dir) scratch(part string) (*os.File, error) {
	return openPart(d, part, 0o600, windows.O_FILE_FLAG_DELETE_ON_CLOSE)
}

// syncFile flushes a file; a directory can't be.
func syncFile(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return err
	}
	var f *os.File
	err = patiently(func() (err error) {
		f, err = os.OpenFile(path, os.O_RDWR, 0) // FlushFileBuffers wants the right to write
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// unbuffered reads a file past the system's cache, which wants whole sectors
// into memory that begins at one.
type unbuffered struct {
	file        *os.File
	block, rest []byte
	end         bool
}

const (
	sector    = 4096
	blockSize = 1 << 20
)

// openMedium opens a file whose bytes are to come from the medium.
func openMedium(path string) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|windows.O_FILE_FLAG_NO_BUFFERING, 0)
	if err != nil {
		return nil, err
	}
	memory := make([]byte, blockSize+sector)
	skip := sector - int(uintptr(unsafe.Pointer(&memory[0]))%sector)
	return &unbuffered{file: f, block: memory[skip : skip+blockSize]}, nil
}

func (u *unbuffered) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		if u.end {
			return 0, io.EOF
		}
		n, err := u.file.Read(u.block)
		if err != nil {
			return 0, err
		}
		u.rest, u.end = u.block[:n], n < len(u.block) // from there on the offset is no sector's
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

func (u *unbuffered) Close() error { return u.file.Close() }

// Lock takes the lock of the directory dir, on the file .lock in it, until the
// process ends or unlock is called. Another process that holds it gives
// KF-STATE-BUSY.
func Lock(dir string) (unlock func() error, err error) {
	path := filepath.Join(dir, ".lock")
	var f *os.File
	err = patiently(func() (err error) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	const how = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped)); err != nil {
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
			err = control.StateBusy.Refuse("another command uses %s", dir)
		} else {
			err = &os.PathError{Op: "lock", Path: path, Err: err}
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// room is how many bytes the file system of dir has left for this user.
func room(dir string) (free uint64, err error) {
	name, err := wide(dir)
	if err != nil {
		return 0, err
	}
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, &os.PathError{Op: "look for room in", Path: dir, Err: err}
	}
	return free, nil
}

// IsFull reports whether an error is the system's word that there is no room.
func IsFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED) || errors.Is(err, syscall.ENOSPC)
}

// IsReadOnly reports whether an error is the system's word that the medium can't
// be written.
func IsReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// IsGone reports whether an error is the system's word that the medium is not
// there any more.
func IsGone(err error) bool {
	return errors.Is(err, windows.ERROR_NOT_READY) || errors.Is(err, windows.ERROR_NO_SUCH_DEVICE) || errors.Is(err, windows.ERROR_DEV_NOT_EXIST) ||
		errors.Is(err, windows.ERROR_NO_MEDIA_IN_DRIVE) || errors.Is(err, windows.ERROR_GEN_FAILURE) || errors.Is(err, windows.ERROR_IO_DEVICE) ||
		errors.Is(err, windows.ERROR_DEVICE_NOT_CONNECTED) || errors.Is(err, windows.ERROR_FILE_INVALID)
}

// OnOneMedium reports whether two paths are on one volume. That of a path that is
// not there is its parent's.
func OnOneMedium(a, b string) (bool, error) {
	x, err := volume(a)
	if err != nil {
		return false, err
	}
	y, err := volume(b)
	return strings.EqualFold(x, y), err
}

// volume is the root of the volume that a path is on.
func volume(path string) (string, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	name, err := wide(full)
	if err != nil {
		return "", err
	}
	root := make([]uint16, 1<<15)
	if err := windows.GetVolumePathName(name, &root[0], uint32(len(root))); err != nil {
		return "", &os.PathError{Op: "look for the volume of", Path: path, Err: err}
	}
	return windows.UTF16ToString(root), nil
}

// CheckPrivate refuses (KF-RUN-MACHINE) a directory on a volume that keeps no access
// lists, such as one of FAT or exFAT.
func CheckPrivate(dir string) error {
	root, err := volume(dir)
	if err != nil {
		return err
	}
	name, err := wide(root)
	if err != nil {
		return err
	}
	var flags uint32
	if err := windows.GetVolumeInformation(name, nil, 0, nil, nil, &flags, nil, 0); err != nil {
		return &os.PathError{Op: "look at the volume of", Path: dir, Err: err}
	}
	if flags&windows.FILE_PERSISTENT_ACLS == 0 {
		return notPrivate(dir)
	}
	return nil
}

// EjectFirst reports whether the system may still hold back, from a medium, what
// this package reports as written: its policy of removal may be one of caching.
const EjectFirst = true
