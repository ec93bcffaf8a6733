// SPDX-License-Identifier: Apache-2.0

package sheet

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
)

var now = time.Date(2026, 11, 23, 15, 4, 5, 0, time.FixedZone("", 3600))

// kept is a ledger of the given records.
func kept(t *testing.T, records ...any) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(filepath.Join(t.TempDir(), "ledger.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		event := "note"
		if _, ok := r.(ledger.Run); ok {
			event = ledger.EventRun
		}
		if err := l.Append(now, event, r); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestLedgerSection(t *testing.T) {
	refused := func(command string, controls ...string) ledger.Run {
		return ledger.Run{Command: command, Controls: controls}
	}
	s, err := Ledger(kept(t, "x", ledger.Run{Command: "import", DryRun: true, Controls: []string{}}, refused("seal", "KF-BUNDLE-EMPTY"),
		refused("import", "KF-TPD-PASSWORD"), refused("import", "KF-TPD-PASSWORD"),
		refused("upload", "KF-RMS-BY-HAND"), refused("import", "KF-RUN-INTERRUPTED"), refused("seal", "KF-RUN-INTERRUPTED", "KF-BUNDLE-EMPTY")), now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range s.Rows {
		got = append(got, r.Label+": "+r.Value)
	}
	want := "records: 8, printed 2026-11-23 14:04 UTC; dry runs: 1|head: " +
		"|refused: 2 × import: KF-TPD-PASSWORD|: 1 × seal: KF-BUNDLE-EMPTY|: 1 × seal: KF-RUN-INTERRUPTED, KF-BUNDLE-EMPTY" +
		"|stopped: 1 × import: KF-RUN-INTERRUPTED; 1 × upload: KF-RMS-BY-HAND"
	if strings.Join(got, "|") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, "|"), want)
	}
	var many []any
	for i := range 9 {
		many = append(many, refused("import", fmt.Sprintf("KF-X-%d", i)))
	}
	s, err = Ledger(kept(t, many...), now)
	if last := s.Rows[len(s.Rows)-1].Value; err != nil || last != "… and 6 others: see the transcript" {
		t.Errorf("got %q, %v", last, err)
	}
}

// full is a sheet with as much on a page as a ceremony has.
func full() Sheet {
	print, long := fingerprint.Of([]byte("x")), strings.Repeat("KF-LONG-REASON ", 30)
	s := New("REHEARSAL, disconnected side: <offline>")
	var sections []Section
	for i := range 5 {
		section := Section{Title: fmt.Sprintf("Section <%d>", i)}
		section.AddPrint("in words", print, i < 3)
		section.Add("url", "https://practice.vault.keyferry.test/keys/a&b/"+strings.Repeat("c", 32))
		if i < 4 {
			section.Add("two", "a first line", "", "a second \x1b line")
		}
		section.Add("nothing", "")
		section.AddPrint("none", fingerprint.Fingerprint{}, true)
		sections = append(sections, section)
	}
	sections[0].AddSome("some", []string{long, "b", "c", "d", "e"})
	sections[1].AddBrief("brief", long)
	s.Pages = []Page{{"Key one", sections}, {"Key two", sections}}
	return s
}

// What there may be any number of, or be of any length, is cut, and nothing else is.
func TestCut(t *testing.T) {
	rows := func(add func(s *Section)) string {
		var s Section
		add(&s)
		var lines []string
		for _, r := range s.Rows {
			lines = append(lines, r.Label+": "+r.Value)
		}
		return strings.Join(lines, "|")
	}
	for _, test := range []struct {
		got  string
		want string
	}{
		{rows(func(s *Section) { s.AddSome("x", nil) }), ""},
		{rows(func(s *Section) { s.AddSome("x", []string{"a", "b", "c", "d"}) }), "x: a|: b|: c|: d"},
		{rows(func(s *Section) { s.AddSome("x", []string{"a", "b", "c", "d", "e"}) }), "x: a|: b|: c|: … and 2 others: see the transcript"},
		{rows(func(s *Section) { s.AddSome("x", []string{strings.Repeat("é", 64)}) }), "x: " + strings.Repeat("é", 64)},
		{rows(func(s *Section) { s.AddSome("x", []string{strings.Repeat("é", 65)}) }), "x: " + strings.Repeat("é", 63) + "…"},
		{rows(func(s *Section) { s.AddBrief("x", "") }), ""},
		{rows(func(s *Section) { s.AddBrief("x", strings.Repeat("a", 128)) }), "x: " + strings.Repeat("a", 128)},
		{rows(func(s *Section) { s.AddBrief("x", strings.Repeat("a", 129)) }), "x: " + strings.Repeat("a", 108) + "… see the transcript"},
	} {
		if test.got != test.want {
			t.Errorf("got %s\nwant %s", test.got, test.want)
		}
	}
}

