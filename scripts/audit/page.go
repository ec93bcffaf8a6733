// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// page is docs/linked.md: three tables, below these headings, that name in their
// first column, `so`, what may be linked, and in their last why.
type page struct {
	modules map[string]list // by side
	symbols list            // of offline
	imports list            // libraries and functions of offline
}

const (
	modulesTable = "## Modules"
	symbolsTable = "## Network code that stays in offline"
	importsTable = "## What offline asks of the system's libraries"
)

// list is what may be there, and whether it was seen. A name that ends in .*
// stands for a whole package.
type list map[string]*bool

func (l list) has(name string) bool {
	base := strings.LastIndex(name, "/") + 1
	pkg, _, _ := strings.Cut(name[base:], ".")
	for _, listed := range []string{name, name[:base] + pkg + ".*"} {
		if seen := l[listed]; seen != nil {
			*seen = true
			return true
		}
	}
	return false
}

func (l list) add(name string) { l[name] = new(bool) }

var quoted = regexp.MustCompile("`([^`]+)`")

func readPage(path string) (*page, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &page{modules: map[string]list{"offline": {}, "online": {}}, symbols: list{}, imports: list{}}
	heading, rows := "", map[string]int{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			heading = line
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		if why := strings.TrimSpace(cells[len(cells)-1]); why == "" {
			return nil, fmt.Errorf("%s gives no reason for %s", path, cells[0])
		}
		rows[heading]++
		for _, name := range quoted.FindAllStringSubmatch(cells[0], -1) {
			p.add(heading, name[1], cells[1])
		}
	}
	for _, heading := range []string{modulesTable, symbolsTable, importsTable} {
		if rows[heading] == 0 {
			return nil, fmt.Errorf("%s has no table below %q", path, heading)
		}
	}
	return p, nil
}

// add takes a name in; sides is the second column of the table of modules.
func (p *page) add(heading, name, sides string) {
	switch heading {
	case modulesTable:
		for _, side := range strings.Fields(sides) {
			if l, ok := p.modules[side]; ok {
				l.add(name)
			}
		}
	case symbolsTable:
		p.symbols.add(name)
	case importsTable:
		p.imports.add(name)
	}
}

// unseen says what is on the page and was in none of the binaries.
func (p *page) unseen() []string {
	var breaches []string
	for what, l := range map[string]list{
		"module of offline": p.modules["offline"], "module of online": p.modules["online"],
		"symbol": p.symbols, "library or function": p.imports,
	} {
		for _, name := range slices.Sorted(maps.Keys(l)) {
			if !*l[name] {
				breaches = append(breaches, fmt.Sprintf("the page lists the %s %s, which no binary has", what, name))
			}
		}
	}
	slices.Sort(breaches)
	return breaches
}
