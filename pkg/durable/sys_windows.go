// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"keyferry/pkg/control"
)

// Windows has no fsync of a directory. A rename goes to the disk before the
// call returns (MOVEFILE_WRITE_THROUGH), so a file that has its final name keeps
// it; a removed or new directory is written when the file system's journal is.

// publishNew gives part its final name, which must be free.
func publishNew(part, path string) error {
	err := move(part, path, 0)
	if errors.Is(err, windows.ERROR_ALREADY_EXISTS) || errors.Is(err, windows.ERROR_FILE_EXISTS) {
		return exists(path)
	}
	return err
}

// replace gives part its final name, in place of what may be there.
func replace(part, path string) error { return move(part, path, windows.MOVEFILE_REPLACE_EXISTING) }

// publishDir gives the directory part its final name, which must be free or an
// empty directory. A directory is never replaced, so the empty one goes first.
func publishDir(part, path string) error {
	if info, err := os.Lstat(path); err == nil {
		if !info.IsDir() || os.Remove(path) != nil {
			return exists(path)
		}
	}
	return publishNew(part, path)
}

func move(from, to string, flags uint32) error {
	f, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	t, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	if err := windows.MoveFileEx(f, t, flags|windows.MOVEFILE_WRITE_THROUGH); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// mkdir makes a directory. One that is its owner's alone by perm gets an access
// list that says so, and that all in it inherit: only the user, the system and
// the administrators. Windows knows no other modes.
func mkdir(path string, perm fs.FileMode) error {
	if perm&0o077 != 0 {
		return os.Mkdir(path, perm)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	const all = "(A;OICI;FA;;;"
	access, err := windows.SecurityDescriptorFromString("D:P" + all + user.User.Sid.String() + ")" + all + "SY)" + all + "BA)")
	if err != nil {
		return err
	}
	attributes := windows.SecurityAttributes{SecurityDescriptor: access}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	if err := windows.CreateDirectory(name, &attributes); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return nil
}

// syncFile flushes a file; a directory can't be.
func syncFile(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // FlushFileBuffers wants the right to write
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// scratch opens a new file that is gone with its last handle.
func scratch(path string) (*os.File, error) {
	return openPart(path, 0o600, windows.O_FILE_FLAG_DELETE_ON_CLOSE)
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
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
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
	name, err := windows.UTF16PtrFromString(dir)
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
