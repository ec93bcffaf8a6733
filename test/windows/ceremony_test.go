// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	code, said := m.finish(cmd)
	m.trace(said)
	return code, regexp.MustCompile(`(?m)^[0-9a-f]{4}:(trace|warn|fixme|err):.*\n`).ReplaceAllString(said, "")
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
	drive := filepath.Join(m.bin, "prefix", "dosdevices", "e:")
	m.must(os.RemoveAll(drive))
	m.must(os.Symlink(m.stick(), drive))
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
	m.must(os.MkdirAll(m.unix(offline), 0o755)) // a state directory that is there, and open
	for _, name := range []string{"offline.exe", "online.exe"} {
		m.must(os.Link(filepath.Join(m.bin, name), m.unix(`C:\Büro 1\`+name)))
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
	// What a module opens without a drive, such as OpenSSL's configuration, is not the stick's.
	m.must(os.WriteFile(filepath.Join(m.stick(), "module.cnf"), nil, 0o600))
	m.dll("module", m.unix(`C:\vendor\reads.dll`))
	m.ends(3, "CKR_DEVICE_ERROR", offline+".exe", append(init, "--hsm-module", `C:\vendor\reads.dll`)...)
	m.must(os.WriteFile(m.unix(`C:\module.cnf`), nil, 0o600))
	m.ends(3, "CKR_GENERAL_ERROR", offline+".exe", append(init, "--hsm-module", `C:\vendor\reads.dll`)...)
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
	m.env = append(m.env, "WINEDEBUG=+file")
	off("Next: ", "init", "--rehearsal", "--hsm-module", module, "--out", `E:\`)
	on("Next: ", "init", "--rehearsal")
	on("import only", "kek", "create", "--size", "2048", "--out", `E:\`)
	on("Pinned", "trust", "--yes", "offline-card-offline.json")
	const world = "BYOK-SecurityWorld-pkg-NA-1"
	m.answers(world)
	off("", "import", "--dry-run", "--tpd-file-path", "tpd.xml", "--key-identifier", "contoso-slc", "--protection-password-file", "pw", "--exchange-key-package", "BYOK-KEK-pkg-NA-1")
	// The seed's own command lines, as cmd passes them on, with the password typed.
	m.env = append(m.env, "KEYFERRY_STATE="+offline)
	m.types("Staged in the outbox", offline+".exe", "-ImportRmsCentrallyManagedKey", "-TpdFilePath", "tpd.xml", "-ProtectionPassword", "-KeyIdentifier", "contoso-slc",
		"-ExchangeKeyPackage", "BYOK-KEK-pkg-NA-1", "-NewSecurityWorldPackage", world)
	m.paths()
	off("Sealed", "seal", "--out", `E:\`)
	const bundle = "keyferry-offline-1.kfb"
	on("Every check holds", "verify", bundle)
	on("", "package", "--out", "transfer", bundle)
	m.env = append(m.env, "KEYFERRY_STATE="+online)
	m.types("active in the tenant", online+".exe", "-ImportAadrmTpd", "-TpdFile", `E:\transfer\no_key_tpd_contoso-slc.xml`, "-ProtectionPassword", "-HsmKeyFile", `transfer\KeyTransferPackage-contoso-slc.byok`, "-Active", "$true", "-Verbose")
	on("nothing was changed", "upload", "--active", "contoso-slc", "--protection-password-file", "pw", bundle)
	on("Receipt: ", "receipt", "--out", `E:\`, bundle)
	off("", "receipt", "keyferry-online-1.kfb")
	off("contoso-slc", "status")
	off("", "transcript", "verify")
	off("", "transcript", "--sheet", "text", "--out", "Bögen.txt")
	if text, err := os.ReadFile(filepath.Join(m.stick(), "Bögen.txt")); err != nil || !strings.HasPrefix(string(text), "\ufeff") || !strings.Contains(string(text), "contoso-slc") {
		m.Errorf("the sheet is %.100q, %v", text, err)
	}
	if found, err := filepath.Glob(filepath.Join(m.stick(), ".*.part")); err != nil || len(found) > 0 {
		m.Errorf("left on the stick: %q, %v", found, err)
	}
	if text, err := os.ReadFile(held.Name()); err != nil || !strings.Contains(string(text), ".keyferry-offline-1.kfb.part") {
		m.Errorf("the scanner has held only %q, %v", text, err)
	}
	for _, state := range []string{offline, online} {
		m.closed(m.unix(state), "token/tokens/", ".lock", "offline-card-offline.json", "security-world")
	}
	m.closed(filepath.Join(m.stick(), "transfer"))
	testbin.NeedAlone(m.T)
	if code, said := m.on(offline+".exe", "doctor", "--state", offline); code != 0 || !strings.Contains(said, "nothing connects this machine now") {
		m.Errorf("doctor, without a network: exit code %d", code)
	}
}

// answers has a person type the words of a fingerprint in a spoilt console: some that
// are none, Ctrl-C, and then the whole of it.
func (m *machine) answers(world string) {
	m.Helper()
	line := `"` + offline + `.exe" trust ` + world + ` --state "` + offline + `"`
	const asks = "as the other side reads them aloud:"
	told, shown := m.careless("type", m.stick(), line, keys{asks, "a b c\r"}, keys{asks, ctrlC})
	if told != "it asks and shows\nit ended with 4, the console is as it was\n" {
		m.Errorf("%s%s", told, shown)
	}
	data, err := os.ReadFile(filepath.Join(m.stick(), world))
	m.must(err)
	told, shown = m.careless("type", m.stick(), line, keys{asks, fmt.Sprintf("SHA256:%x\r", sha256.Sum256(data))})
	if told != "it asks and shows\nit ended with 0, the console is as it was\n" || !strings.Contains(shown, "Pinned") {
		m.Errorf("%s%s", told, shown)
	}
}

// types runs a command by cmd, and types the password that it asks for.
func (m *machine) types(says, program string, args ...string) {
	m.Helper()
	cmd := exec.Command(wine, append([]string{"cmd", "/c", program}, args...)...)
	cmd.Dir = m.stick()
	code, shown := m.at(cmd, keys{"protection password:", "Passw0rd!\r"})
	if code != 0 || !strings.Contains(shown, says) || strings.Contains(shown, "Passw0rd") {
		m.Fatalf("%q: exit code %d\n%s", args, code, shown)
	}
}

// paths: what no file of Windows is called is refused at once. That a backslash
// before a quote makes it a part of the path, cmd shows.
func (m *machine) paths() {
	m.Helper()
	m.must(os.WriteFile(filepath.Join(m.stick(), "sheet.cmd"), []byte(`@"%KEYFERRY_STATE%.exe" transcript --out "E:\USB DISK\" --sheet text`+"\r\n"), 0o600))
	m.ends(2, `"E:\USB DISK" or "E:\USB DISK\\"`, "cmd", "/c", "sheet.cmd")
	for _, device := range []string{"nul", `E:\aux.txt`, "COM1"} {
		m.ends(2, "Windows takes that for a device", offline+".exe", "transcript", "--state", offline, "--out", device)
	}
	m.ends(2, "Path not found", offline+".exe", "transcript", "--state", offline, "--out", `\\nowhere\share\x.txt`)
	deep := `C:\` + strings.Repeat(`a folder with a long name\`, 12)
	m.must(os.MkdirAll(m.unix(deep), 0o700))
	m.does("", offline+".exe", "transcript", "--state", offline, "--out", deep+"x.txt")
}

// closed wants all in a directory to be its owner's alone: Wine makes the mode of the
// access list that a file has itself. Some of it is nobody's secret, or a module's.
func (m *machine) closed(dir string, but ...string) {
	m.Helper()
	m.must(filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || slices.ContainsFunc(but, func(part string) bool { return strings.Contains(path+"/", part) }) {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Mode().Perm()&0o007 != 0 {
			m.Errorf("%s can be read by all: %v, %v", path, info.Mode(), err)
		}
		return nil
	}))
}

// opened finds the paths that a program hands to Windows to open or look at.
var opened = regexp.MustCompile(`trace:file:(?:CreateFileW|GetFileAttributesExW|GetFileAttributesW|FindFirstFileExW|LoadLibraryExW) L"([^"]*)"`)

// trace wants each to be whole, from a drive on, or one that the command line names. The
// configuration is of the OpenSSL in SoftHSM; see loader.
func (m *machine) trace(said string) {
	m.Helper()
	named := []string{"pw", "tpd.xml", "offline-card-", ".offline-card-", "BYOK-", "keyferry-", "transfer", "B\\00f6gen.txt", ".B\\00f6gen.txt", "sheet.cmd", "/usr/local/ssl/openssl.cnf"}
	for _, found := range opened.FindAllStringSubmatch(said, -1) {
		path := strings.ReplaceAll(found[1], `\\`, `\`)
		whole := regexp.MustCompile(`^([A-Za-z]:|\\|\\\?\?)\\|^CON(IN|OUT)\$$|^\.$`).MatchString(path)
		if !whole && !slices.ContainsFunc(named, func(name string) bool { return strings.HasPrefix(path, name) }) {
			m.Errorf("a path relative to the drive: %s", found[0])
		}
	}
}
