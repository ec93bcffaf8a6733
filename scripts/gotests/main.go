// SPDX-License-Identifier: Apache-2.0

// Command gotests reads what "go test -json" writes and says what a person wants
// to know, on standard error: a line for each package, what its tests counted, and
// all that a failed test printed. On standard output it leaves what scripts/test adds up: the
// numbers of passed, failed and skipped tests in a line, then a line for each
// skipped test with its reason.
//
// A test with subtests counts beside them, as go test has it. A package that
// fails without a failed test (it does not build, or it crashed) counts as one
// failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	s := newSummary(os.Stderr)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "gotests:", err)
		os.Exit(1)
	}
	fmt.Println(s.passed, s.failed, len(s.skipped))
	for _, line := range s.skipped {
		fmt.Println(line)
	}
}

// event is a line of "go test -json"; see "go doc test2json".
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build
	Test       string
	Elapsed    float64
	Output     string
}

type summary struct {
	people            io.Writer
	passed, failed    int
	skipped           []string
	output            map[string][]string // lines by package and test
	counts            map[string][]string // by package
	testsIn, failedIn map[string]int      // by package
}

func newSummary(people io.Writer) *summary {
	return &summary{people: people, output: map[string][]string{}, counts: map[string][]string{}, testsIn: map[string]int{}, failedIn: map[string]int{}}
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(s.people, lines.Text()) // go's own words, not a test's
			continue
		}
		s.take(e)
	}
	return lines.Err()
}

func (s *summary) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		s.output[key] = append(s.output[key], e.Output)
		return
	case "build-output":
		fmt.Fprint(s.people, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	if e.Test == "" {
		s.takePackage(e)
	} else {
		s.takeTest(e)
	}
	delete(s.output, key)
}

func (s *summary) takeTest(e event) {
	s.testsIn[e.Package]++
	switch e.Action {
	case "pass":
		s.passed++
		for _, count := range counts(s.output[e.Package+" "+e.Test]) {
			s.counts[e.Package] = append(s.counts[e.Package], e.Test+": "+count)
		}
	case "fail":
		s.failed++
		s.failedIn[e.Package]++
		fmt.Fprintf(s.people, "FAIL %s %s\n%s", e.Package, e.Test, strings.Join(s.output[e.Package+" "+e.Test], ""))
	case "skip":
		s.skipped = append(s.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(s.output[e.Package+" "+e.Test])))
	}
}

func (s *summary) takePackage(e event) {
	tests := s.testsIn[e.Package]
	switch {
	case e.Action == "skip", e.Action == "pass" && tests == 0: // it has no tests
	case e.Action == "pass":
		fmt.Fprintf(s.people, "ok   %s, %d tests (%.0f s)\n", e.Package, tests, e.Elapsed)
		for _, line := range s.counts[e.Package] {
			fmt.Fprintf(s.people, "       %s\n", line)
		}
	case s.failedIn[e.Package] > 0:
		fmt.Fprintf(s.people, "FAIL %s, %d of %d tests (%.0f s)\n", e.Package, s.failedIn[e.Package], tests, e.Elapsed)
	default:
		s.failed++
		fmt.Fprintf(s.people, "FAIL %s\n%s", e.Package, strings.Join(s.output[e.Package+" "], ""))
		for key, lines := range s.output { // of the tests that a crash cut short
			if strings.HasPrefix(key, e.Package+" ") && key != e.Package+" " {
				fmt.Fprint(s.people, strings.Join(lines, ""))
			}
		}
	}
}

// counts are what a test logged behind "count: ": how many cases it had.
func counts(output []string) (found []string) {
	for _, line := range output {
		if _, count, ok := strings.Cut(strings.TrimSpace(line), "count: "); ok {
			found = append(found, count)
		}
	}
	return found
}

// reason is the first line that a skipped test said.
func reason(output []string) string {
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "it gave no reason"
}