func TestTenant(t *testing.T) {
	for _, test := range []struct{ status, by, want string }{
		{"", "", ""}, {"", "kit", ""}, {"Active", "powershell", "Active"}, {"Archived", "kit", "Archived, as a kit's result says, which nobody signs"},
	} {
		if got := Tenant(test.status, test.by); got != test.want {
			t.Errorf("%s by %s: got %q", test.status, test.by, got)
		}
	}
}

func TestText(t *testing.T) {
	pages := strings.Split(full().Text(), "\f")
	if len(pages) != 2 {
		t.Fatalf("%d pages", len(pages))
	}
	for i, page := range pages {
		lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
		if len(lines) > 66 {
			t.Errorf("page %d has %d lines, more than paper", i+1, len(lines))
		}
		for _, line := range lines {
			if len([]rune(line)) > 80 {
				t.Errorf("%d columns: %s", len([]rune(line)), line)
			}
		}
		if strings.Contains(page, "\x1b") || !strings.Contains(page, `a second \x1b line`) {
			t.Error("a control character is shown as it is")
		}
		if strings.Contains(page, "nothing") || strings.Contains(page, "none") {
			t.Error("empty facts are shown")
		}
		print := fingerprint.Of([]byte("x"))
		if joined := strings.Join(strings.Fields(page), " "); strings.Count(joined, strings.Join(strings.Fields(print.Rows()), " ")) != 3 || strings.Count(joined, print.Hex()) != 5 {
			t.Error("a digest is not there whole")
		}
	}
}

// Nothing that came from outside is markup, and nothing is loaded.
func TestHTML(t *testing.T) {
	page := full().HTML()
	for _, bad := range []string{"<offline>", "<0>", "a&b", "<script", "<link", "<img", "src=", "href=", "url("} {
		if strings.Contains(page, bad) {
			t.Errorf("it holds %s", bad)
		}
	}
	for _, good := range []string{"&lt;offline&gt;", "a&amp;b", "Key two (page 2 of 2)", "security officer"} {
		if !strings.Contains(page, good) {
			t.Errorf("it does not hold %s", good)
		}
	}
	if n := strings.Count(page, `<div class="page">`); n != 2 {
		t.Errorf("%d pages", n)
	}
}

func TestDescribe(t *testing.T) {
	print := fingerprint.Of([]byte("x"))
	got := Describe(ledger.Entry{Seq: 7, Time: now.UTC(), Event: "note", Data: json.RawMessage(
		`{"key_url":"https://v/k","head":"` + print.String() + `","keys":[{"id":"a","n":12},{"id":"b","n":3}],"list":["x"],"empty":[],"none":"","on":true,"what":"\u001b[2J","only_unix_sockets_here":true,"zero":"` + (fingerprint.Fingerprint{}).String() + `"}`)})
	for _, want := range []string{
		"7  2026-11-23 14:04:05Z  note\n", "key url               https://v/k\n", "head                  " + print.String() + "\n",
		"keys 1 id             a\n", "keys 1 n              12\n", "keys 2 n              3\n", "list 1                x\n",
		"none                  -\n", "on                    true\n", `what                  \x1b[2J` + "\n", "zero                  -\n",
		"only unix sockets here true\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, print.Words()[0]) {
		t.Errorf("a digest is in words, which people may take for those that are read aloud:\n%s", got)
	}
}

func TestWrap(t *testing.T) {
	for in, want := range map[string]string{"": "", "a b  c": "a b\nc", "abcdef g": "abc\ndef\ng", "a bcdefgh": "a\nbcd\nefg\nh", "abc": "abc", "éüß": "éüß"} {
		if got := Wrap(in, 3); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
