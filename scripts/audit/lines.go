// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxKeyPath is how many lines the key path may have: what an auditor reads in a
// day.
const maxKeyPath = 6000

// Headings of docs/audit.md. Below each is a table: its first column names a
// package, a file or a module, its second the lines of it that are built. The
// last row, "together", has the sum.
const (
	keyPathTable = "## The key path"
	offlineTable = "## The rest of offline"
	onlineTable  = "## What online alone has"
	othersTable  = "## Code of others"
)

// source is a Go file that is built into a binary for linux/amd64.
type source struct {
	place string // the directory of an own file, the module of another's
	file  string // an own file's path below the root
	side  string // offline, or online for what it alone has
	lines int    // comments and blank lines counted
}

// sources asks the go command what is built into both binaries.
func sources(root string) (own, others []source, err error) {
	seen := map[string]bool{}
	for _, side := range []string{"offline", "online"} {
		cgo := map[string]string{"offline": "1", "online": "0"}[side]
		cmd := exec.Command("go", "list", "-deps", "-json=Dir,Standard,GoFiles,CgoFiles,Module", "-tags", "netgo,osusergo", "./"+side)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED="+cgo)
		out, err := cmd.Output()
		if err != nil {
			return nil, nil, fmt.Errorf("go list ./%s: %w", side, err)
		}
		list := json.NewDecoder(bytes.NewReader(out))
		for {
			var p struct {
				Dir               string
				Standard          bool
				GoFiles, CgoFiles []string
				Module            struct {
					Path string
					Main bool
				}
			}
			if err := list.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, nil, err
			}
			if p.Standard {
				continue
			}
			for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
				file := filepath.Join(p.Dir, name)
				if seen[file] {
					continue
				}
				seen[file] = true
				text, err := os.ReadFile(file)
				if err != nil {
					return nil, nil, err
				}
				s := source{place: p.Module.Path, side: side, lines: bytes.Count(text, []byte("\n"))}
				if !p.Module.Main {
					others = append(others, s)
					continue
				}
				below, err := filepath.Rel(root, file)
				if err != nil {
					return nil, nil, err
				}
				s.file = filepath.ToSlash(below)
				s.place = path.Dir(s.file)
				own = append(own, s)
			}
		}
	}
	return own, others, nil
}

// countedPage holds the page's tables against the lines that are built. It
// returns each difference, and the sum of each table.
func countedPage(root, page string) (breaches []string, sums map[string]int, err error) {
	own, others, err := sources(root)
	if err != nil {
		return nil, nil, err
	}
	tables, err := readCounts(page)
	if err != nil {
		return nil, nil, err
	}
	report := func(format string, args ...any) { breaches = append(breaches, fmt.Sprintf(format, args...)) }
	sums = map[string]int{}
	for _, heading := range []string{keyPathTable, offlineTable, onlineTable, othersTable} {
		for _, row := range tables[heading] {
			lines := 0
			take := func(s source) bool {
				if s.file == row.name || s.place == row.name {
					lines += s.lines
					return true
				}
				return false
			}
			switch {
			case row.name == "together":
				lines = sums[heading]
			case heading == othersTable:
				others = slices.DeleteFunc(others, take)
			default:
				own = slices.DeleteFunc(own, take)
			}
			if lines != row.lines {
				report("%s has %d lines, and the page says %d", row.name, lines, row.lines)
			}
			if row.name != "together" {
				sums[heading] += lines
			}
		}
	}
	left := map[string]int{}
	for _, s := range slices.Concat(own, others) {
		left[s.place] += s.lines
	}
	for _, place := range slices.Sorted(maps.Keys(left)) {
		report("%s, %d lines, is built and not on the page", place, left[place])
	}
	if sums[keyPathTable] > maxKeyPath {
		report("the key path has %d lines: it must not grow beyond %d", sums[keyPathTable], maxKeyPath)
	}
	return breaches, sums, nil
}

// countLines prints the sum of each table and returns what is not true on the page.
func countLines(list io.Writer, page string) ([]string, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	breaches, sums, err := countedPage(root, page)
	for _, heading := range []string{keyPathTable, offlineTable, onlineTable, othersTable} {
		fmt.Fprintf(list, "%6d lines  %s\n", sums[heading], strings.TrimPrefix(heading, "## "))
	}
	return breaches, err
}

type counted struct {
	name  string
	lines int
}

// readCounts reads the tables of the page, in order. A file that is named alone
// must stand before its directory.
func readCounts(page string) (map[string][]counted, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	tables, heading := map[string][]counted{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			heading = line
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 {
			continue
		}
		name := strings.Trim(strings.TrimSpace(cells[0]), "`")
		lines, err := strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(cells[1]), ",", ""))
		if err != nil {
			continue // the table's head
		}
		tables[heading] = append(tables[heading], counted{name, lines})
	}
	for _, heading := range []string{keyPathTable, offlineTable, onlineTable, othersTable} {
		if len(tables[heading]) == 0 {
			return nil, fmt.Errorf("%s has no table below %q", page, heading)
		}
	}
	return tables, nil
}
