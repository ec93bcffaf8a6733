// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/internal/vectors"
	"keyferry/pkg/xrml"
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

// surveys are reports and what the survey says of them.
var surveys = map[string]struct {
	reports                   []*Report
	groups                    [][]int // files
	because                   string  // in the first group
	sameKey                   [][]int
	use                       int // of the first key that is there twice
	newest, active            int // of the first group
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
	"newest is mode 1":      {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2011, VerdictMicrosoftManaged, 0)}, groups: [][]int{{1, 0}}, because: "address", newest: 1, active: 0, reason: "the newest of all, h, cannot (KF-TPD-X)"},
	"all mode 1":            {reports: []*Report{file("k", "g", "a", 2010, VerdictMicrosoftManaged, 0)}, groups: [][]int{{0}}, active: -1, reason: "none of them"},
	"same key, alike":       {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 1), file("k", "g", "a", 2010, VerdictHSM, 1)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, reason: "newest key"},
	"same key, templates":   {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 1), file("k", "g", "b", 2010, VerdictHSM, 3)}, groups: [][]int{{0, 1}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, active: 1, reason: "newest key"},
	"newest is refused":     {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "h", "a", 2114, VerdictRefused, 0), file("m", "i", "a", 2009, VerdictHSM, 0)}, groups: [][]int{{0, 2, 1}}, because: "address", reason: "newest key"},
	"same key, one refused": {reports: []*Report{file("k", "g", "a", 2010, VerdictRefused, 9), file("k", "g", "a", 2010, VerdictHSM, 3)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"same GUID, other key":  {reports: []*Report{file("k", "g", "a", 2010, VerdictHSM, 0), file("l", "g", "b", 2010, VerdictHSM, 0)}, groups: [][]int{{0, 1}}, because: "key GUID g", conflicts: 1, reason: "newest key"},
	"unread":                {reports: []*Report{nil, file("k", "g", "a", 2010, VerdictHSM, 0), {Verdict: VerdictRefused}, {Verdict: VerdictRefused}}, groups: [][]int{{1}, {2}, {3}}, newest: 1, active: 1, unread: 1, reason: "newest key"},
	"chain is unreadable":   {reports: []*Report{{Fingerprint: "k", Verdict: VerdictRefused}, file("k", "g", "a", 2010, VerdictHSM, 0)}, groups: [][]int{{1, 0}}, because: "same key", sameKey: [][]int{{0, 1}}, use: 1, newest: 1, active: 1, reason: "newest key"},
	"none":                  {groups: [][]int{}},
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
			if g.Newest != c.newest || g.Active != c.active || !strings.Contains(g.Reason, c.reason) || c.reason == "" {
				t.Errorf("newest %d, active %d: %s", g.Newest, g.Active, g.Reason)
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

// The vectors are of one server, each with a key of its own.
func TestSurveyOfVectors(t *testing.T) {
	var reports []*Report
	for _, name := range []string{"contoso-mode1", "contoso-mode2", "contoso-anyone"} {
		_, d := open(t, vectors.OneTPD(t, name))
		reports = append(reports, d.Check(now))
	}
	text, err := json.Marshal(NewSurvey(append(reports, nil, reports[1])))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"groups":[{"files":[0,1,2,4],"because":["they name the same server address \"rms.contoso.com\"","they hold the same key"],` +
		`"same_key":[{"files":[1,4],"use":1,"reason":"they are alike; the first is as good as any"}],"newest":0,"active":1,` +
		`"reason":"it is the newest key that can become an HSM key; the newest of all, ae734a3f-`
	if !strings.HasPrefix(string(text), want) || !strings.HasSuffix(string(text), `cannot (KF-TPD-MODE1)"}],"conflicts":[],"unread":[3]}`) {
		t.Errorf("got\n%s", text)
	}
}
