// SPDX-License-Identifier: Apache-2.0

package module

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWrites(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	conf := func(path, dir string) string {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("# tokens\nlog.level = INFO\ndirectories.tokendir = "+dir+" \n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf(filepath.Join(home, ".config", "softhsm2", "softhsm2.conf"), "/of/the/user")
	named := conf(filepath.Join(home, "named.conf"), "/of/the/environment")
	for _, c := range []struct {
		module, parameters, conf string
		want                     []string
	}{
		{"/usr/lib/softhsm/libsofthsm2.so", "", "", []string{"/of/the/user"}},
		{"/usr/lib/softhsm/libsofthsm2.so", "", named, []string{"/of/the/environment"}},
		{"/usr/lib/softhsm/libsofthsm2.so", "", "/nonexistent", nil},
		{"/usr/lib/libsoftokn3.so", "configdir='sql:/nss db' certPrefix=''", "", []string{"/nss db"}},
		{"/usr/lib/libsoftokn3.so", "flags= configdir=sql:/nss certPrefix=''", "", []string{"/nss"}},
		{"/usr/lib/libsoftokn3.so", "", "", nil},
		{"/opt/nfast/toolkits/pkcs11/libcknfast.so", "", "", nil},
		{"", "", "", nil},
	} {
		t.Setenv("SOFTHSM2_CONF", c.conf)
		if got := Writes(c.module, c.parameters); !slices.Equal(got, c.want) {
			t.Errorf("Writes(%q, %q) with %q: %q, want %q", c.module, c.parameters, c.conf, got, c.want)
		}
	}
	if got := Writes("/usr/lib/opencryptoki/libopencryptoki.so", ""); !slices.Contains(got, "/var/lib/opencryptoki") {
		t.Errorf("opencryptoki: %q", got)
	}
}
