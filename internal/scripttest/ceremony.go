// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// steps are the steps of a rehearsal, in order, with the sample
// contoso-mode2 under the key identifier contoso-slc. The KEK is small, since
// making a large one takes seconds.
var steps = []struct {
	name     string
	commands []string
}{
	{"init", []string{
		"offline init --rehearsal --state S --out stick",
		"online init --rehearsal --state T",
	}},
	{"kek", []string{"online kek create --state T --size 2048 --out stick"}},
	{"trust", []string{
		"online trust --state T --yes stick/offline-card-offline.json",
		"offline trust --state S --yes stick/BYOK-SecurityWorld-pkg-NA-1",
	}},
	{"import", []string{
		"offline import --state S --tpd-file-path $V/contoso-mode2.xml --key-identifier contoso-slc" +
			" --protection-password-file pw --exchange-key-package stick/BYOK-KEK-pkg-NA-1",
	}},
	{"seal", []string{"offline seal --state S --out stick"}},
	{"upload", []string{
		"online upload --state T stick/keyferry-offline-1.kfb --active contoso-slc --protection-password-file pw",
	}},
	{"receipt", []string{
		"online receipt --state T stick/keyferry-offline-1.kfb --out stick",
		"offline receipt --state S stick/keyferry-online-1.kfb",
	}},
}

// ceremony plays the steps up to the one named. -classic makes both sides'
// recipients classic ones.
func ceremony(ts *testscript.TestScript, neg bool, args []string) {
	classic := slices.Contains(args, "-classic")
	args = slices.DeleteFunc(args, func(arg string) bool { return arg == "-classic" })
	last := -1
	for i, step := range steps {
		if len(args) == 1 && step.name == args[0] {
			last = i
		}
	}
	if neg || last < 0 {
		ts.Fatalf("usage: ceremony [-classic] STEP")
	}
	ts.Check(os.MkdirAll(filepath.Join(ts.Getenv("WORK"), "stick"), 0o755))
	for _, step := range steps[:last+1] {
		for _, command := range step.commands {
			if classic && step.name == "init" {
				command += " --classic-recipient"
			}
			words := strings.Fields(strings.ReplaceAll(command, "$V", ts.Getenv("V")))
			must(ts, words...)
		}
	}
}
