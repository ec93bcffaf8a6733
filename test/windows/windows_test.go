// SPDX-License-Identifier: Apache-2.0

// Package windows builds the Windows binaries as a release does, starts them in
// Wine, and plays a ceremony with them: the connected side's part beside the Linux
// binary of the other one, and both sides with a SoftHSM that softhsm-dll builds for
// Windows.
//
// Wine is not Windows. That the system calls are the right ones is shown here;
// that NTFS keeps its promises, and that a vendor's module loads, is not.
package windows

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/test/testbin"
)

func TestMain(m *testing.M) {
	code := testbin.MainAlone(m)
	if installed != "" {
		end := exec.Command(wineserver, "-k") // of this prefix alone
		end.Env = append(os.Environ(), "WINEPREFIX="+filepath.Join(installed, "prefix"))
		end.Run() // nothing may run any more
		os.RemoveAll(installed)
	}
	os.Exit(code)
}

// Where Debian puts what these tests need.
const (
	wine       = "/usr/lib/wine/wine64"
	wineserver = "/usr/lib/wine/wineserver64"
	compiler   = "x86_64-w64-mingw32-gcc"
)

// installed is where the one Windows of all tests is, in prefix, with both programs
// beside it; empty before the first test that wants it.
var installed string

// machine is that Windows, and a directory for one ceremony.
type machine struct {
	*testing.T
	bin, dir string
	env      []string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	for _, program := range []string{wine, wineserver, compiler} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (Debian: wine64, gcc-mingw-w64-x86-64-win32)", program)
		}
	}
	m := &machine{T: t, bin: installed, dir: t.TempDir()}
	if installed == "" {
		var err error
		m.bin, err = os.MkdirTemp("", "keyferry-windows-*")
		m.must(err)
	}
	prefix := filepath.Join(m.bin, "prefix")
	m.env = append(os.Environ(), "WINEPREFIX="+prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml=", "HOME="+m.bin, "LANG=C.UTF-8")
	if installed == "" {
		installed = m.bin
		m.build("offline", "1")
		m.build("online", "0")
		m.local(wine, "wineboot", "--init")
		m.dll("bcryptprimitives", filepath.Join(prefix, "drive_c", "windows", "system32", "bcryptprimitives.dll"))
	}
	m.copy("../../testdata/vectors/tpd/contoso-mode2.xml", "tpd.xml")
	m.copy("../../testdata/vectors/tpd/bad-truncated-blob.xml", "bad.xml")
	m.write("pw", "Passw0rd!\r\n")
	return m
}

// local runs a program of this machine.
func (m *machine) local(name string, args ...string) {
	m.Helper()
	m.with(m.env, name, args...)
}

func (m *machine) with(env []string, name string, args ...string) {
	m.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil && name != wineserver {
		m.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// build builds a binary as scripts/build does.
func (m *machine) build(name, cgo string) {
	m.Helper()
	env := append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CC="+compiler, "CGO_ENABLED="+cgo)
	m.with(env, "go", "build", "-trimpath", "-tags", "netgo,osusergo", "-o", filepath.Join(m.bin, name+".exe"), "keyferry/"+name)
}

// dll compiles a DLL of testdata.
func (m *machine) dll(name, to string, more ...string) {
	m.Helper()
	m.local(compiler, append([]string{"-shared", "-o", to, filepath.Join("testdata", name+".c"), "-ladvapi32"}, more...)...)
}

func (m *machine) copy(from, to string) {
	m.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		m.Fatal(err)
	}
	m.write(to, string(data))
}

func (m *machine) write(name, content string) {
	m.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(content), 0o600); err != nil {
		m.Fatal(err)
	}
}

