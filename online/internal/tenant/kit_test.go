// SPDX-License-Identifier: Apache-2.0

package tenant_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

var update = flag.Bool("update", false, "write testdata/import-tpds.ps1 anew")

const (
	firstGUID  = "11111111-2222-3333-4444-555555555555"
	secondGUID = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
	thirdGUID  = "01234567-89ab-cdef-0123-456789abcdef"
)

func aKit(t *testing.T) tenant.Kit {
	t.Helper()
	public := &vectors.OneTPD(t, "contoso-mode2").Key.PublicKey
	return tenant.Kit{Cloud: "public", Active: secondGUID, TPDs: []tenant.KitTPD{
		{"no_key_tpd_old.xml", []byte("<old/>"), firstGUID, false, "https://contoso.vault.azure.net/keys/old/0a", "Old", public},
		{"no_key_tpd_new.xml", []byte("<new/>"), secondGUID, false, "https://contoso.vault.azure.net/keys/new/0b", "O'Brien \u2018RMS\u2019 $(x) `é", public},
		{"tpd_with_key_small.xml", []byte("<small/>"), thirdGUID, true, "", "Small", nil},
	}}
}

// TestKitScript holds the script that is handed over against one that was read
// by a person.
func TestKitScript(t *testing.T) {
	files, err := aKit(t).Files("kit")
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]string{}
	for _, f := range files {
		by[f.Path] = string(f.Data)
	}
	script := by[filepath.Join("kit", tenant.KitScript)]
	golden := filepath.Join("testdata", "import-tpds.ps1")
	if *update {
		if err := os.WriteFile(golden, []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if script != read(t, golden) {
		t.Errorf("the script differs from %s: see it, then go test ./online/internal/tenant -run TestKitScript -update", golden)
	}
	if err := checkScript(script); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(script, "\ufeff#") || strings.Contains(strings.ReplaceAll(script, "\r\n", ""), "\n") {
		t.Error("Windows PowerShell would not read the script as it is meant: no byte order mark, or other line ends")
	}
	if len(by) != 5 || by["kit/no_key_tpd_old.xml"] != "<old/>" {
		t.Errorf("files: %v", slices.Collect(maps.Keys(by)))
	}
}

// TestKitDigests: sha256sum agrees.
func TestKitDigests(t *testing.T) {
	dir := t.TempDir()
	files, err := aKit(t).Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func() error {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "-c", "--strict", tenant.KitDigests)
		cmd.Dir = dir
		return cmd.Run()
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, tenant.KitScript), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if check() == nil {
		t.Error("a changed script passes")
	}
}

