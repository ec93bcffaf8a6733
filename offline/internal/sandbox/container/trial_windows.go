// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"keyferry/pkg/durable"
)

// Is fails where this process is in no container, or in one that may do something.
func Is() error {
	if plain {
		return nil
	}
	const isAppContainer, capabilitiesOf = 29, 30 // TokenIsAppContainer, TokenCapabilities
	token := windows.GetCurrentProcessToken()
	var is, size uint32
	if err := windows.GetTokenInformation(token, isAppContainer, (*byte)(unsafe.Pointer(&is)), 4, &size); err != nil {
		return err
	}
	if is == 0 {
		return errors.New("the token is that of no container")
	}
	var capabilities [512]uint64 // TOKEN_GROUPS, which begins with their count
	if err := windows.GetTokenInformation(token, capabilitiesOf, (*byte)(unsafe.Pointer(&capabilities[0])), uint32(unsafe.Sizeof(capabilities)), &size); err != nil {
		return err
	}
	if count := uint32(capabilities[0]); count > 0 {
		return fmt.Errorf("the container has %d capabilities", count)
	}
	return nil
}

// Try tries, in the container, what must be shut and what must be open, the latter
// with try as well. It tells the broker and ends the process.
func Try(places []Place, try func() error) {
	said, code := held, uint32(0)
	if err := trial(places, try); err != nil {
		said, code = strings.ReplaceAll(err.Error(), "\n", "; "), 1
	}
	if answer, err := windows.GetStdHandle(windows.STD_OUTPUT_HANDLE); err == nil {
		windows.Write(answer, []byte(said)) // what does not arrive is no answer
	}
	windows.ExitProcess(code)
}

func trial(places []Place, try func() error) error {
	if err := Is(); err != nil {
		return err
	}
	if dir, err := os.Getwd(); err != nil || !strings.EqualFold(dir, told.Directory) {
		return fmt.Errorf("it can't be in the current directory %s%s", told.Directory, open(Place{Path: told.Directory}))
	}
	if err := console(); err != nil && told.Console {
		return fmt.Errorf("it has no console (%w); 'reg add HKCU\\Console /v LowBoxConsoleEnabled /t REG_DWORD /d 1' gives containers one", err)
	}
	for _, place := range places {
		if err := reach(place); err != nil {
			return fmt.Errorf("it can't reach %s: %w%s", place.Path, err, open(place))
		}
	}
	scratch, err := durable.Scratch(os.TempDir())
	if err != nil {
		return fmt.Errorf("it has no directory for what is temporary: %w", err)
	}
	return errors.Join(scratch.Close(), try(), shut(places))
}

// reach opens a place as the program will.
func reach(place Place) error {
	info, err := os.Stat(place.Path)
	if err != nil {
		return err
	}
	if !place.Write || !info.IsDir() {
		f, err := os.Open(place.Path)
		if err != nil {
			return err
		}
		if info.IsDir() && !place.Plain {
			_, err = f.Readdirnames(1)
		}
		if err == nil || errors.Is(err, io.EOF) {
			return f.Close()
		}
		return errors.Join(err, f.Close())
	}
	if _, err := durable.OnOneMedium(place.Path, place.Path); err != nil {
		return err
	}
	if err := durable.CheckRoom(place.Path, 0); err != nil {
		return err
	}
	probe := filepath.Join(place.Path, ".keyferry-trial")
	if err := durable.RemoveIfThere(probe); err != nil {
		return err
	}
	err = durable.NewDir(probe, 0o700, func(dir string) error {
		file := filepath.Join(dir, "file")
		return errors.Join(durable.Create(file, []byte("1"), 0o600), durable.Replace(file, []byte("2"), 0o644), durable.Append(file, 1, []byte("3"), 0o644))
	})
	return errors.Join(err, durable.RemoveIfThere(probe))
}

// shut tries what must not be open: the user's own directory.
func shut(places []Place) error {
	home, err := os.UserHomeDir()
	if err != nil || plain {
		return err
	}
	for _, place := range places {
		if strings.EqualFold(place.Path, home) {
			return nil // it is where the command works
		}
	}
	if _, err := os.ReadDir(home); err == nil {
		return fmt.Errorf("it shuts nothing: %s can be read in it", home)
	}
	return nil
}

// open is how an administrator opens a place to the container, unless it is a whole
// drive or share.
func open(place Place) string {
	if filepath.Dir(place.Path) == place.Path {
		return ""
	}
	rights := "RX"
	if place.Write {
		rights = "M"
	}
	return fmt.Sprintf(`; an administrator may open it: icacls "%s" /grant "*%s:(OI)(CI)(%s)"`, place.Path, SID(Name), rights)
}
