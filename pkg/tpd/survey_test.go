// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/tpd/xrml"
	"keyferry/test/vectors"
)

// file is a report as the survey sees it.
func file(key, guid, host string, year int, verdict string, templates int) *Report {
	r := &Report{
		Fingerprint: key, KeyGUID: guid, Verdict: verdict,
		SLC: &xrml.SLC{ServerURL: "https://" + host + "/_wmcs", Issued: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	if verdict != VerdictHSM {
		r.Reason = "KF-TPD-X"
	}
	for range templates {
		r.Templates = append(r.Templates, xrml.Template{})
	}
	return r
}

func named(r *Report, name string) *Report { r.SLC.ServerName = name; return r }

func published(r *Report, address string) *Report {
	r.Templates = append(r.Templates, xrml.Template{DistributionPoints: []xrml.DistributionPoint{{URL: address}}})
	return r
}

// templated has templates of these years.
func templated(r *Report, years ...int) *Report {
	for _, y := range years {
		r.Templates = append(r.Templates, xrml.Template{Issued: time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	return r
}

// surveys are reports and what the survey says of them.
var surveys = map[string]struct {
	reports                   []*Report
	groups                    [][]int // files
	because                   string  // in the first group
	sameKey                   [][]int
	use                       int // of the first key that is there twice
	newest, active            int // of the first group
	choices                   []int
	reason                    string
	conflicts, unread, others int
}{
	"one":                {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0)}, groups: [][]int{{0}}, reason: "newest key"},
	"strangers":          {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "b", 2011, VerdictHSM, 0)}, groups: [][]int{{0}, {1}}, reason: "newest key"},
	"same server":        {reports: []*Report{file("k", "g", "A.x", 2010, VerdictHSM, 0), file("l", "h", "a.X", 2011, VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: `server address "a.x"`, newest: 1, active: 1, reason: "newest key"},
	"same name":          {reports: []*Report{named(file("k", "g", "a", 2012, VerdictHSM, 0), "RMS"), named(file("l", "h", "b", 2011, VerdictHSM, 0), "rms")}, groups: [][]int{{0, 1}}, because: `server "rms"`, reason: "newest key"},
	"same licensing URL": {reports: []*Report{published(file("k", "g", "a", 2012, VerdictHSM, 0), "http://p.x/l"), published(file("l", "h", "b", 2011, VerdictHSM, 0), "https://P.x:443/l")}, groups: [][]int{{0, 1}}, because: `address "p.x"`, reason: "newest key"},
	"joined by a third": {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "b", 2011, VerdictHSM, 0), published(file("m", "i", "a", 2012, VerdictHSM, 0), "https://b/l")},
		groups: [][]int{{2, 1, 0}}, because: `address "a"`, newest: 2, active: 2, reason: "newest key"},
	"no name is no kin":     {reports: []*Report{file("k", "g", "", 2010, VerdictHSM, 0), file("l", "h", "", 2011, VerdictHSM, 0)}, groups: [][]int{{0}, {1}}, reason: "newest key"},
	"newest is mode 1":      {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2011, VerdictMicrosoftManaged, 0)}, groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 0, reason: "become an HSM key; the key h is newer and cannot (KF-TPD-X)"},
	"all mode 1":            {reports: []*Report{file("k", "g", "a", 2010, VerdictMicrosoftManaged, 0)}, groups: [][]int{{0}}, active: -1, reason: "none of them"},
	"same key, alike":       {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 1), file("k", "g", "a", 2010, VerdictHSM, 1)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, reason: "newest key"},
	"same key, templates":   {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 1), file("k", "g", "b", 2010, VerdictHSM, 3)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, active: 1, reason: "newest key"},
	"newest is refused":     {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2114, VerdictRefused, 0), file("m", "i", "a", 2009, VerdictHSM, 0)}, groups: [][]int{{0, 2, 1}}, because: "address", reason: "newest key"},
	"same key, one refused": {reports: []*Report{file("k", "g", "a", 2010, VerdictRefused, 9), file("k", "g", "a", 2010, VerdictHSM, 3)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"same GUID, other key":  {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "g", "b", 2011, VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "key GUID g", conflicts: 1, newest: 1, active: -1, reason: "none of them can become an HSM key (files in conflict left out)"},
	"conflict and another": {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "g", "a", 2011, VerdictHSM, 0), file("m", "h", "a", 2009, VerdictHSM, 0), file("k", "g", "a", 2010, VerdictHSM, 0)},
		groups: [][]int{{2, 1, 0, 3}}, because: "address", conflicts: 1, sameKey: [][]int{{0, 3}}, use: -1, newest: 2, active: 2, reason: "newest key: new content was protected with it last (files in conflict left out)"},
	"as new": {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2010, VerdictHSM, 0), file("m", "i", "a", 2009, VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: -1, choices: []int{0, 1}, reason: "choose the one that AD RMS has in use"},
	"as new, and mode 1": {reports: []*Report{file("k", "g", "a", 2010, VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, VerdictHSM, 0)},
		groups: [][]int{{0, 1}}, because: "address", newest: -1, active: 1, reason: "newest key that can become an HSM key; the key g is as new and cannot (KF-TPD-X)"},
	"as new, all three": {reports: []*Report{file("k", "g", "a", 2010, VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, VerdictHSM, 0), file("m", "i", "a", 2010, VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: -1, choices: []int{1, 2}, reason: "as new as each other, and their templates do not tell: choose the one that AD RMS has in use; ask its administrators, or see which key content names that was protected last; the key g is as new and cannot"},
	"as new, newest template": {reports: []*Report{templated(file("k", "g", "a", 2010, VerdictHSM, 0), 2011, 2013), templated(file("l", "h", "a", 2010, VerdictHSM, 0), 2014, 2012), file("m", "i", "a", 2010, VerdictHSM, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: 1, reason: "others are as new, but its templates are the newest"},
	"two of mode 1 as new": {reports: []*Report{file("k", "z", "a", 2010, VerdictMicrosoftManaged, 0), file("l", "h", "a", 2010, VerdictHSM, 0), file("m", "g", "a", 2010, VerdictMicrosoftManaged, 0)},
		groups: [][]int{{0, 1, 2}}, because: "address", newest: -1, active: 1, reason: "the key g is as new and cannot"},
	"newest template of an older key": {reports: []*Report{templated(file("k", "g", "a", 2010, VerdictHSM, 0), 2014), templated(file("l", "h", "a", 2011, VerdictHSM, 0), 2012)},
		groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 1, reason: "newest key: "},
	"as new, but twice the same": {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("k", "g", "a", 2010, VerdictHSM, 0)},
		groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, reason: "newest key: "},
	"same key, all refused": {reports: []*Report{file("k", "g", "a", 2010, VerdictRefused, 0), file("k", "g", "a", 2010, VerdictRefused, 0)},
		groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, use: -1, active: -1, reason: "none of them"},
	"unread":              {reports: []*Report{nil, file("k", "g", "a", 2010, VerdictHSM, 0), {Verdict: VerdictRefused}, {Verdict: VerdictRefused}}, groups: [][]int{{1}, {2}, {3}}, newest: 1, active: 1, unread: 1, reason: "newest key"},
	"chain is unreadable": {reports: []*Report{{Fingerprint: "k", Verdict: VerdictRefused}, file("k", "g", "a", 2010, VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"none":                {groups: [][]int{}},
}

func TestSurvey(t *testing.T) {
	for name, c := range surveys {
		t.Run(name, func(t *testing.T) {
			s := NewSurvey(c.reports)
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
func suggested(reports []*Report) string {
	var all []string
	for _, g := range NewSurvey(reports).Groups {
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
	g := NewSurvey([]*Report{
		file("x", "y", "other", 2010, VerdictHSM, 0), file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2011, VerdictHSM, 0),
		file("k", "g", "a", 2010, VerdictHSM, 0), named(file("m", "i", "b", 2012, VerdictHSM, 0), "N"), named(file("n", "j", "a", 2013, VerdictHSM, 0), "n"),
	}).Groups[1]
	if !slices.EqualFunc(g.BecauseFiles, [][]int{{1, 2, 3, 5}, {1, 3}, {4, 5}}, slices.Equal) || len(g.Because) != 3 ||
		!strings.Contains(g.Because[0], `"a"`) || g.Because[1] != "they hold the same key" || !strings.Contains(g.Because[2], `server "n"`) {
		t.Errorf("%v: %q", g.BecauseFiles, g.Because)
	}
}

// The vectors are of one server, each with a key of its own, all of one date.
func TestSurveyOfVectors(t *testing.T) {
	var reports []*Report
	for _, name := range []string{"contoso-mode1", "contoso-mode2", "contoso-colon-name"} {
		_, d := open(t, vectors.OneTPD(t, name))
		reports = append(reports, d.Check(now))
	}
	text, err := json.Marshal(NewSurvey(append(reports, nil, reports[1])))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"groups":[{"files":[0,1,2,4],"because":["they name the same server address \"rms.contoso.com\"","they hold the same key"],"because_files":[[0,1,2,4],[1,4]],` +
		`"same_key":[{"files":[1,4],"use":1,"reason":"they are alike; the first is as good as any"}],"newest":-1,"active":1,"choices":[],` +
		`"reason":"others are as new, but its templates are the newest: AD RMS signs these with the key in use; the key ae734a3f-7722-4ad8-8614-e76efee643d6 is as new and cannot (KF-TPD-MODE1)"}],` +
		`"conflicts":[],"unread":[3]}`
	if string(text) != want {
		t.Errorf("got\n%s", text)
	}
}
