// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"keyferry/test/scripttest"
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

// All of the disconnected side's tests run where there is no network.
func TestMain(m *testing.M) { os.Exit(testbin.MainAlone(m)) }

func TestScripts(t *testing.T) { scripttest.Run(t, "S") }

func TestScriptsCoverCommands(t *testing.T) {
	for _, c := range newApp().Commands {
		scripttest.Covers(t, newApp().Name+" "+c.Name)
	}
}

// TestScriptsCoverVectors wants every bad vector refused, by both commands that
// read TPDs, and each for a reason of its own.
func TestScriptsCoverVectors(t *testing.T) {
	for _, command := range []string{"inspect", "import"} {
		script, err := os.ReadFile("testdata/" + command + "-bad.txt")
		if err != nil {
			t.Fatal(err)
		}
		reasons := map[string]bool{}
		for _, v := range vectors.AllTPD(t) {
			if !strings.HasPrefix(v.Name, "bad-") {
				continue
			}
			line := regexp.MustCompile(`(?m)^refused (KF-TPD-\S+) 1 offline ` + command + ` .*\$V/` + v.Name + `\.xml`).FindSubmatch(script)
			if line == nil {
				t.Fatalf("%s: %s is not refused", command, v.Name)
			}
			reasons[string(line[1])] = true
		}
		if len(reasons) != 11 {
			t.Errorf("%s: %d reasons, want one for each of 11 bad vectors", command, len(reasons))
		}
	}
}
