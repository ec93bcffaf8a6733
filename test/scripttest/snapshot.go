// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// snapshot maps each path below root to its mode and the digest of what it
// holds.
func snapshot(root string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		line := info.Mode().String()
		if info.Mode().IsRegular() && !slices.Contains(restless, entry.Name()) {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(data))
		}
		rel, err := filepath.Rel(root, path)
		found[rel] = line
		return err
	})
	return found, err
}

// restless are the files of the token that SoftHSM changes at each login: it
// counts logins there, and notes a wrong PIN. Keys are in files of their own.
var restless = []string{"token.object", "generation"}

// difference lists what differs between two snapshots, a line each.
func difference(before, after map[string]string) string {
	var lines []string
	for path, line := range before {
		if now, there := after[path]; !there {
			lines = append(lines, "gone:    "+path)
		} else if now != line {
			lines = append(lines, "changed: "+path)
		}
	}
	for path := range after {
		if _, there := before[path]; !there {
			lines = append(lines, "new:     "+path)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// holdsStill runs f and fails when it changed anything below $WORK, but for the
// one record of the run in a ledger, which must say says.
func holdsStill(ts *testscript.TestScript, says string, f func()) {
	work := ts.Getenv("WORK")
	before, err := snapshot(work)
	ts.Check(err)
	ledgers := readLedgers(ts, before)
	f()
	after, err := snapshot(work)
	ts.Check(err)
	for path, old := range ledgers {
		now, err := os.ReadFile(filepath.Join(work, path))
		ts.Check(err)
		added, goesOn := bytes.CutPrefix(now, old)
		if len(added) == 0 && goesOn {
			continue
		}
		if !goesOn || bytes.Count(added, []byte("\n")) != 1 || !bytes.Contains(added, []byte(`"event":"run"`)) || !bytes.Contains(added, []byte(says)) {
			ts.Fatalf("the command added to the ledger, or changed it:\n%s", added)
		}
		for _, path := range []string{path, filepath.Join(filepath.Dir(path), "ledger.head")} {
			delete(before, path)
			delete(after, path)
		}
	}
	if changes := difference(before, after); changes != "" {
		ts.Fatalf("the command changed files:\n%s", changes)
	}
}

// readLedgers returns the ledgers of a snapshot of $WORK, by path.
func readLedgers(ts *testscript.TestScript, found map[string]string) map[string][]byte {
	ledgers := map[string][]byte{}
	for path := range found {
		if filepath.Base(path) == "ledger.jsonl" {
			data, err := os.ReadFile(filepath.Join(ts.Getenv("WORK"), path))
			ts.Check(err)
			ledgers[path] = data
		}
	}
	return ledgers
}

// random are the parts of names that differ from run to run, and what the
// table shows instead.
var random = []struct {
	name *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`[0-9a-f]{32}`), "VERSION"},
}

func withoutRandom(s string) string {
	for _, r := range random {
		s = r.name.ReplaceAllString(s, r.as)
	}
	return s
}

// tree prints directories as a table: mode and path of each entry, random parts
// of names replaced, equal lines once with their number.
func tree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: tree DIR…")
	}
	for _, arg := range args {
		found, err := snapshot(ts.MkAbs(arg))
		ts.Check(err)
		var lines []string
		for path, line := range found {
			lines = append(lines, line[:len("-rw-------")]+" "+filepath.Join(arg, withoutRandom(path)))
		}
		_, err = ts.Stdout().Write(table(lines))
		ts.Check(err)
	}
}

// table sorts lines by path and writes equal ones once, with their number.
func table(lines []string) []byte {
	count := map[string]int{}
	for _, line := range lines {
		count[line]++
	}
	var b bytes.Buffer
	for _, line := range slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return strings.Compare(a[len("-rw-------"):], b[len("-rw-------"):])
	}) {
		b.WriteString(line)
		if n := count[line]; n > 1 {
			fmt.Fprintf(&b, " × %d", n)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}
