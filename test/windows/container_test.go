// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// contained runs offline.exe of a build whose container is a plain process: Wine has no
// AppContainers. What the kernel of Windows shuts is not shown; how the program starts
// itself again, tries, tells and hands on is.
func (m *machine) contained(args ...string) *exec.Cmd {
	cmd := exec.Command(wine, append([]string{filepath.Join(m.bin, "contained.exe")}, args...)...)
	cmd.Dir = m.dir
	return cmd
}

// says wants a command of that build to end so.
func (m *machine) says(code int, says string, args ...string) string {
	m.Helper()
	got, said := m.finish(m.contained(args...))
	if got != code || !strings.Contains(said, says) {
		m.Fatalf("%q: exit code %d, want %d and %q:\n%s", args, got, code, says, said)
	}
	return said
}

// container is offline in a container, and where none can be had.
func (m *machine) container() {
	for _, tags := range []string{"", "plaincontainer"} {
		m.tests("offline/internal/sandbox/container", tags, "TestChange|TestTrialTells")
	}
	env := append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CC="+compiler)
	m.with(append(env, "CGO_ENABLED=1"), "go", "build", "-trimpath", "-tags", "netgo,osusergo,plaincontainer", "-o", filepath.Join(m.bin, "contained.exe"), "keyferry/offline")
	m.softHSM()

	// Exit codes, standard input and the console are those of the program inside.
	m.says(0, "AppContainer: keyferry.offline, without capabilities", "selftest")
	m.says(1, "[KF-TPD-", "inspect", "--protection-password-file", "pw", "bad.xml")
	m.says(3, "[KF-RUN-TERMINAL]", "inspect", "tpd.xml")
	cmd := m.contained("inspect", "--protection-password-fd", "0", "tpd.xml")
	cmd.Stdin = strings.NewReader("Passw0rd!\n")
	if code, said := m.finish(cmd); code != 0 || !strings.Contains(said, "can become an HSM key") {
		m.Errorf("with the password from standard input: %d\n%s", code, said)
	}
	if code, shown := m.at(m.contained("inspect", "tpd.xml"), keys{"password:", "Passw0rd!\r"}); code != 0 || !strings.Contains(shown, "can become an HSM key") || strings.Contains(shown, "Passw0rd!") {
		m.Errorf("with a typed password: %d\n%s", code, shown)
	}

	if code, shown := m.at(m.contained("inspect", "tpd.xml"), keys{"password:", ctrlC}); code != 4 || strings.Count(shown, "[KF-RUN-INTERRUPTED]") != 1 {
		m.Errorf("interrupted: %d\n%s", code, shown)
	}
	for _, says := range []string{`{"stage":"inside","told":[]}`, `{"told":[]}`, "1"} { // by somebody else
		env := m.env
		m.env = append(m.env, "KEYFERRY_INSIDE="+says)
		m.refused("offline.exe selftest", 3, "[KF-AIRGAP-SANDBOX]")
		m.env = env
	}

	// An import, and its record.
	m.done("mkdir kstick", "")
	m.listed("Next: ", "init", "--rehearsal", "--state", "K", "--hsm-module", module, "--out", "kstick")
	m.done("online init --rehearsal --state U", "")
	m.done("online kek create --state U --size 2048 --out kstick", "")
	m.listed("Pinned", "trust", "--state", "K", "--yes", "kstick/BYOK-SecurityWorld-pkg-NA-1")
	m.copy("../../testdata/vectors/tpd/contoso-no-templates.xml", "other.xml")
	imports := func(tpd, id string) []string {
		return []string{"import", "--state", "K", "--protection-password-file", "pw", "--exchange-key-package", "kstick/BYOK-KEK-pkg-NA-1", "--tpd-file-path", tpd, "--key-identifier", id}
	}
	if said := m.listed("", imports("tpd.xml", "contained")...); strings.Contains(said, "AppContainer") {
		m.Errorf("a container that holds is warned of:\n%s", said)
	}
	m.recorded(`"app_container":"keyferry.offline","loopback":false,"lacks":""`)
	m.listed("Sealed", "seal", "--state", "K", "--out", "kstick")
	m.listed("contained", "status", "--state", "K")
	if _, said := m.run("offline.exe status --state K"); strings.Contains(said, "AppContainer") {
		m.Errorf("a command without secrets warns of the sandbox:\n%s", said)
	}

	// Where there is none, one line says so, and the record.
	code, said := m.run("offline.exe " + strings.Join(imports("other.xml", "open"), " "))
	if code != 0 || strings.Count(said, "not to be had") != 1 || !strings.Contains(said, "AppContainer: not to be had: this Windows has no AppContainers") {
		m.Errorf("without a container: exit code %d\n%s", code, said)
	}
	m.recorded(`"app_container":"","loopback":false,"lacks":"this Windows has no AppContainers"`)

	// A module that does not work there does not stop what works without.
	m.dll("module", filepath.Join(m.dir, "module.dll"))
	m.says(3, "AppContainer: not to be had: the HSM's module does not reach its token in it: ", "doctor", "--hsm-module", "module.dll", "--hsm-token", "t", "--hsm-pin-file", "pw")

	if code, said := m.run("offline.exe doctor --state K --hsm-outside-sandbox"); code != 0 && !strings.Contains(said, "[KF-AIRGAP-CONNECTED]") || !strings.Contains(said, `outside of the sandbox`) {
		m.Errorf("doctor, outside of the sandbox: %d\n%s", code, said)
	}

	// With the broker ends the program inside.
	cmd = m.contained("inspect", "--protection-password-fd", "0", "tpd.xml", "pw") // waits for its password
	in, err := cmd.StdinPipe()
	m.must(err)
	cmd.Env = m.env
	m.must(cmd.Start())
	defer in.Close()
	running := func() int { return len(processes(m.T, "contained.exe", "--protection-password-fd")) }
	m.wait("the program starts itself again", func() bool { return running() == 2 })
	time.Sleep(time.Second) // the trial is over, or is not: either ends
	m.must(cmd.Process.Kill())
	cmd.Wait()
	m.wait("the program inside ends", func() bool { return running() == 0 })
}

