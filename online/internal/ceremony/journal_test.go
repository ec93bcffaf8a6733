// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"keyferry/pkg/ledger"
)

// taken is the journal of these records, each an event and its data.
func taken(t *testing.T, records ...[2]string) *Journal {
	t.Helper()
	j := newJournal(nil)
	for i, r := range records {
		if err := j.take(ledger.Entry{Seq: uint64(i + 1), Event: r[0], Data: json.RawMessage(r[1])}); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// TestBecame: what became of each key, whatever the order of events.
func TestBecame(t *testing.T) {
	at := func(event, format string, args ...any) [2]string {
		return [2]string{event, fmt.Sprintf(format, args...)}
	}
	imported := func(id string) [2]string {
		return at(EventKeyImported, `{"manifest":"%s","id":"%s","key":"%[1]s","key_url":"https://v/%[2]s","hsm_platform":"2","wrapped_by":"token"}`, zero, id)
	}
	inTenant := func(id, by string) [2]string {
		return at(EventTPDImported, `{"id":"%s","slc":"x","key":"%s","status":"Archived","by":"%s"}`, id, zero, by)
	}
	refused := func(id string) [2]string { return at(EventKeyRefused, `{"id":"%s","reason":"KF-X: no"}`, id) }
	for name, test := range map[string]struct {
		records []([2]string)
		want    string
	}{
		"accepted alone":   {[][2]string{at(EventAccepted, `{"keys":["b","a"]}`)}, "b   []  | a   []  "},
		"refused":          {[][2]string{at(EventAccepted, `{"keys":["a","b"]}`), refused("b"), imported("a")}, "a https://v/a  []  | b   []  KF-X: no"},
		"without a bundle": {[][2]string{refused("c")}, "c   []  KF-X: no"},
		"again, and well":  {[][2]string{imported("a"), refused("a"), inTenant("a", "kit")}, "a https://v/a Archived [] kit "},
		"an older ledger":  {[][2]string{inTenant("a", "kit"), at(EventActivated, `{"id":"a"}`)}, "a  Active [] kit "},
		"by another's word": {[][2]string{inTenant("a", "powershell"), inTenant("b", "powershell"), at(EventActivated, `{"id":"a","by":"powershell","warnings":["KF-X"]}`), at(EventActivated, `{"id":"b","by":"kit","warnings":[]}`)},
			"a  Archived [] kit | b  Active [] kit "},
		"overruled": {[][2]string{inTenant("a", "practice"), at(EventActivated, `{"id":"a","by":"practice","warnings":["KF-X"]}`)}, "a  Active [KF-X] practice "},
	} {
		var got []string
		for _, k := range taken(t, test.records...).All() {
			got = append(got, fmt.Sprint(k.ID, " ", k.KeyURL, " ", k.Tenant, " ", k.Warnings, " ", k.TenantBy, " ", k.Refused))
		}
		if all := strings.Join(got, "| "); all != test.want {
			t.Errorf("%s: got %q, want %q", name, all, test.want)
		}
	}
}

const zero = "SHA256:0000000000000000000000000000000000000000000000000000000000000000"
