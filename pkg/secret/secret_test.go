// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"keyferry/pkg/control"
)

func TestFromFile(t *testing.T) {
	for name, c := range map[string]struct {
		content, want string
		refused       *control.Control
	}{
		"plain":            {"Passw0rd!", "Passw0rd!", nil},
		"line feed":        {"Passw0rd!\n", "Passw0rd!", nil},
		"Windows editor":   {"\ufeffPassw0rd!\r\n", "Passw0rd!", nil},
		"spaces belong":    {" a b \n", " a b ", nil},
		"carriage return":  {"a\rb\n", "a\rb", nil},
		"an empty line":    {"a\n\n", "", &control.SecretEmpty},
		"Windows' own":     {"a\r\n\r\n", "", &control.SecretEmpty},
		"two lines":        {"1234\nsecond\n", "", &control.SecretEmpty},
		"one, further on":  {"\n1234", "", &control.SecretEmpty},
		"not ASCII":        {"пароль€𝄞$`\"'\\\n", "пароль€𝄞$`\"'\\", nil},
		"PowerShell 5.1":   {"\xFF\xFE1\x002\x003\x004\x00\r\x00\n\x00", "1234", nil},
		"UTF-16, no mark":  {"1\x002\x003\x004\x00", "", &control.SecretEmpty},
		"half of UTF-16":   {"\xFF\xFE1", "", &control.SecretEmpty},
		"NUL":              {"1234\x00", "", &control.SecretEmpty},
		"Latin-1":          {"B\xFCro", "", &control.SecretEmpty},
		"empty":            {"", "", &control.SecretEmpty},
		"only a line end":  {"\r\n", "", &control.SecretEmpty},
		"a file too large": {strings.Repeat("x", maxSize+1), "", &control.SecretEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := FromFile(path)
			if c.refused != nil {
				if !control.Is(err, *c.refused) {
					t.Fatalf("got %q, %v; want %s", got, err, c.refused.ID)
				}
				return
			}
			if err != nil || string(got) != c.want {
				t.Fatalf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	if _, err := FromFile(filepath.Join(t.TempDir(), "none")); !control.Is(err, control.InputFile) {
		t.Errorf("no file: %v", err)
	}
}

// A shell hands over <(command) as /dev/fd/N.
func TestFromFD(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("secret\n"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	fd, err := syscall.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := FromFile(fmt.Sprintf("/dev/fd/%d", fd)); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := FromFD(uint(r.Fd())); !control.Is(err, control.InputFile) || !strings.Contains(err.Error(), "is not open") {
		t.Errorf("a descriptor that this process opened itself: %v", err)
	}
	if _, err := FromFD(9999); !control.Is(err, control.InputFile) {
		t.Errorf("closed descriptor: %v", err)
	}
}

func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", maxSize)
	for typed, want := range map[string]string{
		"hunter2\nmore": "hunter2", "hunter2\r\n": "hunter2", "hunter2": "hunter2", "\n": "", "a\rb\n": "a\rb", long + "\n": long,
	} {
		if got, err := readLine(iotest.OneByteReader(strings.NewReader(typed))); err != nil || string(got) != want {
			t.Errorf("%.20q: got %.20q, %v", typed, got, err)
		}
	}
	for name, r := range map[string]io.Reader{
		"nothing": strings.NewReader(""), "too long": strings.NewReader(long + "x\n"), "an error": iotest.ErrReader(io.ErrClosedPipe),
	} {
		if got, err := readLine(r); err == nil || got != nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
