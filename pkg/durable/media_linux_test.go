// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// media are the file systems that sticks and disks have, on an image in a file:
// ext4 by the kernel, and those that this machine's kernel may not have, by FUSE.
// $IMAGE, $LOOP (a block device of the image) and $DIR stand for themselves.
var media = map[string]struct{ make, mount string }{
	"ext4":  {"mkfs.ext4 -q -F $IMAGE", "mount $LOOP $DIR"},
	"vfat":  {"mkfs.vfat $IMAGE", "fusefat -f -o rw+ $IMAGE $DIR"},
	"exfat": {"mkfs.exfat $IMAGE", "mount.exfat-fuse -d $LOOP $DIR"},
}

// medium is a file system of 8 MiB. What the machine cannot mount is skipped.
type medium struct {
	t                *testing.T
	name             string
	image, loop, dir string
	driver           *exec.Cmd // FUSE's stay until they are unmounted
	ended            chan error
}

func newMedium(t *testing.T, name string) *medium {
	t.Helper()
	dir := t.TempDir()
	m := &medium{t: t, name: name, image: filepath.Join(dir, "image"), dir: filepath.Join(dir, "medium")}
	if err := errors.Join(os.WriteFile(m.image, nil, 0o600), os.Truncate(m.image, 8<<20), os.Mkdir(m.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	mkfs := m.words(media[name].make)
	if out, err := exec.Command(mkfs[0], mkfs[1:]...).CombinedOutput(); err != nil {
		m.skip(mkfs[0], err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", m.image).CombinedOutput()
	if err != nil {
		m.skip("losetup", err, out)
	}
	m.loop = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", m.loop).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v %s", err, out)
		}
	})
	m.mount()
	t.Cleanup(m.unmount)
	return m
}

func (m *medium) skip(what string, err error, out []byte) {
	m.t.Helper()
	m.t.Skipf("SKIPPED, NOT SHOWN: %s needs root, a loop device and the packages dosfstools, exfatprogs, exfat-fuse and fusefat: %s: %v %s", m.name, what, err, out)
}

func (m *medium) words(line string) []string {
	return strings.Fields(strings.NewReplacer("$IMAGE", m.image, "$LOOP", m.loop, "$DIR", m.dir).Replace(line))
}

