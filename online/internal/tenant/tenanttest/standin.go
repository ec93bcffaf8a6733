// SPDX-License-Identifier: Apache-2.0

// Package standin is test support: it stands in for powershell.exe, and for the
// AIPService module in it.
//
// No PowerShell runs in the tests. What there is: a reader of its quotes,
// brackets and command names, which the stand-in uses on what it is given, and,
// in test/npm, a grammar. The stand-in does on the practice tenant what the
// script would do, and looks for each password where none may be.
package tenanttest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"keyferry/online/internal/practice"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
)

const name = "powershell.exe"

// Main is a test binary's: called as powershell.exe it is the stand-in, and
// returns an exit code; else it runs the tests.
//
//	func TestMain(m *testing.M) { os.Exit(tenanttest.Main(m.Run)) }
func Main(tests func() int) int {
	if filepath.Base(os.Args[0]) != name {
		return tests()
	}
	if err := newStandIn().run(); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		return 1
	}
	return 0
}

// Link puts the stand-in into dir and returns its path. Its practice cloud is
// the folder practice in dir; mode says how it fails, not at all if empty.
func Link(t *testing.T, dir, mode string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := errors.Join(os.Symlink(self, path), os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

type standIn struct {
	dir, mode string
	in        *bufio.Reader
	script    string
	tenant    tenant.Tenant
}

func newStandIn() *standIn {
	dir := filepath.Dir(os.Args[0])
	mode, err := os.ReadFile(filepath.Join(dir, "mode"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		panic(err)
	}
	return &standIn{dir: dir, mode: string(mode), in: bufio.NewReader(os.Stdin)}
}

func (s *standIn) run() error {
	if err := s.checkArguments(); err != nil {
		return err
	}
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "#end\n" {
			break
		}
		s.script += line
	}
	if err := CheckScript(s.script); err != nil {
		return err
	}
	cloud, err := practice.Open(filepath.Join(s.dir, "practice"))
	if err != nil {
		return err
	}
	s.tenant = cloud.Tenant()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return nil // the end of a session
		}
		if err := s.request(strings.Split(strings.TrimSuffix(line, "\n"), " ")); err != nil {
			return err
		}
	}
}

// checkArguments: the loader, and nothing that differs from run to run.
func (s *standIn) checkArguments() error {
	want := strings.Fields("-NoLogo -NoProfile -NonInteractive -ExecutionPolicy RemoteSigned -InputFormat Text -OutputFormat Text -EncodedCommand")
	args := os.Args[1:]
	if len(args) != len(want)+1 || !slices.Equal(args[:len(want)], want) {
		return fmt.Errorf("arguments %q", args)
	}
	raw, err := base64.StdEncoding.DecodeString(args[len(want)])
	if err != nil {
		return err
	}
	var units []uint16
	for i := 0; i+1 < len(raw); i += 2 {
		units = append(units, uint16(raw[i])|uint16(raw[i+1])<<8)
	}
	given := string(utf16.Decode(units))
	loader, err := os.ReadFile(filepath.Join(module(), "online", "internal", "tenant", "script", "loader.ps1"))
	if err != nil || given != string(loader) {
		return fmt.Errorf("the command is not the loader: %q, %w", given, err)
	}
	return CheckScript(given)
}

// module is the directory of the module, in which tests run.
func module() string {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
	}
	panic(err)
}

func (s *standIn) request(words []string) error {
	answer := map[string]any{"error": "", "kind": "", "log": []string{}}
	fail := func(text string, log ...string) { answer["error"], answer["kind"], answer["log"] = text, "Test", log }
	switch words[0] {
	case "versions":
		answer["versions"] = s.versions()
	case "connect":
		fmt.Println("A connection to the Azure Rights Management service was opened.")
		if s.mode == "sign-in" {
			fail("AADSTS50076: you must use multi-factor authentication")
		}
	case "keys":
		keys, err := s.keys()
		if err != nil {
			return err
		}
		answer["tenant_keys"] = keys
	case "import":
		password, err := s.in.ReadString('\n')
		if err != nil {
			return err
		}
		password = strings.TrimSuffix(password, "\n")
		if err := s.lookFor(password); err != nil {
			return err
		}
		if err := s.importTPD(words, password, fail); err != nil {
			return err
		}
	case "activate":
		if err := s.tenant.SetActive(context.Background(), text(words[1])); err != nil {
			fail(err.Error())
		}
	case "disconnect":
	default:
		return fmt.Errorf("unknown request %q", words[0])
	}
	return s.say(answer)
}

