// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// A file whose secret others can change is refused; of one that they can read, a person
// is told.
func TestSharedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, refused := range map[os.FileMode]bool{0o400: false, 0o600: false, 0o700: false, 0o444: false, 0o604: false, 0o644: false, 0o622: true, 0o660: true, 0o666: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		pin, err := FromFile(path)
		if want := mode&0o044 != 0; IsReadByOthers(path) != want {
			t.Errorf("mode %04o: others read it: %v", mode, !want)
		}
		if refused != control.Is(err, control.SecretShared) || !refused && string(pin) != "1234" {
			t.Errorf("mode %04o: got %q, %v", mode, pin, err)
		}
	}
	if os.Geteuid() == 0 { // what another user gives is theirs to protect
		if err := errors.Join(os.Chmod(path, 0o644), os.Chown(path, 12345, -1)); err != nil {
			t.Fatal(err)
		}
		if pin, err := FromFile(path); err != nil || string(pin) != "1234" {
			t.Errorf("another user's: got %q, %v", pin, err)
		}
	}
}

// A terminal that is named as a file would show what is typed, too.
func TestTerminalAsAFile(t *testing.T) {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	number, err := unix.IoctlGetUint32(int(person.Fd()), unix.TIOCGPTN)
	if err = errors.Join(err, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := FromFile(fmt.Sprintf("/dev/pts/%d", number)); !control.Is(err, control.InputFile) || !strings.Contains(err.Error(), "would show") {
		t.Errorf("got %v", err)
	}
}