// listed wants a command to end well, and to open nothing in the container but what was
// opened to it, and what is new: on Windows it could not. It returns what it said.
func (m *machine) listed(says string, args ...string) string {
	m.Helper()
	there := map[string]bool{}
	m.must(filepath.WalkDir(m.dir, func(path string, _ fs.DirEntry, err error) error {
		there[path] = true
		return err
	}))
	env := m.env
	m.env = append(m.env, "WINEDEBUG=+pid,+file")
	traced := m.says(0, says, args...)
	m.env = env
	const giving = "00160080" // READ_CONTROL, WRITE_DAC, and what each CreateFile adds
	opens := regexp.MustCompile(`^([0-9a-f]{4}):[0-9a-f]{4}:trace:file:NtCreateFile .*? access=([0-9a-f]{8}) name=L"\\\\\?\?\\\\Z:(.*?)"`)
	given, opened, broker, said := map[string]bool{}, map[string]string{}, "", ""
	for line := range strings.SplitSeq(traced, "\n") {
		if !strings.Contains(line, ":trace:") {
			said += line + "\n"
		}
		found := opens.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		path := filepath.Clean(strings.ReplaceAll(found[3], `\\`, "/"))
		if found[2] == giving {
			given[path], broker = true, found[1]
		} else if there[path] {
			opened[path] += found[1] + " "
		}
	}
	inside := 0
	for path, by := range opened {
		if strings.TrimSpace(strings.ReplaceAll(by, broker+" ", "")) == "" {
			continue
		}
		inside++
		if !given[path] {
			m.Errorf("%q opens %s, which was not opened to the container", args, path)
		}
	}
	if len(given) == 0 || inside == 0 {
		m.Errorf("%q: %d files were opened to the container, and %d in it: this looks at the wrong lines", args, len(given), inside)
	}
	return said
}

// recorded wants the last record of what a key was carried in to hold a text.
func (m *machine) recorded(text string) {
	m.Helper()
	ledger, err := os.ReadFile(filepath.Join(m.dir, "K", "ledger.jsonl"))
	m.must(err)
	last := ""
	for line := range strings.SplitSeq(string(ledger), "\n") {
		if strings.Contains(line, `"only_process"`) {
			last = line
		}
	}
	if !strings.Contains(last, text) {
		m.Errorf("not recorded: %s\n%s", text, last)
	}
}

func (m *machine) wait(what string, until func() bool) {
	m.Helper()
	for begun := time.Now(); !until(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > 20*time.Second {
			m.Fatalf("not within 20 s: %s", what)
		}
	}
}

// processes are the numbers of those whose command line holds the words.
func processes(t *testing.T, words ...string) (found []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		text, err := os.ReadFile(line)
		holds := err == nil
		for _, word := range words {
			holds = holds && strings.Contains(string(text), word)
		}
		if holds {
			found = append(found, filepath.Base(filepath.Dir(line)))
		}
	}
	return found
}