// say writes an answer, as broken as the mode wants it.
func (s *standIn) say(answer map[string]any) error {
	switch s.mode {
	case "dies":
		return errors.New("out of memory")
	case "hangs":
		time.Sleep(time.Minute)
	case "garbage":
		fmt.Println("\nkeyferry {")
	case "long":
		chunk := strings.Repeat("x", 1<<20)
		for range 6 {
			fmt.Print(chunk)
		}
	}
	doc, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("\r\nkeyferry %s\r\n", doc)
	return err
}

func text(word string) string {
	raw, err := base64.StdEncoding.DecodeString(word)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func (s *standIn) versions() map[string]any {
	v := map[string]any{"powershell": "5.1.19041.4291", "edition": "Desktop", "framework": 528372, "module": "3.0.0.1"}
	switch s.mode {
	case "core":
		v["powershell"], v["edition"] = "7.4.2", "Core"
	case "old":
		v["powershell"] = "5.0.10586.117"
	case "framework":
		v["framework"] = 461814
	case "module":
		v["module"] = ""
	case "old module":
		v["module"] = "2.0.0.3"
	}
	return v
}

// keys are the tenant's as the cmdlet shows them.
func (s *standIn) keys() ([]map[string]string, error) {
	keys, err := s.tenant.Keys(context.Background())
	shown := map[string]string{tenant.CustomerManaged: "Customer-managed (BYOK)", tenant.MicrosoftManaged: "Microsoft-managed"}
	list := []map[string]string{}
	for _, k := range keys {
		list = append(list, map[string]string{
			"key_identifier": "{" + strings.ToUpper(k.KeyIdentifier) + "}", "friendly_name": k.FriendlyName, "status": string(k.Status),
			"key_type": shown[k.KeyType], "key_url": "", "public_key": base64.StdEncoding.EncodeToString(k.PublicKey),
			"creation_time": k.CreationTime.UTC().Format(time.RFC3339),
		})
	}
	return list, err
}

// importTPD imports, and fails in the service's words.
func (s *standIn) importTPD(words []string, password string, fail func(string, ...string)) error {
	_, err := s.tenant.ImportTPD(context.Background(), tenant.TPDImport{
		TPD: []byte(text(words[1])), FriendlyName: text(words[2]), KeyURL: text(words[3]), Password: []byte(password), MicrosoftManaged: text(words[3]) == "",
	})
	switch {
	case err == nil:
	case control.Is(err, control.RMSCorrupted):
		fail("The remote server returned an error: (400) Bad Request.", "Trusted Publishing Domain data is corrupted.")
	case control.Is(err, control.RMSKeyURL):
		fail("The Rights Management service failed to add the key.", "Failure to access Azure KeyVault.")
	default:
		fail("The service cannot do that.")
	}
	return nil
}

// lookFor fails on a secret where it may not be: in the arguments and the
// environment of this process and its parent, in the script, in a file of the
// package, of the stand-in or of the directory for temporary files.
func (s *standIn) lookFor(secret string) error {
	places := map[string]string{"the script": s.script, "the arguments": strings.Join(os.Args, " "), "the environment": strings.Join(os.Environ(), "\n")}
	for _, of := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", os.Getppid(), of))
		if err != nil {
			return err
		}
		places["the parent's "+of] = string(data)
	}
	for _, dir := range []string{s.dir, os.TempDir()} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				var data []byte
				data, err = os.ReadFile(path)
				places[path] = string(data)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	hidden := []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprintf("%x", secret)}
	for place, data := range places {
		for _, form := range hidden {
			if strings.Contains(strings.ToLower(data), strings.ToLower(form)) {
				return fmt.Errorf("a password is in %s", place)
			}
		}
	}
	return nil
}
