// SPDX-License-Identifier: Apache-2.0

package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// What is named in an access list is in it; what is taken out leaves the list as it
// was, its order, what it inherits, and its protection. The lists are those of
// events: Wine keeps none of files.
func TestChange(t *testing.T) {
	sid, err := windows.StringToSid(SID(Name))
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{sid: sid}
	const read, modify = "0x1200a9", "0x1301bf"
	for was, c := range map[string]struct {
		write bool
		entry string // empty: nothing is changed
	}{
		"D:P(A;;GA;;;SY)":                            {false, read},
		"D:P(D;;GA;;;AN)(A;;GA;;;SY)":                {true, modify},
		"D:(A;;GA;;;SY)":                             {true, modify},
		"D:AI(A;ID;GA;;;SY)":                         {true, modify},
		"D:P(A;;" + read + ";;;AC)":                  {false, ""},
		"D:P(A;;" + read + ";;;" + SID(Name) + ")":   {true, modify},
		"D:P(A;;" + modify + ";;;" + SID(Name) + ")": {false, ""},
	} {
		descriptor, err := windows.SecurityDescriptorFromString(was)
		if err != nil {
			t.Fatal(err)
		}
		attributes := windows.SecurityAttributes{SecurityDescriptor: descriptor}
		attributes.Length = uint32(unsafe.Sizeof(attributes))
		event, err := windows.CreateEvent(&attributes, 0, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		now := func() string {
			is, err := windows.GetSecurityInfo(event, windows.SE_KERNEL_OBJECT, windows.DACL_SECURITY_INFORMATION)
			if err != nil {
				t.Fatal(err)
			}
			return is.String()
		}
		before := now()
		changed, err := b.change(event, windows.SE_KERNEL_OBJECT, windows.NO_INHERITANCE, c.write, true)
		if err != nil || changed != (c.entry != "") {
			t.Errorf("%s: changed %t, %v", was, changed, err)
		}
		if !changed {
			continue
		}
		entry := "(A;;" + c.entry + ";;;" + SID(Name) + ")"
		if got := now(); !strings.Contains(got, entry) {
			t.Errorf("%s became %s, without %s", was, got, entry)
		}
		if again, err := b.change(event, windows.SE_KERNEL_OBJECT, windows.NO_INHERITANCE, c.write, true); again || err != nil {
			t.Errorf("%s: named twice, %v", was, err)
		}
		if strings.Contains(before, SID(Name)) {
			continue // which is more than was there
		}
		if changed, err := b.change(event, windows.SE_KERNEL_OBJECT, windows.NO_INHERITANCE, c.write, false); !changed || err != nil {
			t.Errorf("%s: taken out: %t, %v", was, changed, err)
		}
		if got := strings.Replace(now(), "D:AR", "D:", 1); got != before { // a request, that Wine does not clear
			t.Errorf("%s became %s, was %s", was, got, before)
		}
	}
}

// A trial tells which place it can't reach, and how it may be opened.
func TestTrialTells(t *testing.T) {
	if !plain { // what the program may do outside of a container
		if err := Is(); err == nil || !strings.Contains(err.Error(), "no container") {
			t.Errorf("it takes itself for contained: %v", err)
		}
		return
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	told = message{Directory: dir}
	place := Place{Path: filepath.Join(dir, "trial"), Write: true}
	well := func() error { return nil }
	if err := trial([]Place{place}, well); err == nil || !strings.Contains(err.Error(), "icacls") || !strings.Contains(err.Error(), place.Path) {
		t.Errorf("got %v", err)
	}
	if says := open(Place{Path: `C:\`}); says != "" {
		t.Errorf("a whole drive is to be opened: %s", says)
	}
	if err := os.Mkdir(place.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(place.Path)
	if err := trial([]Place{place}, well); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(place.Path); err != nil || len(entries) > 0 {
		t.Errorf("the trial has left %v, %v", entries, err)
	}
	if err := trial([]Place{place}, func() error { return os.ErrPermission }); err == nil {
		t.Error("a module that does not work is taken for one that does")
	}
	told.Console = true
	if err := trial(nil, well); (err == nil) != (console() == nil) {
		t.Errorf("console: %v", err)
	}
	told = message{Directory: dir + "elsewhere"}
	if err := trial([]Place{place}, well); err == nil {
		t.Error("another directory is taken for the right one")
	}
}
