// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/fingerprint"
	"keyferry/test/aipservice"
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

// run runs the script on a terminal, and returns what that shows.
func (k *kitRun) run(t *testing.T, settings ...string) (shown string, code int) {
	t.Helper()
	return k.module.RunKit(k.dir, func(file string) (answer string) {
		if left := k.passwords[file]; len(left) > 0 {
			answer, k.passwords[file] = left[0], left[1:]
		}
		return answer
	}, settings...)
}

// TestKitRuns on the Windows machine, in full and in constrained language, from a
// folder of any name: a mistyped password is asked for again, what it did is not
// done twice, and its result and digest are taken back.
func TestKitRuns(t *testing.T) {
	const constrained = "JUDGE_LANGUAGE=ConstrainedLanguage"
	for _, settings := range [][]string{
		{"JUDGE_CULTURE=de-DE"}, {"JUDGE_CULTURE=ja-JP"}, {"JUDGE_CULTURE=tr-TR", constrained}, {"JUDGE_CULTURE=th-TH", constrained},
	} {
		t.Run(strings.Join(settings, " "), func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			k.module.Has("00000000-AAAA-BBBB-CCCC-000000000000", "Suspended", "Microsoft-managed", "the tenant's own \U0001f511 é")
			first := k.TPDs[0].File
			k.passwords[first] = append([]string{"mistyped"}, k.passwords[first]...)
			for run := range 2 {
				shown, code := k.run(t, settings...)
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
			if strings.Count(calls, "import ") != 3 || strings.Count(calls, "activate ") != 1 || strings.Count(calls, "disconnect") != 2 || strings.Count(calls, "keys\n") != 6 {
				t.Errorf("calls:\n%s", calls)
			}
			if full := !slices.Contains(settings, constrained); full && strings.Count(calls, "tls12 True") != 2 {
				t.Errorf("without TLS 1.2:\n%s", calls)
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
		bend     func(k *kitRun)
		says     string
		settings []string
	}{
		"a sign-out that fails hides nothing": {func(k *kitRun) {
			k.module.Order("import", "", "Failure to access Azure KeyVault.")
			k.module.Order("disconnect", "", "You must call the Connect-AipService cmdlet.")
		}, "FAILED: Failure to access Azure KeyVault.", nil},
		"three wrong passwords":   {func(k *kitRun) { k.passwords[k.TPDs[0].File] = []string{"a", "b", "c"} }, "FAILED: ", nil},
		"a PowerShell of 32 bits": {func(*kitRun) {}, `the one of 64 bits, C:\Windows\Sysnative\WindowsPowerShell\v1.0\powershell.exe`, []string{"PROCESSOR_ARCHITEW6432=AMD64", `SystemRoot=C:\Windows`}},
		"an old module": {func(k *kitRun) {
			k.module.Root = k.dir + " modules"
			k.module.Install(k.module.Root, "1.0.0.4")
		}, "The AIPService module is of version 1.0.0.4, not 3.0.0.1 or later", nil},
		"another TPD": {func(k *kitRun) {
			if err := os.WriteFile(filepath.Join(k.dir, k.TPDs[0].File), []byte("<x/>"), 0o600); err != nil {
				panic(err)
			}
		}, "is not the file that the kit was made with", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			test.bend(k)
			shown, code := k.run(t, test.settings...)
			if code == 0 || !strings.Contains(shown, test.says) || strings.Contains(shown, "Done.") {
				t.Errorf("it ended with %d:\n%s", code, shown)
			}
		})
	}
}

// TestKitNotFromAFile: pasted, or run in the ISE, the script says so and asks nothing
// of the tenant; a paste leaves the window open.
func TestKitNotFromAFile(t *testing.T) {
	for name, args := range map[string][]string{
		"pasted":     {"-NoProfile", "-Command", "-"},
		"in the ISE": {"-NoProfile", "-Command", "$global:psISE = 'the ISE'; & ./import-tpds.ps1; 'the window is still open'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			script := string(k.Script()[len("\ufeff"):]) + "\r\n'the window is still open'\r\n"
			cmd := exec.Command(k.module.Path(), args...)
			cmd.Dir, cmd.Stdin = k.dir, strings.NewReader(script)
			shown, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(shown), "FAILED: This script was pasted, or runs in the ISE. Save it") || !strings.Contains(string(shown), "the window is still open") {
				t.Errorf("%v\n%s", err, shown)
			}
			if calls := k.module.Calls(); calls != "" {
				t.Errorf("the tenant was asked:\n%s", calls)
			}
		})
	}
}

// TestKitByAClick: started by Explorer's Run with PowerShell, the script waits at its
// end, so that what it says can be read; started in a console it does not.
func TestKitByAClick(t *testing.T) {
	const byExplorer = "if((Get-ExecutionPolicy ) -ne 'AllSigned') { Set-ExecutionPolicy -Scope Process Bypass }; & './import-tpds.ps1'"
	for command, waits := range map[string]bool{byExplorer: true, "& './import-tpds.ps1'": false} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			k := newKitRun(t)
			if err := os.WriteFile(filepath.Join(k.dir, k.TPDs[0].File), []byte("<x/>"), 0o600); err != nil { // so that it ends early
				t.Fatal(err)
			}
			cmd := exec.Command(k.module.Path("JUDGE_PRELUDE=function global:Set-ExecutionPolicy { }"), "-NoProfile", "-Command", command)
			typed, person, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer typed.Close()
			var shown said
			cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = k.dir, typed, &shown, &shown
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { defer close(ended); cmd.Wait() }() // how it ended is no matter here
			const wait = "Press Enter to close this window"
			for i := 0; waits && i < 600 && !strings.Contains(shown.String(), wait); i++ {
				time.Sleep(50 * time.Millisecond)
			}
			if waits {
				select {
				case <-ended:
					t.Error("it did not wait")
				case <-time.After(500 * time.Millisecond):
				}
			}
			if _, err := person.WriteString("\n"); err != nil {
				t.Error(err)
			}
			person.Close()
			<-ended
			if got := shown.String(); !strings.Contains(got, "FAILED: ") || strings.Contains(got, wait) != waits {
				t.Errorf("it shows\n%s", got)
			}
		})
	}
}

// said is what a command has said so far.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}
