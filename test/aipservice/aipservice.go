// SPDX-License-Identifier: Apache-2.0

// Package aipservice is test support: a stand-in for Microsoft's AIPService
// module, compiled by the PowerShell that is to load it. Its source says how it
// answers and what can be ordered of it.
package aipservice

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"keyferry/test/judges"
)

// Version is that of the stand-in, unless a test says another.
const Version = "3.0.0.1"

// Module is a folder of modules with the stand-in in it.
type Module struct {
	t          testing.TB
	PowerShell string // that it was compiled by
	Root       string // of the modules
	dir        string // of the stand-in
}

// AnyKeyURL stands for a URL that is not known before: any but none will do.
const AnyKeyURL = "any"

// TPD is one that the stand-in's tenant can open.
type TPD struct {
	File      []byte
	GUID      string
	Password  string
	PublicKey []byte // PKIX DER
	KeyURL    string // empty: it carries its key
}

// New makes a folder of modules with the stand-in in that version. It skips the
// test where no PowerShell is.
func New(t testing.TB, version string) *Module {
	t.Helper()
	m := &Module{t: t, PowerShell: judges.PowerShell(t), Root: t.TempDir()}
	m.dir = m.Install(m.Root, version)
	return m
}

// Install puts the stand-in below another folder of modules too, and returns its
// directory.
func (m *Module) Install(root, version string) string {
	m.t.Helper()
	dir := filepath.Join(root, "AIPService", version)
	manifest := fmt.Sprintf("@{ RootModule = 'AIPService.dll'; ModuleVersion = '%s'; GUID = '00000000-0000-4000-8000-000000000001'; CmdletsToExport = '*' }\n", version)
	m.check(errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "AIPService.psd1"), []byte(manifest), 0o600)))
	m.check(os.WriteFile(filepath.Join(dir, "AIPService.dll"), compiled(m.t, m.PowerShell, version), 0o600))
	return dir
}

var (
	mu       sync.Mutex
	binaries = map[string][]byte{}
)

// compiled is the module's assembly of that version, made once a run.
func compiled(t testing.TB, powerShell, version string) []byte {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if made, tried := binaries[version]; tried {
		if made == nil {
			t.Fatal("the stand-in does not compile")
		}
		return made
	}
	binaries[version] = nil
	_, self, _, _ := runtime.Caller(0)
	source, err := os.ReadFile(filepath.Join(filepath.Dir(self), "testdata", "AIPService.cs"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := strings.Index(string(source), "public static class")
	text := string(source[:at]) + "[assembly: System.Reflection.AssemblyVersion(\"" + version + "\")]\n" + string(source[at:])
	if err := os.WriteFile(filepath.Join(dir, "AIPService.cs"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(powerShell, "-NoProfile", "-Command", "Add-Type -Path AIPService.cs -OutputAssembly AIPService.dll -OutputType Library -WarningAction SilentlyContinue")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the stand-in does not compile: %v\n%s", err, out)
	}
	if binaries[version], err = os.ReadFile(filepath.Join(dir, "AIPService.dll")); err != nil {
		t.Fatal(err)
	}
	return binaries[version]
}

// desktop has a pwsh show scripts the versions of Windows PowerShell 5.1, with the
// settings that the judges' powershell.exe knows.
//
//go:embed testdata/desktop.sh
var desktop string

// Path is that of a powershell.exe which finds the module, in a directory of its
// own. Settings of the judges' PowerShell, such as JUDGE_CULTURE=th-TH, go
// beside it.
func (m *Module) Path(settings ...string) string {
	m.t.Helper()
	script := "#!/bin/sh\n"
	for _, s := range append([]string{"JUDGE_MODULES=" + m.Root}, settings...) {
		name, value, set := strings.Cut(s, "=")
		if !set {
			continue
		}
		script += "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n"
	}
	script += "powershell='" + m.PowerShell + "'\n"
	if filepath.Base(m.PowerShell) == "powershell.exe" {
		script += "exec \"$powershell\" \"$@\"\n"
	} else {
		script += desktop
	}
	path := filepath.Join(m.t.TempDir(), "powershell.exe")
	m.check(os.WriteFile(path, []byte(script), 0o700))
	return path
}

// Order has a call do something beside or instead.
func (m *Module) Order(call, what, text string) {
	m.t.Helper()
	m.append("orders.txt", call, what, text)
}

// Obey takes all orders back.
func (m *Module) Obey() {
	m.t.Helper()
	if err := os.Remove(filepath.Join(m.dir, "orders.txt")); !errors.Is(err, fs.ErrNotExist) {
		m.check(err)
	}
}

// Forget empties the tenant, and what was called.
func (m *Module) Forget() {
	m.t.Helper()
	for _, name := range []string{"keys.txt", "calls.txt"} {
		if err := os.Remove(filepath.Join(m.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			m.check(err)
		}
	}
}

// Knows makes the tenant able to open a TPD.
func (m *Module) Knows(t TPD) {
	m.t.Helper()
	sum := sha256.Sum256(t.File)
	encode := base64.StdEncoding.EncodeToString
	m.append("tpds.txt", hex.EncodeToString(sum[:]), t.GUID, encode([]byte(t.Password)), encode(t.PublicKey), t.KeyURL)
}

// Has gives the tenant a key, in the texts of Get-AipServiceKeys.
func (m *Module) Has(guid, status, keyType, name string) {
	m.t.Helper()
	m.append("keys.txt", guid, status, keyType, "", "638000000000000000", name)
}

// Keys are the tenant's, one a line: GUID, status, type and friendly name.
func (m *Module) Keys() string {
	m.t.Helper()
	var text strings.Builder
	for line := range strings.Lines(m.read("keys.txt")) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		fmt.Fprintf(&text, "%s %s %s %s\n", strings.ToLower(strings.Trim(f[0], "{}")), f[1], f[2], f[5])
	}
	return text.String()
}

// Calls are those that were made of it, one a line.
func (m *Module) Calls() string {
	m.t.Helper()
	return m.read("calls.txt")
}

func (m *Module) read(name string) string {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, name))
	if !errors.Is(err, fs.ErrNotExist) {
		m.check(err)
	}
	return string(data)
}

func (m *Module) append(name string, fields ...string) {
	m.t.Helper()
	m.check(os.WriteFile(filepath.Join(m.dir, name), []byte(m.read(name)+strings.Join(fields, "\t")+"\n"), 0o600))
}

func (m *Module) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}
