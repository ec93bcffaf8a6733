// SPDX-License-Identifier: Apache-2.0

// Package survey compares the reports on several TPD exports: which of them
// belong together, which hold the same key, and which key to make active.
package survey

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/inspect"
)

// Survey says which of several exports belong together. Files are positions in
// the list that was surveyed, from 0. Its names in JSON are stable: see
// docs/inspect.md.
type Survey struct {
	Groups []Group `json:"groups"` // in the order of their first files
	// Conflicts are files of one GUID but different keys: one of them is not what
	// it says.
	Conflicts [][]int `json:"conflicts"`
	Unread    []int   `json:"unread"` // files without a report
}

// Group are the exports of one organisation, as far as they show it.
type Group struct {
	Files        []int       `json:"files"`         // valid SLCs first, then the newest; those that must not be used last
	Because      []string    `json:"because"`       // what some of them have in common, in sentences
	BecauseFiles [][]int     `json:"because_files"` // for each sentence, the files that it is about
	SameKey      []Duplicate `json:"same_key"`      // keys that are there more than once
	Newest       int         `json:"newest"`        // -1 where several keys are
	Active       int         `json:"active"`        // the one to make active, -1 if there is none or it can't be told
	Choices      []int       `json:"choices"`       // where it can't be told, the files that it is one of
	Reason       string      `json:"reason"`        // why that one, why none, or how to choose
}

// Duplicate is one key in several files.
type Duplicate struct {
	Files  []int  `json:"files"`
	Use    int    `json:"use"` // the one to import, -1 if none may be used
	Reason string `json:"reason"`
	Lost   []Lost `json:"lost"` // templates that come with the others only
}

// Lost is a template that does not come with the file that is to be used.
type Lost struct {
	GUID string `json:"guid"`
	Name string `json:"name"` // in its first language
	File int    `json:"file"` // that has it
}

// surveyed are the files that a survey compares.
type surveyed struct {
	now      time.Time
	reports  []*inspect.Report
	disputed map[int]bool // files in conflict
}

// bond is why some files belong together.
type bond struct {
	why   string
	files []int
}

// New compares the reports on several files as they are at a moment. A report may be nil, of a
// file that could not be opened.
func New(reports []*inspect.Report, now time.Time) Survey {
	s := Survey{Groups: []Group{}, Conflicts: [][]int{}, Unread: []int{}}
	all := &surveyed{now, reports, map[int]bool{}}
	for i, r := range reports {
		if r == nil {
			s.Unread = append(s.Unread, i)
		}
	}
	for _, files := range conflicts(reports) {
		s.Conflicts = append(s.Conflicts, files)
		for _, i := range files {
			all.disputed[i] = true
		}
	}
	groupOf, bonds := all.relate()
	for first := range reports {
		var files []int
		for i, r := range reports {
			if r != nil && groupOf[i] == first {
				files = append(files, i)
			}
		}
		if len(files) > 0 {
			s.Groups = append(s.Groups, all.newGroup(files, bonds))
		}
	}
	return s
}

// relate finds, for each file, the first one that it belongs with, and why.
func (s *surveyed) relate() (groupOf []int, bonds []bond) {
	groupOf = make([]int, len(s.reports))
	hosts := make([][]string, len(s.reports))
	for i, r := range s.reports {
		groupOf[i] = i
		if r == nil {
			continue
		}
		hosts[i] = hostsOf(r)
		for j, other := range s.reports[:i] {
			if other == nil {
				continue
			}
			if why := kinship(other, r, hosts[j], hosts[i]); why != "" {
				join(groupOf, j, i)
				bonds = bind(bonds, why, j, i)
			}
		}
	}
	return groupOf, bonds
}

// join makes one group of those of a and b.
func join(groupOf []int, a, b int) {
	into, from := min(groupOf[a], groupOf[b]), max(groupOf[a], groupOf[b])
	for i := range groupOf {
		if groupOf[i] == from {
			groupOf[i] = into
		}
	}
}

// bind notes why two files belong together.
func bind(bonds []bond, why string, pair ...int) []bond {
	at := slices.IndexFunc(bonds, func(b bond) bool { return b.why == why })
	if at < 0 {
		return append(bonds, bond{why, pair})
	}
	bonds[at].files = append(bonds[at].files, pair...)
	return bonds
}

