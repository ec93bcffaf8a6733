// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"keyferry/pkg/fingerprint"
)

// result stands in for the person on a Windows machine: it writes what the
// script of a hand-over kit would, after the tenant took every TPD and gave the
// first key the status, and puts the digest that the script would show into $DIGEST.
func result(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: result KIT FILE STATUS")
	}
	doc, err := KitResult(ts.ReadFile(filepath.Join(args[0], "import-tpds.ps1")), args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), doc, 0o600))
	ts.Setenv("DIGEST", KitDigest(doc).String())
}

// KitDigest is the digest that a kit's script shows of a result in ASCII.
func KitDigest(result []byte) fingerprint.Fingerprint {
	return fingerprint.Of([]byte(strings.ReplaceAll(string(result), " ", "")))
}

// KitResult is what a kit's script writes after the tenant took every TPD and gave
// the first key the status.
func KitResult(script, status string) ([]byte, error) {
	kit := regexp.MustCompile(`\$kit = '(\w+)'`).FindStringSubmatch(script)
	tpds := regexp.MustCompile(`KeyIdentifier = '(\S+)'\s+FriendlyName  = '(.*)'\s+KeyUrl        = '(\S*)'`).FindAllStringSubmatch(script, -1)
	if kit == nil || len(tpds) == 0 || !strings.HasPrefix(script, "\ufeff#") {
		return nil, errors.New("this is no script of a kit")
	}
	keys := []map[string]string{}
	for i, tpd := range tpds {
		key := map[string]string{
			"key_identifier": tpd[1], "friendly_name": tpd[2], "status": "Archived", "key_type": "CustomerManaged", "key_url": tpd[3],
			"public_key": "", "creation_time": "2026-01-01T00:00:00Z",
		}
		if i == 0 {
			key["status"] = status
		}
		if tpd[3] == "" {
			key["key_type"] = "MicrosoftManaged"
		}
		keys = append(keys, key)
	}
	return json.Marshal(map[string]any{
		"format": "keyferry-rms-result-v2", "kit": kit[1], "tenant_keys": keys,
		"versions": map[string]any{"powershell": "5.1.19041.4291", "edition": "Desktop", "framework": 528372, "module": "3.0.0.1"},
	})
}