func (m *medium) mount() {
	m.t.Helper()
	line := m.words(media[m.name].mount)
	m.driver, m.ended = exec.Command(line[0], line[1:]...), make(chan error, 1)
	if err := m.driver.Start(); err != nil {
		m.skip(line[0], err, nil)
	}
	go func() { m.ended <- m.driver.Wait() }()
	for !mounted(m.t, m.dir) {
		select {
		case err := <-m.ended:
			if err != nil {
				m.skip(line[0], err, nil)
			}
			m.ended <- nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (m *medium) unmount() {
	m.t.Helper()
	if out, err := exec.Command("umount", m.dir).CombinedOutput(); err != nil {
		m.t.Errorf("umount: %v %s", err, out)
	}
	<-m.ended
}

// mounted reports whether dir is on another device than its parent.
func mounted(t *testing.T, dir string) bool {
	t.Helper()
	var here, above unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
		t.Fatal(err)
	}
	return here.Dev != above.Dev
}

// A bundle's way onto each kind of medium: whole, never over another, proven, and
// without a trace when there is no room or the medium can't be written.
func TestMedia(t *testing.T) {
	for name := range media {
		t.Run(name, func(t *testing.T) {
			dir := newMedium(t, name).dir
			path := filepath.Join(dir, "keyferry-offline-1.kfb")
			content := bytes.Repeat([]byte("content "), 1<<18)
			if err := ToStick(path, bytes.NewReader(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if there, err := IsOnStick(path, bytes.NewReader(content)); !there || err != nil {
				t.Errorf("it is not there: %v", err)
			}
			if there, err := IsOnStick(path, bytes.NewReader(content[1:])); there || err != nil {
				t.Errorf("other content is there: %v", err)
			}
			if err := ToStick(path, bytes.NewReader(content), 0o644); !control.Is(err, control.OutputExists) {
				t.Errorf("over another: %v", err)
			}
			if err := errors.Join(Remove(path), ToStick(path, bytes.NewReader(content[8:]), 0o644)); err != nil {
				t.Error(err)
			}
			onlyThat := func(what string) {
				t.Helper()
				got, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(got, content[8:]) {
					t.Errorf("%s: %d bytes are there: %v", what, len(got), err)
				}
				names, err := filepath.Glob(filepath.Join(dir, "*"))
				hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
				if err != nil || len(hidden) != 0 || len(names) != 1 && !(name == "ext4" && len(names) == 2) { // lost+found
					t.Errorf("%s: there are %q %q, %v", what, names, hidden, err)
				}
			}
			onlyThat("written anew")
			second := filepath.Join(dir, "keyferry-offline-2.kfb")
			err := ToStick(second, bytes.NewReader(make([]byte, 9<<20)), 0o644)
			if fusefatFull := name == "vfat" && errors.Is(err, syscall.EPERM); !errors.Is(err, syscall.ENOSPC) && !fusefatFull {
				t.Errorf("without room: %v", err)
			}
			onlyThat("without room")
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			if err := ToStick(second, bytes.NewReader(content), 0o644); !errors.Is(err, syscall.EROFS) {
				t.Errorf("read-only: %v", err)
			}
			onlyThat("read-only")
		})
	}
}

// A stick that is pulled out midway: its driver, here a process, is gone. The
// error says so, and what is on the stick afterwards can't be taken for a bundle.
func TestPulledOut(t *testing.T) {
	for _, name := range []string{"vfat", "exfat"} {
		t.Run(name, func(t *testing.T) {
			m := newMedium(t, name)
			path := filepath.Join(m.dir, "keyferry-offline-1.kfb")
			content := io.MultiReader(bytes.NewReader(make([]byte, 2<<20)), pull{m}, bytes.NewReader(make([]byte, 2<<20)))
			if err := ToStick(path, content, 0o644); !errors.Is(err, syscall.ENOTCONN) {
				t.Errorf("%v", err)
			}
			m.unmount()
			m.mount()
			only := func(name string) {
				t.Helper()
				if found, err := filepath.Glob(filepath.Join(m.dir, "*")); err != nil || len(found) != 1 || found[0] != name {
					t.Errorf("there are %q, %v", found, err)
				}
			}
			only(filepath.Join(m.dir, partName(filepath.Base(path))))
			if err := ToStick(path, bytes.NewReader(make([]byte, 4<<20)), 0o644); err != nil {
				t.Errorf("in again: %v", err)
			}
			only(path)
		})
	}
}

// pull holds no content; who reads it pulls the stick out.
type pull struct{ *medium }

func (p pull) Read([]byte) (int, error) {
	err := p.driver.Process.Kill()
	p.ended <- <-p.ended
	return 0, cmp.Or(err, io.EOF)
}

// The read-back finds nothing in the page cache: what it compares comes from the
// medium.
func TestReadBackBypassesTheCache(t *testing.T) {
	path := filepath.Join(newMedium(t, "ext4").dir, "f")
	if err := Create(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cached := func(open func() (*os.File, error)) uint64 {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var pages unix.Cachestat_t
		if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &pages, 0); err != nil {
			t.Skipf("SKIPPED, NOT SHOWN: cachestat needs Linux 6.5: %v", err)
		}
		return pages.Cache
	}
	if cached(func() (*os.File, error) { return os.Open(path) }) == 0 {
		t.Fatal("nothing is in the cache after writing: this shows nothing")
	}
	if n := cached(func() (*os.File, error) { f, err := openMedium(path); return f.(*os.File), err }); n != 0 {
		t.Errorf("%d pages are still in the cache", n)
	}
}

// What a stick's file system can't keep from others is told from what a disk's can.
func TestCheckPrivate(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own")
	if err := errors.Join(os.Mkdir(own, 0o700), CheckPrivate(own)); err != nil {
		t.Error(err)
	}
	onStick := filepath.Join(newMedium(t, "exfat").dir, "state")
	if err := os.Mkdir(onStick, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CheckPrivate(onStick); !control.Is(err, control.MachineFailed) {
		t.Errorf("got %v, want %s", err, control.MachineFailed.ID)
	}
}
