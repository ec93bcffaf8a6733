// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
)

// Survey says which of several exports belong together. Files are positions in
// the list that was surveyed, from 0. Its names in JSON are stable.
type Survey struct {
	Groups []Group `json:"groups"` // in the order of their first files
	// Conflicts are files of one GUID but different keys: one of them is not what
	// it says.
	Conflicts [][]int `json:"conflicts"`
	Unread    []int   `json:"unread"` // files without a report
}

// Group are the exports of one organisation, as far as they show it.
type Group struct {
	Files   []int       `json:"files"`    // newest SLC first, those that are refused last
	Because []string    `json:"because"`  // what they have in common, in sentences
	SameKey []Duplicate `json:"same_key"` // keys that are there more than once
	Newest  int         `json:"newest"`
	Active  int         `json:"active"` // the one to make active, -1 if there is none
	Reason  string      `json:"reason"` // why that one, or why none
}

// Duplicate is one key in several files.
type Duplicate struct {
	Files  []int  `json:"files"`
	Use    int    `json:"use"` // the one to import
	Reason string `json:"reason"`
}

// NewSurvey compares the reports on several files. A report may be nil, of a
// file that could not be opened.
func NewSurvey(reports []*Report) Survey {
	s := Survey{Groups: []Group{}, Conflicts: [][]int{}, Unread: []int{}}
	groupOf := make([]int, len(reports)) // → the first file that it belongs with
	because := make([][]string, len(reports))
	hosts := make([][]string, len(reports))
	for i, r := range reports {
		groupOf[i] = i
		if r == nil {
			s.Unread = append(s.Unread, i)
			continue
		}
		hosts[i] = hostsOf(r)
		for j, other := range reports[:i] {
			if other == nil {
				continue
			}
			why := kinship(other, r, hosts[j], hosts[i])
			if why == "" {
				continue
			}
			join(groupOf, because, j, i)
			if first := groupOf[i]; !slices.Contains(because[first], why) {
				because[first] = append(because[first], why)
			}
		}
	}
	s.Conflicts = append(s.Conflicts, conflicts(reports)...)
	for first := range reports {
		var files []int
		for i, r := range reports {
			if r != nil && groupOf[i] == first {
				files = append(files, i)
			}
		}
		if len(files) > 0 {
			s.Groups = append(s.Groups, newGroup(reports, files, because[first]))
		}
	}
	return s
}

// join makes one group of those of a and b.
func join(groupOf []int, because [][]string, a, b int) {
	into, from := min(groupOf[a], groupOf[b]), max(groupOf[a], groupOf[b])
	if into == from {
		return
	}
	for i := range groupOf {
		if groupOf[i] == from {
			groupOf[i] = into
		}
	}
	for _, why := range because[from] {
		if !slices.Contains(because[into], why) {
			because[into] = append(because[into], why)
		}
	}
}

// kinship says why two exports belong together, or "". The enrolment service
// and the root say nothing: every organisation has the same ones.
func kinship(a, b *Report, hostsA, hostsB []string) string {
	switch {
	case a.Fingerprint != "" && a.Fingerprint == b.Fingerprint:
		return "they hold the same key"
	case a.KeyGUID != "" && a.KeyGUID == b.KeyGUID:
		return "they name the same key GUID " + a.KeyGUID
	}
	for _, host := range hostsA {
		if slices.Contains(hostsB, host) {
			return "they name the same server address " + control.Quote(host)
		}
	}
	if a.SLC != nil && b.SLC != nil && a.SLC.ServerName != "" && strings.EqualFold(a.SLC.ServerName, b.SLC.ServerName) {
		return "they name the same server " + control.Quote(strings.ToLower(a.SLC.ServerName))
	}
	return ""
}

// hostsOf are the names of the servers in the SLC's and the templates' URLs.
func hostsOf(r *Report) []string {
	var hosts []string
	add := func(address string) {
		if u, err := url.Parse(address); err == nil && u.Hostname() != "" {
			if host := strings.ToLower(u.Hostname()); !slices.Contains(hosts, host) && len(hosts) < maxHosts {
				hosts = append(hosts, host)
			}
		}
	}
	if r.SLC != nil {
		add(r.SLC.ServerURL)
	}
	for _, t := range r.Templates {
		for _, p := range t.DistributionPoints {
			add(p.URL)
		}
	}
	return hosts
}

