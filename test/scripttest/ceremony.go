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
// recipients classic ones; -approvers names those who have alice.pub and bob.pub
// as approvers, both of whom must approve.
func ceremony(ts *testscript.TestScript, neg bool, args []string) {
	flag := func(name string) bool {
		given := slices.Contains(args, name)
		args = slices.DeleteFunc(args, func(arg string) bool { return arg == name })
		return given
	}
	classic, approvers := flag("-classic"), flag("-approvers")
	last := -1
	for i, step := range steps {
		if len(args) == 1 && step.name == args[0] {
			last = i
		}
	}
	if neg || last < 0 {
		ts.Fatalf("usage: ceremony [-classic] [-approvers] STEP")
	}
	ts.Check(os.MkdirAll(filepath.Join(ts.Getenv("WORK"), "stick"), 0o755))
	for _, step := range steps[:last+1] {
		for _, command := range step.commands {
			if classic && step.name == "init" {
				command += " --classic-recipient"
			}
			if approvers && strings.HasPrefix(command, "online init") {
				command += " --approver alice.pub --approver bob.pub"
			}
			words := strings.Fields(strings.ReplaceAll(command, "$V", ts.Getenv("V")))
			must(ts, words...)
		}
	}
}
