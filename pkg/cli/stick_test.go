// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A stick may be pulled only where there is one.
func TestDelivered(t *testing.T) {
	o := &IO{State: t.TempDir()}
	if text := o.Delivered(t.TempDir()); strings.Contains(text, "may be pulled") || !strings.Contains(text, "not mounted") {
		t.Errorf("on this disk: %s", text)
	}
	if _, err := os.Stat("/dev/shm"); err != nil {
		t.Skip("NOT SHOWN: there is no second medium, /dev/shm:", err)
	}
	if text := o.Delivered("/dev/shm"); !strings.Contains(text, "The stick may be pulled.") {
		t.Errorf("on another one: %s", text)
	}
}

// What a stick does not let the program do has a sentence and a way on of its own.
func TestStickRefuses(t *testing.T) {
	for errno, says := range map[syscall.Errno]string{syscall.EROFS: "write protection", syscall.ENOTCONN: "plug the stick in again", syscall.EIO: "plug the stick in again", syscall.ENOSPC: "make room"} {
		r := Refusals(&fs.PathError{Op: "open", Path: "/stick/f", Err: errno})[0]
		if text := r.Message + r.Control.Hint + r.Hint; !strings.Contains(text, says) {
			t.Errorf("%v: %s", errno, text)
		}
	}
}