// kinship says why two exports belong together, or "". The enrolment service
// and the root say nothing: every organisation has the same ones.
func kinship(a, b *inspect.Report, hostsA, hostsB []string) string {
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
func hostsOf(r *inspect.Report) []string {
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
func conflicts(reports []*inspect.Report) (found [][]int) {
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

// newGroup compares files that belong together.
func (s *surveyed) newGroup(files []int, bonds []bond) Group {
	g := Group{Because: []string{}, BecauseFiles: [][]int{}, SameKey: s.duplicates(files), Active: -1, Choices: []int{}}
	for _, b := range bonds {
		if slices.Contains(files, b.files[0]) { // and so all of them
			g.Because = append(g.Because, b.why)
			g.BecauseFiles = append(g.BecauseFiles, slices.Compact(slices.Sorted(slices.Values(b.files))))
		}
	}
	slices.SortStableFunc(files, s.newerFirst)
	g.Files, g.Newest = files, files[0]
	if slices.ContainsFunc(files, func(i int) bool { return s.newerFirst(i, files[0]) == 0 && !s.sameKey(i, files[0]) }) {
		g.Newest = -1
	}
	s.chooseActive(&g)
	return g
}

// standing is what a file is good for: 2 to make an HSM key of it, 1 to be
// Microsoft-managed, 0 nothing.
func (s *surveyed) standing(i int) int {
	if s.disputed[i] {
		return 0
	}
	return map[string]int{inspect.VerdictHSM: 2, inspect.VerdictInHSM: 2, inspect.VerdictMicrosoftManaged: 1}[s.reports[i].Verdict]
}

// issued is when a file's SLC was issued.
func (s *surveyed) issued(i int) (t time.Time) {
	if slc := s.reports[i].SLC; slc != nil {
		t = slc.Issued
	}
	return t
}

// expired returns since when a file's SLC has been past its validity, or the zero
// time. Clients reject licences under such an SLC.
func (s *surveyed) expired(i int) time.Time {
	if slc := s.reports[i].SLC; slc != nil {
		for _, end := range []time.Time{slc.ValidUntil, slc.IssuingUntil} {
			if !end.IsZero() && s.now.After(end) {
				return end
			}
		}
	}
	return time.Time{}
}

// valid is 1 for a file whose SLC has not expired, else 0.
func (s *surveyed) valid(i int) int {
	if s.expired(i).IsZero() {
		return 1
	}
	return 0
}

// newerFirst orders by the SLC: a valid one first, then the one issued last. A file
// that must not be used comes last: what it says of its dates may not be true.
func (s *surveyed) newerFirst(a, b int) int {
	return cmp.Or(min(s.standing(b), 1)-min(s.standing(a), 1), s.valid(b)-s.valid(a), s.issued(b).Compare(s.issued(a)))
}

func (s *surveyed) sameKey(a, b int) bool {
	key := s.reports[a].Fingerprint
	return a == b || key != "" && key == s.reports[b].Fingerprint
}

// chooseActive says which file of a group to make active. Where several keys are
// as new it is the one with the newest template, since AD RMS signs these with the
// key that it has in use; where that does not tell either, a person must choose:
// the order in which files are named means nothing.
func (s *surveyed) chooseActive(g *Group) {
	candidates := s.candidates(g)
	if len(candidates) == 0 {
		g.Reason = "none of them can become an HSM key" + s.leftOut(g)
		return
	}
	first := candidates[0]
	tied := slices.DeleteFunc(candidates, func(i int) bool { return s.newerFirst(first, i) != 0 })
	best, unable := s.newestTemplates(tied), s.unable(g, first)
	switch {
	case len(best) > 1:
		g.Choices = slices.Sorted(slices.Values(tied))
		g.Reason = "they are as new as each other, and their templates do not tell: choose the one that AD RMS has in use; ask its administrators, or see which key content names that was protected last"
	case len(tied) > 1:
		g.Reason = "others are as new, but its templates are the newest: AD RMS signs these with the key in use"
	case unable != "":
		g.Reason = "it is the newest key that can become an HSM key"
	default:
		g.Reason = "it is the newest key: new content was protected with it last"
	}
	if len(best) == 1 {
		g.Active = best[0]
		if end := s.expired(best[0]); !end.IsZero() {
			g.Reason += fmt.Sprintf("; but its certificate expired on %s, and clients reject new licences under it: renew it in AD RMS, and export the domain again", end.Format(time.DateOnly))
		}
		if s.reports[best[0]].Verdict == inspect.VerdictInHSM {
			g.Reason += "; it is in an HSM, which wraps it: offline wrap"
		}
	}
	g.Reason += unable + s.leftOut(g)
}

// candidates are the files whose keys can become HSM keys, each key once, the
// newest first.
func (s *surveyed) candidates(g *Group) []int {
	return slices.DeleteFunc(slices.Clone(g.Files), func(i int) bool {
		return s.standing(i) < 2 || slices.ContainsFunc(g.SameKey, func(d Duplicate) bool { return slices.Contains(d.Files, i) && d.Use != i })
	})
}

// newestTemplates are those of the files that have the newest template.
func (s *surveyed) newestTemplates(files []int) []int {
	newest := func(i int) (t time.Time) {
		for _, template := range s.reports[i].Templates {
			if template.Issued.After(t) {
				t = template.Issued
			}
		}
		return t
	}
	last := newest(slices.MaxFunc(files, func(a, b int) int { return newest(a).Compare(newest(b)) }))
	return slices.DeleteFunc(slices.Clone(files), func(i int) bool { return !newest(i).Equal(last) })
}

// unable says which key is as new as a file's, or newer, but can't become an HSM
// key: the newest of them.
func (s *surveyed) unable(g *Group, file int) string {
	others := slices.DeleteFunc(slices.Clone(g.Files), func(i int) bool { return s.standing(i) != 1 || s.newerFirst(i, file) > 0 })
	if len(others) == 0 {
		return ""
	}
	newest := slices.MinFunc(others, func(a, b int) int {
		return cmp.Or(s.newerFirst(a, b), cmp.Compare(s.reports[a].KeyGUID, s.reports[b].KeyGUID))
	})
	age := "newer"
	switch {
	case s.newerFirst(newest, file) == 0:
		age = "as new"
	case s.valid(newest) > s.valid(file):
		age = "valid still"
	}
	return fmt.Sprintf("; the key %s is %s and cannot (%s)", s.reports[newest].KeyGUID, age, s.reports[newest].Reason)
}

func (s *surveyed) leftOut(g *Group) string {
	if slices.ContainsFunc(g.Files, func(i int) bool { return s.disputed[i] }) {
		return " (files in conflict left out)"
	}
	return ""
}

// duplicates finds keys that several of the files hold, and the one to take each
// from.
func (s *surveyed) duplicates(files []int) []Duplicate {
	all := []Duplicate{}
	done := map[string]bool{"": true}
	for _, i := range files {
		key := s.reports[i].Fingerprint
		if done[key] {
			continue
		}
		done[key] = true
		var same []int
		for _, j := range files {
			if s.sameKey(i, j) {
				same = append(same, j)
			}
		}
		if len(same) > 1 {
			all = append(all, s.chooseDuplicate(same))
		}
	}
	return all
}

// chooseDuplicate chooses of files in the order of their positions: by what the
// key can become, then by the validity of the SLC, then the SLC that was issued
// last (a renewal of the same key), then the most templates, since each export has
// those of its day.
func (s *surveyed) chooseDuplicate(same []int) Duplicate {
	templates := func(i int) int { return len(s.reports[i].Templates) }
	criteria := []struct {
		compare func(a, b int) int
		reason  string
	}{
		{func(a, b int) int { return s.standing(b) - s.standing(a) }, "the others have faults that it has not"},
		{func(a, b int) int { return s.valid(b) - s.valid(a) }, "its certificate is valid, those of the others have expired"},
		{func(a, b int) int { return s.issued(b).Compare(s.issued(a)) }, "its certificate is the renewed one: the key is the same"},
		{func(a, b int) int { return templates(b) - templates(a) }, "it has the most templates"},
	}
	best := slices.Clone(same)
	slices.SortStableFunc(best, func(a, b int) int {
		for _, c := range criteria {
			if order := c.compare(a, b); order != 0 {
				return order
			}
		}
		return 0
	})
	d := Duplicate{same, best[0], "they are alike; the first is as good as any", []Lost{}}
	if s.standing(best[0]) == 0 {
		d.Use, d.Reason = -1, "none of them may be used"
		return d
	}
	for _, c := range criteria {
		if c.compare(best[0], best[1]) != 0 {
			d.Reason = c.reason
			break
		}
	}
	has := map[string]bool{}
	for _, i := range best {
		if s.standing(i) == 0 {
			continue
		}
		for _, t := range s.reports[i].Templates {
			if i != best[0] && !has[t.GUID] {
				lost := Lost{GUID: t.GUID, File: i}
				if len(t.Names) > 0 {
					lost.Name = t.Names[0].Name
				}
				d.Lost = append(d.Lost, lost)
			}
			has[t.GUID] = true
		}
	}
	return d
}