// maxHosts bounds the addresses that are compared. A cluster has one or two.
const maxHosts = 16

// conflicts finds files of one GUID with different keys.
func conflicts(reports []*Report) (found [][]int) {
	byGUID := map[string][]int{}
	var guids []string
	for i, r := range reports {
		if r != nil && r.KeyGUID != "" && r.Fingerprint != "" {
			if byGUID[r.KeyGUID] == nil {
				guids = append(guids, r.KeyGUID)
			}
			byGUID[r.KeyGUID] = append(byGUID[r.KeyGUID], i)
		}
	}
	for _, guid := range guids {
		files := byGUID[guid]
		if slices.ContainsFunc(files, func(i int) bool { return reports[i].Fingerprint != reports[files[0]].Fingerprint }) {
			found = append(found, files)
		}
	}
	return found
}

func newGroup(reports []*Report, files []int, because []string) Group {
	slices.SortStableFunc(files, func(a, b int) int { return newerFirst(reports[a], reports[b]) })
	g := Group{Files: files, Because: append([]string{}, because...), SameKey: duplicates(reports, files), Newest: files[0], Active: -1}
	superseded := map[int]bool{} // files whose key another one is to be taken from
	for _, d := range g.SameKey {
		for _, i := range d.Files {
			superseded[i] = i != d.Use
		}
	}
	for _, i := range files {
		if reports[i].Verdict == VerdictHSM && !superseded[i] {
			g.Active = i
			break
		}
	}
	switch {
	case g.Active < 0:
		g.Reason = "none of them can become an HSM key"
	case reports[g.Active].Fingerprint == reports[g.Newest].Fingerprint:
		g.Reason = "it is the newest key: new content was protected with it last"
	default:
		g.Reason = fmt.Sprintf("it is the newest key that can become an HSM key; the newest of all, %s, cannot (%s)", reports[g.Newest].KeyGUID, reports[g.Newest].Reason)
	}
	return g
}

// newerFirst orders by the SLC's issue. A file that is refused comes last: what
// it says of its date may not be true.
func newerFirst(a, b *Report) int {
	sound := func(r *Report) int {
		if r.Verdict == VerdictRefused {
			return 0
		}
		return 1
	}
	issued := func(r *Report) (t time.Time) {
		if r.SLC != nil {
			t = r.SLC.Issued
		}
		return t
	}
	return cmp.Or(sound(b)-sound(a), issued(b).Compare(issued(a)))
}

// duplicates finds keys that several of the files hold, and the one to take
// each from: the best verdict first, then the most templates, since each export
// has those of its day.
func duplicates(reports []*Report, files []int) []Duplicate {
	all := []Duplicate{}
	done := map[string]bool{"": true}
	for _, i := range files {
		key := reports[i].Fingerprint
		if done[key] {
			continue
		}
		done[key] = true
		var same []int
		for _, j := range files {
			if reports[j].Fingerprint == key {
				same = append(same, j)
			}
		}
		if len(same) > 1 {
			all = append(all, chooseDuplicate(reports, same))
		}
	}
	return all
}

func chooseDuplicate(reports []*Report, same []int) Duplicate {
	rank := map[string]int{VerdictHSM: 2, VerdictMicrosoftManaged: 1}
	verdict := func(a, b int) int { return rank[reports[b].Verdict] - rank[reports[a].Verdict] }
	templates := func(a, b int) int { return len(reports[b].Templates) - len(reports[a].Templates) }
	best := slices.Clone(same)
	slices.SortFunc(best, func(a, b int) int { return cmp.Or(verdict(a, b), templates(a, b), cmp.Compare(a, b)) })
	d := Duplicate{slices.Sorted(slices.Values(same)), best[0], "they are alike; the first is as good as any"}
	switch {
	case verdict(best[0], best[1]) != 0:
		d.Reason = "the others have faults that it has not"
	case templates(best[0], best[1]) != 0:
		d.Reason = "it has the most templates"
	}
	return d
}
