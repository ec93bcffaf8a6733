// SPDX-License-Identifier: Apache-2.0

package survey

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/inspect"
	"keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

// now is a moment in which the vectors' certificates are valid.
var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func check(t *testing.T, xml []byte) *inspect.Report {
	t.Helper()
	e, err := tpd.Parse(xml)
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decrypt([]byte("Passw0rd!"))
	if err != nil {
		t.Fatal(err)
	}
	return inspect.NewReport(d.Check(tpd.Terms{Now: now}))
}

// file is a report as the survey sees it.
func file(key, guid, host string, year int, verdict string, templates int) *inspect.Report {
	r := &inspect.Report{
		Fingerprint: key, KeyGUID: guid, Verdict: verdict,
		SLC: &inspect.SLC{ServerURL: "https://" + host + "/_wmcs", Issued: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	if verdict != inspect.VerdictHSM {
		r.Reason = "KF-TPD-X"
	}
	for range templates {
		r.Templates = append(r.Templates, inspect.Template{})
	}
	return r
}

func expired(r *inspect.Report) *inspect.Report {
	r.SLC.ValidUntil = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	return r
}

func named(r *inspect.Report, name string) *inspect.Report { r.SLC.ServerName = name; return r }

func published(r *inspect.Report, address string) *inspect.Report {
	r.Templates = append(r.Templates, inspect.Template{DistributionPoints: []inspect.DistributionPoint{{URL: address}}})
	return r
}

// templated has templates of these years.
func templated(r *inspect.Report, years ...int) *inspect.Report {
	for _, y := range years {
		r.Templates = append(r.Templates, inspect.Template{Issued: time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	return r
}

// surveys are reports and what the survey says of them.
var surveys = map[string]struct {
	reports                   []*inspect.Report
	groups                    [][]int // files
	because                   string  // in the first group
	sameKey                   [][]int
	use                       int // of the first key that is there twice
	newest, active            int // of the first group
	choices                   []int
	reason                    string
	conflicts, unread, others int
}{
	"one":                {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0)}, groups: [][]int{{0}}, reason: "newest key"},
	"strangers":          {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "b", 2011, inspect.VerdictHSM, 0)}, groups: [][]int{{0}, {1}}, reason: "newest key"},
	"same server":        {reports: []*inspect.Report{file("k", "g", "A.x", 2010, inspect.VerdictHSM, 0), file("l", "h", "a.X", 2011, inspect.VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: `server address "a.x"`, newest: 1, active: 1, reason: "newest key"},
	"same name":          {reports: []*inspect.Report{named(file("k", "g", "a", 2012, inspect.VerdictHSM, 0), "RMS"), named(file("l", "h", "b", 2011, inspect.VerdictHSM, 0), "rms")}, groups: [][]int{{0, 1}}, because: `server "rms"`, reason: "newest key"},
	"same licensing URL": {reports: []*inspect.Report{published(file("k", "g", "a", 2012, inspect.VerdictHSM, 0), "http://p.x/l"), published(file("l", "h", "b", 2011, inspect.VerdictHSM, 0), "https://P.x:443/l")}, groups: [][]int{{0, 1}}, because: `address "p.x"`, reason: "newest key"},
	"joined by a third": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "b", 2011, inspect.VerdictHSM, 0), published(file("m", "i", "a", 2012, inspect.VerdictHSM, 0), "https://b/l")},
		groups: [][]int{{2, 1, 0}}, because: `address "a"`, newest: 2, active: 2, reason: "newest key"},
	"no name is no kin":     {reports: []*inspect.Report{file("k", "g", "", 2010, inspect.VerdictHSM, 0), file("l", "h", "", 2011, inspect.VerdictHSM, 0)}, groups: [][]int{{0}, {1}}, reason: "newest key"},
	"newest is mode 1":      {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "a", 2011, inspect.VerdictMicrosoftManaged, 0)}, groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 0, reason: "become an HSM key; the key h is newer and cannot (KF-TPD-X)"},
	"all mode 1":            {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictMicrosoftManaged, 0)}, groups: [][]int{{0}}, active: -1, reason: "none of them"},
	"same key, alike":       {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 1), file("k", "g", "a", 2010, inspect.VerdictHSM, 1)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, reason: "newest key"},
	"same key, templates":   {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 1), file("k", "g", "b", 2010, inspect.VerdictHSM, 3)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, active: 1, reason: "newest key"},
	"newest is refused":     {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "a", 2114, inspect.VerdictRefused, 0), file("m", "i", "a", 2009, inspect.VerdictHSM, 0)}, groups: [][]int{{0, 2, 1}}, because: "address", reason: "newest key"},
	"same key, one refused": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictRefused, 9), file("k", "g", "a", 2010, inspect.VerdictHSM, 3)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"same GUID, other key":  {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "g", "b", 2011, inspect.VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "key GUID g", conflicts: 1, newest: 1, active: -1, reason: "none of them can become an HSM key (files in conflict left out)"},
	"conflict and another": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "g", "a", 2011, inspect.VerdictHSM, 0), file("m", "h", "a", 2009, inspect.VerdictHSM, 0), file("k", "g", "a", 2010, inspect.VerdictHSM, 0)},
		groups: [][]int{{2, 1, 0, 3}}, because: "address", conflicts: 1, sameKey: [][]int{{0, 3}}, use: -1, newest: 2, active: 2, reason: "newest key: new content was protected with it last (files in conflict left out)"},
	"as new": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "a", 2010, inspect.VerdictHSM, 0), file("m", "i", "a", 2009, inspect.VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: -1, choices: []int{0, 1}, reason: "choose the one that AD RMS has in use"},
	"as new, and mode 1": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, inspect.VerdictHSM, 0)},
		groups: [][]int{{0, 1}}, because: "address", newest: -1, active: 1, reason: "newest key that can become an HSM key; the key g is as new and cannot (KF-TPD-X)"},
	"as new, all three": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, inspect.VerdictHSM, 0), file("m", "i", "a", 2010, inspect.VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: -1, choices: []int{1, 2}, reason: "as new as each other, and their templates do not tell: choose the one that AD RMS has in use; ask its administrators, or see which key content names that was protected last; the key g is as new and cannot"},
	"as new, newest template": {reports: []*inspect.Report{templated(file("k", "g", "a", 2010, inspect.VerdictHSM, 0), 2011, 2013), templated(file("l", "h", "a", 2010, inspect.VerdictHSM, 0), 2014, 2012), file("m", "i", "a", 2010, inspect.VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: 1, reason: "others are as new, but its templates are the newest"},
	"two of mode 1 as new": {reports: []*inspect.Report{file("k", "z", "a", 2010, inspect.VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, inspect.VerdictHSM, 0), file("m", "g", "a", 2010, inspect.VerdictMicrosoftManaged, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: 1, reason: "the key g is as new and cannot"},
	"newest template of an older key": {reports: []*inspect.Report{templated(file("k", "g", "a", 2010, inspect.VerdictHSM, 0), 2014), templated(file("l", "h", "a", 2011, inspect.VerdictHSM, 0), 2012)},
		groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 1, reason: "newest key: "},
	"as new, but twice the same": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("k", "g", "a", 2010, inspect.VerdictHSM, 0)},
		groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, reason: "newest key: "},
	"same key, all refused": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictRefused, 0), file("k", "g", "a", 2010, inspect.VerdictRefused, 0)},
		groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, use: -1, active: -1, reason: "none of them"},
	"unread":              {reports: []*inspect.Report{nil, file("k", "g", "a", 2010, inspect.VerdictHSM, 0), {Verdict: inspect.VerdictRefused}, {Verdict: inspect.VerdictRefused}}, groups: [][]int{{1}, {2}, {3}}, newest: 1, active: 1, unread: 1, reason: "newest key"},
	"chain is unreadable": {reports: []*inspect.Report{{Fingerprint: "k", Verdict: inspect.VerdictRefused}, file("k", "g", "a", 2010, inspect.VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"expired is newer":    {reports: []*inspect.Report{expired(file("k", "g", "a", 2011, inspect.VerdictHSM, 0)), file("l", "h", "a", 2010, inspect.VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 1, reason: "newest key"},
	"all expired":         {reports: []*inspect.Report{expired(file("k", "g", "a", 2011, inspect.VerdictHSM, 0))}, groups: [][]int{{0}}, reason: "but its certificate expired on 2020-01-01"},
	"renewed, fewer templates": {reports: []*inspect.Report{expired(file("k", "g", "a", 2010, inspect.VerdictHSM, 5)), file("k", "g", "a", 2015, inspect.VerdictHSM, 2)},
		groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"in an HSM": {reports: []*inspect.Report{file("k", "g", "a", 2010, inspect.VerdictInHSM, 0)}, groups: [][]int{{0}}, reason: "which wraps it: offline wrap"},
	"none":      {groups: [][]int{}},
}

func TestSurvey(t *testing.T) {
	for name, c := range surveys {
		t.Run(name, func(t *testing.T) {
			s := New(c.reports, now)
			groups, sameKey := [][]int{}, [][]int(nil)
			for _, g := range s.Groups {
				groups = append(groups, g.Files)
				for _, d := range g.SameKey {
					sameKey = append(sameKey, d.Files)
				}
			}
			if !slices.EqualFunc(groups, c.groups, slices.Equal) || !slices.EqualFunc(sameKey, c.sameKey, slices.Equal) {
				t.Fatalf("groups %v, same keys %v; expected %v, %v", groups, sameKey, c.groups, c.sameKey)
			}
			if len(s.Conflicts) != c.conflicts || len(s.Unread) != c.unread {
				t.Errorf("conflicts %v, unread %v", s.Conflicts, s.Unread)
			}
			if len(s.Groups) == 0 {
				return
			}
			g := s.Groups[0]
			if g.Newest != c.newest || g.Active != c.active || !slices.Equal(g.Choices, c.choices) || !strings.Contains(g.Reason, c.reason) || c.reason == "" {
				t.Errorf("newest %d, active %d of %v: %s", g.Newest, g.Active, g.Choices, g.Reason)
			}
			if !strings.Contains(strings.Join(g.Because, "; "), c.because) || (c.because == "") != (len(g.Because) == 0) {
				t.Errorf("together because %q, expected %q", g.Because, c.because)
			}
			if len(g.SameKey) > 0 && (g.SameKey[0].Use != c.use || g.SameKey[0].Reason == "") {
				t.Errorf("same key: %+v", g.SameKey[0])
			}
		})
	}
}

// What a survey suggests does not depend on the order of the files.
func TestSurveyInAnyOrder(t *testing.T) {
	for name, c := range surveys {
		if len(c.sameKey) > 0 { // of files that are alike the first one is taken
			continue
		}
		reversed := slices.Clone(c.reports)
		slices.Reverse(reversed)
		there, back := suggested(c.reports), suggested(reversed)
		if there != back {
			t.Errorf("%s: %s, in reverse %s", name, there, back)
		}
	}
}

// suggested is what the survey of reports suggests, by GUID.
func suggested(reports []*inspect.Report) string {
	var all []string
	for _, g := range New(reports, now).Groups {
		said := []string{g.Reason}
		for _, i := range append([]int{g.Newest, g.Active}, g.Choices...) {
			if i >= 0 {
				said = append(said, reports[i].KeyGUID)
			}
		}
		slices.Sort(said)
		all = append(all, strings.Join(said, " "))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// Each sentence is about some of the files.
func TestSurveyBecause(t *testing.T) {
	g := New([]*inspect.Report{
		file("x", "y", "other", 2010, inspect.VerdictHSM, 0), file("k", "g", "a", 2010, inspect.VerdictHSM, 0), file("l", "h", "a", 2011, inspect.VerdictHSM, 0),
		file("k", "g", "a", 2010, inspect.VerdictHSM, 0), named(file("m", "i", "b", 2012, inspect.VerdictHSM, 0), "N"), named(file("n", "j", "a", 2013, inspect.VerdictHSM, 0), "n"),
	}, now).Groups[1]
	if !slices.EqualFunc(g.BecauseFiles, [][]int{{1, 2, 3, 5}, {1, 3}, {4, 5}}, slices.Equal) || len(g.Because) != 3 ||
		!strings.Contains(g.Because[0], `"a"`) || g.Because[1] != "they hold the same key" || !strings.Contains(g.Because[2], `server "n"`) {
		t.Errorf("%v: %q", g.BecauseFiles, g.Because)
	}
}

// The vectors are of one server, each with a key of its own, all of one date.
func TestSurveyOfVectors(t *testing.T) {
	var reports []*inspect.Report
	for _, name := range []string{"contoso-mode1", "contoso-mode2", "contoso-colon-name"} {
		reports = append(reports, check(t, vectors.OneTPD(t, name).XML))
	}
	text, err := json.Marshal(New(append(reports, nil, reports[1]), now))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"groups":[{"files":[0,1,2,4],"because":["they name the same server address \"rms.contoso.com\"","they hold the same key"],"because_files":[[0,1,2,4],[1,4]],` +
		`"same_key":[{"files":[1,4],"use":1,"reason":"they are alike; the first is as good as any","lost":[]}],"newest":-1,"active":1,"choices":[],` +
		`"reason":"others are as new, but its templates are the newest: AD RMS signs these with the key in use; the key ae734a3f-7722-4ad8-8614-e76efee643d6 is as new and cannot (KF-TPD-MODE1)"}],` +
		`"conflicts":[],"unread":[3]}`
	if string(text) != want {
		t.Errorf("got\n%s", text)
	}
}

// A renewed certificate wins over an expired one with more templates, and the
// templates that do not come along are named.
func TestRenewedCertificate(t *testing.T) {
	s := New([]*inspect.Report{check(t, vectors.Odd(t, "slc-expired-5templates")), check(t, vectors.Odd(t, "slc-renewed-2templates"))}, now)
	d := s.Groups[0].SameKey[0]
	if s.Groups[0].Active != 1 || d.Use != 1 || !strings.Contains(d.Reason, "have expired") || len(d.Lost) != 3 {
		t.Errorf("%+v", s.Groups[0])
	}
	for _, lost := range d.Lost {
		if lost.GUID == "" || lost.Name == "" || lost.File != 0 {
			t.Errorf("%+v", lost)
		}
	}
}
