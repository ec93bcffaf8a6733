// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/test/testbin"
)

// Where things are on the Windows machine. The stick is E:.
const (
	module  = `C:\Müllers HSM\softhsm2-x64.dll`
	offline = `C:\Büro 1\offline`
	online  = `C:\Büro 1\online`
)

// unix is where a path of the Windows machine is.
func (m *machine) unix(path string) string {
	return filepath.Join(m.bin, "prefix", "drive_c", filepath.FromSlash(strings.ReplaceAll(strings.TrimPrefix(path, "C:"), `\`, "/")))
}

func (m *machine) stick() string { return filepath.Join(m.dir, "Stick für E") }

// on runs a program of the Windows machine with E:\ as the current directory.
func (m *machine) on(program string, args ...string) (int, string) {
	m.Helper()
	cmd := exec.Command(wine, append([]string{program}, args...)...)
	cmd.Dir = m.stick()
	return m.finish(cmd)
}

// does wants a command to end with 0 and to say something.
func (m *machine) does(says, program string, args ...string) {
	m.Helper()
	m.ends(0, says, program, args...)
}

func (m *machine) ends(code int, says, program string, args ...string) {
	m.Helper()
	if got, said := m.on(program, args...); got != code || !strings.Contains(said, says) {
		m.Fatalf("%s %q: exit code %d, want %d and %q:\n%s", program, args, got, code, says, said)
	}
}

// softHSM puts SoftHSM's DLL, which was built before, into its place.
func (m *machine) softHSM() {
	m.Helper()
	path, err := exec.Command("./softhsm-dll", "--cached").Output()
	if err != nil {
		m.Skip("NOT SHOWN: the ceremony on Windows with a PKCS#11 module: run test/windows/softhsm-dll first, which builds one")
	}
	data, err := os.ReadFile(strings.TrimSpace(string(path)))
	m.must(err)
	m.must(os.MkdirAll(filepath.Dir(m.unix(module)), 0o700))
	m.must(os.WriteFile(m.unix(module), data, 0o600))
}

// insert makes E:, with what an attacker may have put on the stick: the tables of
// a machine with a network, and DLLs with names that are looked for.
func (m *machine) insert() {
	m.Helper()
	m.must(os.MkdirAll(filepath.Join(m.stick(), "proc", "self", "net"), 0o700))
	m.must(os.Symlink(m.stick(), filepath.Join(m.bin, "prefix", "dosdevices", "e:")))
	m.must(os.WriteFile(filepath.Join(m.stick(), "proc", "self", "net", "dev"), []byte("\n\nplanted0: 1\n"), 0o600))
	m.dll("dependency", filepath.Join(m.stick(), "dependency.dll"), "-DPLANTED")
	for _, name := range []string{"version.dll", "wlanapi.dll", "bthprops.cpl", "iphlpapi.dll", "userenv.dll", "cryptbase.dll"} {
		data, err := os.ReadFile(filepath.Join(m.stick(), "dependency.dll"))
		m.must(err)
		m.must(os.WriteFile(filepath.Join(m.stick(), name), data, 0o600))
	}
	for _, name := range []string{"pw", "tpd.xml"} {
		data, err := os.ReadFile(filepath.Join(m.dir, name))
		m.must(err)
		m.must(os.WriteFile(filepath.Join(m.stick(), name), data, 0o600))
	}
	m.must(os.MkdirAll(filepath.Dir(m.unix(offline)), 0o700))
	for _, name := range []string{"offline.exe", "online.exe"} {
		m.must(os.Rename(filepath.Join(m.bin, name), m.unix(`C:\Büro 1\`+name)))
	}
}

// loader tries what a module needs itself: nothing is taken from the current
// directory, and what the vendor has elsewhere can be named.
func (m *machine) loader() {
	m.must(os.MkdirAll(m.unix(`C:\vendor\bin`), 0o700))
	m.dll("dependency", m.unix(`C:\vendor\bin\dependency.dll`))
	m.dll("needs", m.unix(`C:\vendor\needs.dll`), m.unix(`C:\vendor\bin\dependency.dll`))
	init := []string{"init", "--state", offline, "--hsm-token", "t", "--hsm-pin-file", "pw"}
	m.ends(3, "Windows says error 126", offline+".exe", append(init, "--hsm-module", `C:\vendor\needs.dll`)...)
	m.ends(3, "CKR_DEVICE_ERROR", offline+".exe", append(init, "--hsm-module", `C:\vendor\needs.dll`, "--hsm-dll-dir", `C:\vendor\bin`)...)
	m.must(os.WriteFile(m.unix(`C:\vendor\old.dll`), []byte("MZ"+strings.Repeat("\x00", 58)+"\x40\x00\x00\x00PE\x00\x00\x4c\x01"), 0o600))
	m.ends(3, "programs of 32 bits", offline+".exe", append(init, "--hsm-module", `C:\vendor\old.dll`)...)
	m.ends(2, "no drive or share", offline+".exe", "init", "--rehearsal", "--state", `Q:\state`, "--hsm-module", module)
}

// ceremony is the whole one, both sides, from E:\, with blanks and umlauts in every
// path, while a scanner holds what is new on the stick.
func (m *machine) ceremony() {
	m.softHSM()
	m.insert()
	t := m.T
	t.Run("loader", func(t *testing.T) { m.T = t; m.loader() })
	m.T = t

	m.local(compiler, "-municode", "-o", m.unix(`C:\scanner.exe`), filepath.Join("testdata", "scanner.c"))
	scanner := exec.Command(wine, `C:\scanner.exe`, `E:\`, "600")
	held, err := os.Create(filepath.Join(m.bin, "held"))
	m.must(err)
	scanner.Env, scanner.Stdout = m.env, held
	m.must(scanner.Start())
	defer scanner.Wait()
	defer scanner.Process.Kill()

	off := func(says string, args ...string) {
		m.Helper()
		m.does(says, offline+".exe", append(args, "--state", offline)...)
	}
	on := func(says string, args ...string) {
		m.Helper()
		m.does(says, online+".exe", append(args, "--state", online)...)
	}
	off("Next: ", "init", "--rehearsal", "--hsm-module", module, "--out", `E:\`)
	on("Next: ", "init", "--rehearsal")
	on("import only", "kek", "create", "--size", "2048", "--out", `E:\`)
	on("Pinned", "trust", "--yes", "offline-card-offline.json")
	off("Pinned", "trust", "--yes", "BYOK-SecurityWorld-pkg-NA-1")
	off("", "import", "--dry-run", "--tpd-file-path", "tpd.xml", "--key-identifier", "contoso-slc", "--protection-password-file", "pw", "--exchange-key-package", "BYOK-KEK-pkg-NA-1")
	// The seed's own command line, as cmd passes it on.
	m.env = append(m.env, "KEYFERRY_STATE="+offline)
	m.does("contoso-slc", "cmd", "/c", offline+".exe", "-ImportRmsCentrallyManagedKey", "-TpdFilePath", "tpd.xml", "-ProtectionPassword", "Passw0rd!", "-KeyIdentifier", "contoso-slc",
		"-ExchangeKeyPackage", "BYOK-KEK-pkg-NA-1", "-NewSecurityWorldPackage", "BYOK-SecurityWorld-pkg-NA-1")
	off("Sealed", "seal", "--out", `E:\`)
	const bundle = "keyferry-offline-1.kfb"
	on("Every check holds", "verify", bundle)
	on("", "upload", "--active", "contoso-slc", "--protection-password-file", "pw", bundle)
	on("Receipt: ", "receipt", "--out", `E:\`, bundle)
	off("", "receipt", "keyferry-online-1.kfb")
	off("contoso-slc", "status")
	off("", "transcript", "verify")
	if found, err := filepath.Glob(filepath.Join(m.stick(), ".*.part")); err != nil || len(found) > 0 {
		m.Errorf("left on the stick: %q, %v", found, err)
	}
	if text, err := os.ReadFile(held.Name()); err != nil || !strings.Contains(string(text), ".keyferry-offline-1.kfb.part") {
		m.Errorf("the scanner has held only %q, %v", text, err)
	}
	testbin.NeedAlone(m.T)
	m.env = append(m.env, "WINEDEBUG=+file")
	code, said := m.on(offline+".exe", "doctor", "--state", offline)
	if code != 0 || !strings.Contains(said, "nothing connects this machine now") {
		m.Errorf("doctor, without a network: exit code %d", code)
	}
	for line := range strings.SplitSeq(said, "\n") {
		if strings.Contains(line, `L"\\proc`) || strings.Contains(line, `L"proc`) || strings.Contains(line, `L"\\sys\\`) || strings.Contains(line, "planted") {
			m.Errorf("a path relative to the drive: %s", line)
		}
	}
}
