// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/fingerprint"
	"keyferry/test/aipservice"
	"keyferry/test/scripttest"
)

// kitRun is a kit on its Windows machine.
type kitRun struct {
	tenant.Kit
	module    *aipservice.Module
	dir       string
	passwords map[string][]string // by the TPD's file: what is typed, one after the other
}

func newKitRun(t *testing.T) *kitRun {
	t.Helper()
	m := aipservice.New(t, aipservice.Version)
	first, v := keylessOf(t, m)
	second, _ := managedOf(t, m)
	k := &kitRun{module: m, dir: filepath.Join(t.TempDir(), "it's [1] é"), Kit: tenant.Kit{Cloud: "public", Active: first.KeyIdentifier, TPDs: []tenant.KitTPD{
		{first.File, first.TPD, first.KeyIdentifier, false, first.KeyURL, first.FriendlyName, &v.Key.PublicKey},
		{second.File, second.TPD, second.KeyIdentifier, true, "", second.FriendlyName, nil},
	}}}
	k.passwords = map[string][]string{first.File: {string(first.Password)}, second.File: {string(second.Password)}}
	files, err := k.Files(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

var prompt = regexp.MustCompile(`(?:Password of|type that of) (\S+?\.xml)`)

// run runs the script on a terminal, and returns what that shows.
func (k *kitRun) run(t *testing.T, settings ...string) (shown string, code int) {
	t.Helper()
	person, terminal, err := scripttest.OpenTerminal()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	cmd := exec.CommandContext(t.Context(), k.module.Path(settings...), "-NoProfile", "-ExecutionPolicy", "RemoteSigned", "-File", filepath.Join(k.dir, tenant.KitScript))
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "TERM=dumb", "TMPDIR="+t.TempDir())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	hangs := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer hangs.Stop()
	// The terminal answers where its cursor is, each time that it is asked; a
	// password is typed once the script asks so behind its prompt, for only then
	// does it read without an echo.
	const whereIs, here = "\x1b[6n", "\x1b[1;1R"
	answered, typed := 0, 0
	for buf := make([]byte, 1024); ; {
		n, err := person.Read(buf)
		shown += string(buf[:n])
		for ; err == nil && answered < strings.Count(shown, whereIs); answered++ {
			_, err = person.WriteString(here)
		}
		asked := prompt.FindAllStringSubmatchIndex(shown, -1)
		if err == nil && len(asked) > typed && strings.Contains(shown[asked[typed][1]:], whereIs) {
			file := shown[asked[typed][2]:asked[typed][3]]
			answer, left := "", k.passwords[file]
			if len(left) > 0 {
				answer, k.passwords[file] = left[0], left[1:]
			}
			_, err = person.WriteString(answer + "\r")
			typed++
		}
		if err != nil { // EIO: nobody has the terminal open any more
			break
		}
	}
	exit := new(exec.ExitError)
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.ReplaceAll(shown, "\r", ""), cmd.ProcessState.ExitCode()
}

// TestKitRuns on the Windows machine, in full and in constrained language, from a
// folder of any name: a mistyped password is asked for again, what it did is not
// done twice, and its result and digest are taken back.
func TestKitRuns(t *testing.T) {
	for _, setting := range []string{"JUDGE_CULTURE=de-DE", "JUDGE_LANGUAGE=ConstrainedLanguage"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			k.module.Has("00000000-AAAA-BBBB-CCCC-000000000000", "Suspended", "Microsoft-managed", "the tenant's own \U0001f511 é")
			first := k.TPDs[0].File
			k.passwords[first] = append([]string{"mistyped"}, k.passwords[first]...)
			for run := range 2 {
				shown, code := k.run(t, setting)
				if code != 0 || !strings.Contains(shown, "Done.") || strings.Contains(shown, "mistyped\n") {
					t.Fatalf("run %d ended with %d:\n%s\n%s", run, code, shown, k.module.Calls())
				}
				data, err := os.ReadFile(filepath.Join(k.dir, tenant.ResultFile))
				if err != nil {
					t.Fatal(err)
				}
				if keys, err := k.Result(data); err != nil || len(keys) != 3 {
					t.Errorf("the result: %v, %v\n%s", keys, err, data)
				}
				if got := digestIn(t, shown); got != tenant.ResultDigest(data) {
					t.Errorf("it shows %s, the result has %s:\n%s", got, tenant.ResultDigest(data), shown)
				}
			}
			calls := k.module.Calls()
			if strings.Count(calls, "import ") != 3 || strings.Count(calls, "activate ") != 1 || strings.Count(calls, "disconnect") != 2 {
				t.Errorf("calls:\n%s", calls)
			}
			if got := k.module.Keys(); strings.Count(got, " Active ") != 1 || !strings.Contains(got, " Active Customer") {
				t.Error(got)
			}
		})
	}
}

// digestIn reads the digest that the script shows.
func digestIn(t *testing.T, shown string) fingerprint.Fingerprint {
	t.Helper()
	_, after, _ := strings.Cut(shown, "digest of the result")
	digits := ""
	for _, row := range regexp.MustCompile(`(?m)^ +\d+   ((?:[0-9a-f]{2} ){8})`).FindAllStringSubmatch(after, -1) {
		digits += strings.ReplaceAll(row[1], " ", "")
	}
	is, err := fingerprint.Parse(digits)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, shown)
	}
	return is
}

// TestKitInAFolderThatCantBeWritten: it is said before the sign-in, and the result
// is shown.
func TestKitInAFolderThatCantBeWritten(t *testing.T) {
	t.Parallel()
	k := newKitRun(t)
	if err := os.Mkdir(filepath.Join(k.dir, "keyferry-can-write.tmp"), 0o700); err != nil { // root may write anywhere else
		t.Fatal(err)
	}
	shown, code := k.run(t)
	warned, signIn := strings.Index(shown, "cannot be written"), strings.Index(shown, "window of the sign-in")
	if code != 0 || warned < 0 || signIn < warned {
		t.Fatalf("it ended with %d:\n%s", code, shown)
	}
	_, after, _ := strings.Cut(shown, "----------------\n")
	copied, _, _ := strings.Cut(after, "----------------")
	if _, err := k.Result([]byte(copied)); err != nil {
		t.Errorf("the result: %v\n%s", err, copied)
	}
	if got := digestIn(t, shown); got != tenant.ResultDigest([]byte(copied)) {
		t.Errorf("it shows %s, the copy has %s", got, tenant.ResultDigest([]byte(copied)))
	}
}

// TestKitStops where it can't do its work, with the cause.
func TestKitStops(t *testing.T) {
	for name, test := range map[string]struct {
		bend func(k *kitRun)
		says string
	}{
		"a sign-out that fails hides nothing": {func(k *kitRun) {
			k.module.Order("import", "", "Failure to access Azure KeyVault.")
			k.module.Order("disconnect", "", "You must call the Connect-AipService cmdlet.")
		}, "FAILED: Failure to access Azure KeyVault."},
		"three wrong passwords": {func(k *kitRun) { k.passwords[k.TPDs[0].File] = []string{"a", "b", "c"} }, "FAILED: "},
		"another TPD": {func(k *kitRun) {
			if err := os.WriteFile(filepath.Join(k.dir, k.TPDs[0].File), []byte("<x/>"), 0o600); err != nil {
				panic(err)
			}
		}, "is not the file that the kit was made with"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			test.bend(k)
			shown, code := k.run(t)
			if code == 0 || !strings.Contains(shown, test.says) || strings.Contains(shown, "Done.") {
				t.Errorf("it ended with %d:\n%s", code, shown)
			}
		})
	}
}
