// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const (
		pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"--- PASS: TestA\n"}
			{"Action":"pass","Package":"p","Test":"TestA"}
			{"Action":"pass","Package":"p","Elapsed":2}`
		count = `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: count: 12 flips\n"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:8: not counted\n"}
			{"Action":"pass","Package":"p","Test":"TestA"}
			{"Action":"pass","Package":"p","Elapsed":2}`
		fail = `{"Action":"output","Package":"p","Test":"TestA/one","Output":"    a_test.go:7: broken\n"}
			{"Action":"fail","Package":"p","Test":"TestA/one"}
			{"Action":"fail","Package":"p","Test":"TestA"}
			{"Action":"fail","Package":"p"}`
		skip = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: not root\n"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
			{"Action":"skip","Package":"p","Test":"TestA"}
			{"Action":"pass","Package":"p"}`
		build = `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax error\n"}
			{"ImportPath":"p","Action":"build-fail"}
			{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
			{"Action":"fail","Package":"p"}`
		crash = `{"Action":"run","Package":"p","Test":"TestA"}
			{"Action":"output","Package":"p","Test":"TestA","Output":"panic: no\n"}
			{"Action":"output","Package":"p","Output":"exit status 2\n"}
			{"Action":"fail","Package":"p"}`
		none = `{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
			{"Action":"skip","Package":"p"}`
	)
	for _, c := range []struct {
		name, in       string
		passed, failed int
		skipped        []string
		said           []string
	}{
		{"pass", pass, 1, 0, nil, []string{"ok   p, 1 tests (2 s)"}},
		{"count", count, 1, 0, nil, []string{"ok   p, 1 tests (2 s)\n       TestA: 12 flips\n"}},
		{"fail", fail, 0, 2, nil, []string{"FAIL p TestA/one", "broken", "FAIL p, 2 of 2 tests"}},
		{"skip", skip, 0, 0, []string{"p TestA: a_test.go:7: not root"}, []string{"ok   p"}},
		{"build failure", build, 0, 1, nil, []string{"syntax error", "FAIL p", "build failed"}},
		{"crash", crash, 0, 1, nil, []string{"panic: no", "exit status 2"}},
		{"no tests", none, 0, 0, nil, nil},
		{"go's own words", "go: cannot find main module", 0, 0, nil, []string{"cannot find main module"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var people strings.Builder
			s := newSummary(&people)
			if err := s.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if s.passed != c.passed || s.failed != c.failed || !slices.Equal(s.skipped, c.skipped) {
				t.Errorf("got %d passed, %d failed, skipped %q", s.passed, s.failed, s.skipped)
			}
			for _, want := range c.said {
				if !strings.Contains(people.String(), want) {
					t.Errorf("%q is not in:\n%s", want, people.String())
				}
			}
			if strings.Contains(people.String(), "PASS") {
				t.Errorf("a passed test is shown:\n%s", people.String())
			}
		})
	}
}