func TestKitIsRefused(t *testing.T) {
	for name, bend := range map[string]func(k *tenant.Kit){
		"cloud":           func(k *tenant.Kit) { k.Cloud = "mars" },
		"no TPD":          func(k *tenant.Kit) { k.TPDs, k.Active = nil, "" },
		"active":          func(k *tenant.Kit) { k.Active = "99999999-2222-3333-4444-555555555555" },
		"path":            func(k *tenant.Kit) { k.TPDs[0].File = "../a.xml" },
		"the script":      func(k *tenant.Kit) { k.TPDs[0].File = tenant.KitScript },
		"twice":           func(k *tenant.Kit) { k.TPDs[0].File = "NO_KEY_TPD_new.xml" },
		"GUID":            func(k *tenant.Kit) { k.TPDs[0].KeyIdentifier = "'; Remove-Item *" },
		"URL, no version": func(k *tenant.Kit) { k.TPDs[0].KeyURL = "https://contoso.vault.azure.net/keys/old" },
		"no URL":          func(k *tenant.Kit) { k.TPDs[0].KeyURL = "" },
		"URL, key inside": func(k *tenant.Kit) { k.TPDs[2].KeyURL = k.TPDs[0].KeyURL },
		"URL":             func(k *tenant.Kit) { k.TPDs[0].KeyURL += "'" },
		"line end":        func(k *tenant.Kit) { k.TPDs[0].FriendlyName = "a\nb" },
		"control":         func(k *tenant.Kit) { k.TPDs[0].FriendlyName = "a\x1b" },
	} {
		k := aKit(t)
		bend(&k)
		if _, err := k.Files("kit"); !control.Is(err, control.RMSKit) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	k := aKit(t)
	k.Active = ""
	if _, err := k.Files("kit"); err != nil {
		t.Error(err)
	}
}

// result is what the kit's script writes.
type result map[string]any

func aResult(t *testing.T, k tenant.Kit) result {
	t.Helper()
	files, err := k.Files("kit")
	if err != nil {
		t.Fatal(err)
	}
	script := string(files[3].Data)
	_, rest, _ := strings.Cut(script, "$kit = '")
	id, _, _ := strings.Cut(rest, "'")
	public, err := x509.MarshalPKIXPublicKey(k.TPDs[0].Public)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(guid, status, keyType string) map[string]any {
		shown := "" // of a Microsoft-managed key, as documented
		if keyType != "Microsoft-managed" {
			shown = base64.StdEncoding.EncodeToString(public)
		}
		return map[string]any{"key_identifier": guid, "friendly_name": "x", "status": status, "key_type": keyType, "key_url": "", "public_key": shown, "creation_time": "2026-01-01T00:00:00Z"}
	}
	return result{
		"format": "keyferry-rms-result-v2", "kit": id,
		"versions":    map[string]any{"powershell": "5.1", "edition": "Desktop", "framework": 528372, "module": "3.0.0.1"},
		"tenant_keys": []any{entry(secondGUID, "Active", "Customer-managed (BYOK)"), entry(firstGUID, "Archived", "Customer-managed (BYOK)"), entry(thirdGUID, "Archived", "Microsoft-managed")},
	}
}

func TestKitResult(t *testing.T) {
	k := aKit(t)
	key := func(r result, i int) map[string]any { return r["tenant_keys"].([]any)[i].(map[string]any) }
	for _, test := range []struct {
		name    string
		bend    func(r result)
		control control.Control // none: it passes
	}{
		{"good", func(result) {}, control.Control{}},
		{"with the URL", func(r result) { key(r, 1)["key_url"] = k.TPDs[0].KeyURL }, control.Control{}},
		{"format", func(r result) { r["format"] = "x" }, control.RMSResult},
		{"another kit", func(r result) { r["kit"] = strings.Repeat("0", 64) }, control.RMSResult},
		{"unknown field", func(r result) { r["more"] = 1 }, control.RMSResult},
		{"a key is missing", func(r result) { r["tenant_keys"] = r["tenant_keys"].([]any)[:1] }, control.RMSResult},
		{"no keys", func(r result) { r["tenant_keys"] = nil }, control.RMSResult},
		{"Microsoft-managed", func(r result) { key(r, 0)["key_type"] = "Microsoft-managed" }, control.RMSResult},
		{"not Microsoft-managed", func(r result) { key(r, 2)["key_type"] = "Customer-managed (BYOK)" }, control.RMSResult},
		{"a URL of a key inside", func(r result) { key(r, 2)["key_url"] = k.TPDs[1].KeyURL }, control.RMSResult},
		{"another URL", func(r result) { key(r, 1)["key_url"] = k.TPDs[1].KeyURL }, control.RMSResult},
		{"not active", func(r result) { key(r, 0)["status"] = "Archived" }, control.RMSActive},
		{"two active", func(r result) { key(r, 1)["status"] = "Active" }, control.RMSFailed},
		{"strange status", func(r result) { key(r, 1)["status"] = "Gone" }, control.RMSResult},
		{"a key of the tenant's own", func(r result) {
			key(r, 1)["key_identifier"], key(r, 1)["status"], key(r, 1)["key_type"] = "x", "Gone", "Odd"
			own := maps.Clone(key(r, 1))
			own["key_identifier"], own["status"], own["key_type"] = firstGUID, "Archived", "Customer managed (BYOK)"
			r["tenant_keys"] = append(r["tenant_keys"].([]any), own)
		}, control.Control{}},
		{"which key is unknown", func(r result) { key(r, 1)["public_key"] = "" }, control.RMSResult},
		{"another public key", func(r result) { key(r, 1)["public_key"] = "AQ==" }, control.RMSResult},
		{"the URL alone", func(r result) { key(r, 1)["public_key"], key(r, 1)["key_url"] = "", k.TPDs[0].KeyURL }, control.Control{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := aResult(t, k)
			test.bend(r)
			doc, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			keys, err := k.Result(append([]byte("\ufeff"), doc...))
			if test.control.ID != "" {
				holds(t, err, test.control, "")
			} else if err != nil || len(keys) < 3 || keys[0].KeyType != tenant.CustomerManaged {
				t.Errorf("got %v, %v", keys, err)
			}
		})
	}
	_, err := k.Result([]byte("{"))
	holds(t, err, control.RMSResult, "read")
	doc, err := json.Marshal(aResult(t, k))
	if err != nil {
		t.Fatal(err)
	}
	k.TPDs[0].TPD = []byte("<other/>")
	_, err = k.Result(doc)
	holds(t, err, control.RMSResult, "another kit")
}