// run runs a command line, whose program is the Windows one if it ends in .exe,
// and returns its exit code and all that it said.
func (m *machine) run(line string) (int, string) {
	m.Helper()
	words := strings.Fields(line)
	if strings.HasSuffix(words[0], ".exe") {
		words = append([]string{wine, filepath.Join(m.bin, words[0])}, words[1:]...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = m.dir
	return m.finish(cmd)
}

// finish runs a command, and returns its exit code and all that it said. That goes
// to a file: a pipe would stay open as long as the services that Wine starts.
func (m *machine) finish(cmd *exec.Cmd) (int, string) {
	m.Helper()
	said, err := os.Create(filepath.Join(m.bin, "said"))
	m.must(err)
	cmd.Env, cmd.Stdout, cmd.Stderr = m.env, said, said
	if err := errors.Join(cmd.Run(), said.Close()); cmd.ProcessState == nil {
		m.Fatal(err)
	}
	text, err := os.ReadFile(said.Name())
	m.must(err)
	return cmd.ProcessState.ExitCode(), string(text)
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// done wants a command line to succeed and to say something.
func (m *machine) done(line, says string) {
	m.Helper()
	if code, said := m.run(line); code != 0 || !strings.Contains(said, says) {
		m.Fatalf("%s: exit code %d, and not %q:\n%s", line, code, says, said)
	}
}

// refused wants a command line to be refused by a control.
func (m *machine) refused(line string, code int, says string) {
	m.Helper()
	if got, said := m.run(line); got != code || !strings.Contains(said, says) {
		m.Errorf("%s: exit code %d, want %d and %q:\n%s", line, got, code, says, said)
	}
}

func TestWindows(t *testing.T) {
	m := newMachine(t)
	t.Run("files", func(t *testing.T) { m.T = t; m.tests("pkg/durable", "", ".") })
	t.Run("offline", func(t *testing.T) { m.T = t; m.offline() })
	t.Run("online", func(t *testing.T) { m.T = t; m.online() })
	t.Run("container", func(t *testing.T) { m.T = t; m.container() })
	t.Run("ceremony", func(t *testing.T) { m.T = t; m.ceremony() })
}

// tests runs a package's own tests, as they are built for Windows.
func (m *machine) tests(pkg, tags, run string) {
	m.Helper()
	program := filepath.Join(m.bin, filepath.Base(pkg)+tags+".test.exe")
	env := append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	m.with(env, "go", "test", "-c", "-tags", tags, "-o", program, "keyferry/"+pkg)
	cmd := exec.Command(wine, program, "-test.run", run)
	cmd.Dir = m.dir
	if code, said := m.finish(cmd); code != 0 {
		m.Errorf("the tests of %s: exit code %d\n%s", pkg, code, said)
	}
}

// offline reads exports, and loads a module; this one fails, by its own code.
func (m *machine) offline() {
	m.done("offline.exe --version", "keyferry offline")
	for _, help := range []string{"offline.exe help flags", "online.exe help flags", "offline.exe help doctor", "offline.exe seal --help", "online.exe kek create --help"} {
		if code, said := m.run(help); code != 0 || strings.Contains(said, "/media") || strings.Contains(said, "XDG") || strings.Contains(said, "/usr/") {
			m.Errorf("%s: exit code %d\n%s", help, code, said)
		}
	}
	m.done("offline.exe inspect --protection-password-file pw tpd.xml", "can become an HSM key")
	m.refused("offline.exe inspect --protection-password-file pw bad.xml", 1, "[KF-TPD-")
	m.refused("offline.exe inspect tpd.xml", 3, "[KF-RUN-TERMINAL]")
	m.dll("module", filepath.Join(m.dir, "module.dll"))
	m.refused("offline.exe init --state W --hsm-module module.dll --hsm-token t --hsm-pin-file pw", 3, "CKR_DEVICE_ERROR [KF-HSM-MODULE]")
	m.refused("offline.exe init --state W --hsm-module pw --hsm-token t --hsm-pin-file pw", 3, "can't be loaded: ")
	m.refused("offline.exe status --state W", 3, "[KF-STATE-MISSING]")
	if found, err := filepath.Glob(filepath.Join(m.dir, "*W*")); err != nil || len(found) > 0 {
		m.Errorf("a failed init has left %q, %v", found, err)
	}
	m.refused(`online.exe init --rehearsal --state Q:\nowhere\T`, 2, "no drive or share")
}

// online plays its part of the ceremony, and refuses what it has to.
func (m *machine) online() {
	m.done("mkdir stick", "")
	m.done("offline init --rehearsal --state S --out stick", "")
	m.done("online.exe init --rehearsal --state T", "Next: online kek create")
	m.refused("online.exe init --rehearsal --state T", 1, "[KF-STATE-EXISTS]")
	m.done("online.exe kek create --state T --size 2048 --out stick", "import only")
	m.done("online.exe trust --state T --yes stick/offline-card-offline.json", "Pinned")
	m.done("offline trust --state S --yes stick/BYOK-SecurityWorld-pkg-NA-1", "Pinned")
	m.done("offline import --state S --tpd-file-path tpd.xml --key-identifier contoso-slc --protection-password-file pw"+
		" --exchange-key-package stick/BYOK-KEK-pkg-NA-1 --out stick", "Sealed")
	const bundle = "stick/keyferry-offline-1.kfb"
	m.done("online.exe verify --state T "+bundle, "Every check holds")
	m.refused("online.exe verify --state T tpd.xml", 1, "[KF-BUNDLE-FORMAT]")
	m.done("online.exe package --state T --out transfer "+bundle, "KeyTransferPackage-contoso-slc.byok")
	m.refused("online.exe package --state T --out transfer "+bundle, 1, "[KF-RUN-OUTPUT-EXISTS]")
	m.done("online.exe upload --state T --active contoso-slc --protection-password-file pw "+bundle, "")
	m.done("online.exe receipt --state T --out stick "+bundle, "Receipt: ")
	m.done("offline receipt --state S stick/keyferry-online-1.kfb", "")
	m.done("online.exe status --state T", "contoso-slc")
	if found, err := filepath.Glob(filepath.Join(m.dir, "*", ".*.part")); err != nil || len(found) > 0 {
		m.Errorf("left behind: %q, %v", found, err)
	}
}
