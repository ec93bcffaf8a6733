// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Windows derives these for Microsoft's own containers.
func TestSID(t *testing.T) {
	for name, want := range map[string]string{
		"microsoft.microsoftedge_8wekyb3d8bbwe": "S-1-15-2-3624051433-2125758914-1423191267-1740899205-1073925389-3782572162-737981194",
		"Windows_IE_AC_001":                     "S-1-15-2-1430448594-2639229838-973813799-439329657-1197984847-4069167804-1277922394",
	} {
		if got := SID(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// fake is a Windows that answers as it is told, and keeps what was done. Its access
// lists name the container or not.
type fake struct {
	prepare       error
	trial, inside Ended
	broken        Stage // whose process does not start
	ran           []string
	names         map[string]bool
	locked        string // whose list can't be changed
	meanwhile     func() // what the program does inside
}

func (f *fake) Prepare() error { return f.prepare }

func (f *fake) Change(path string, _ Place, name bool) (bool, error) {
	if path == f.locked {
		return false, errors.New("access denied")
	}
	changed := f.names[path] != name
	f.names[path] = name
	return changed, nil
}

func (f *fake) Run(s Stage) (Ended, error) {
	if s == f.broken {
		return Ended{}, errors.New("no such process")
	}
	f.ran = append(f.ran, string(s))
	if s == Inside && f.meanwhile != nil {
		f.meanwhile()
	}
	return map[Stage]Ended{Trial: f.trial, Inside: f.inside}[s], nil
}

// named are the paths whose lists name the container, below a directory.
func (f *fake) named(dir string) (paths []string) {
	for path, is := range f.names {
		if is {
			paths = append(paths, strings.TrimPrefix(path, dir+"/"))
		}
	}
	slices.Sort(paths)
	return paths
}

// tree makes files.
func tree(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// The program does its work in the container only after the trial has held, and what
// the container was given is taken back in each case.
func TestEnter(t *testing.T) {
	for name, c := range map[string]struct {
		system fake
		code   uint32
		lacks  string
		runs   []string
	}{
		"held":                  {system: fake{trial: Ended{Said: "held"}}, runs: []string{"trial", "inside"}},
		"held, and refused":     {system: fake{trial: Ended{Said: "held"}, inside: Ended{Code: 1}}, code: 1, runs: []string{"trial", "inside"}},
		"held, and crashed":     {system: fake{trial: Ended{Said: "held"}, inside: Ended{Code: 0xC0000005}}, code: 0xC0000005, runs: []string{"trial", "inside"}},
		"no containers":         {system: fake{prepare: errors.New("there are none")}, lacks: "there are none"},
		"a place is shut":       {system: fake{trial: Ended{Said: "it can't reach export", Code: 1}}, lacks: "it can't reach export", runs: []string{"trial"}},
		"says nothing":          {system: fake{trial: Ended{Code: 0xC0000142}}, lacks: "the program ended in it with 0xc0000142", runs: []string{"trial"}},
		"ends well, in silence": {system: fake{}, lacks: "the program ended in it with 0x0", runs: []string{"trial"}},
		"says held, and fails":  {system: fake{trial: Ended{Said: "held", Code: 2}}, lacks: "the program ended in it with 0x2", runs: []string{"trial"}},
		"does not start":        {system: fake{broken: Trial}, lacks: "no such process"},
		"does not start again":  {system: fake{trial: Ended{Said: "held"}, broken: Inside}, lacks: "no such process", runs: []string{"trial"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree(t, dir, "export")
			c.system.names = map[string]bool{}
			code, lacks := Enter(&c.system, []Place{{Path: filepath.Join(dir, "export")}})
			if code != c.code || !strings.Contains(lacks, c.lacks) || lacks != "" && c.lacks == "" {
				t.Errorf("%#x, %q, want %#x, %q", code, lacks, c.code, c.lacks)
			}
			if !slices.Equal(c.system.ran, c.runs) {
				t.Errorf("it ran as %q, want %q", c.system.ran, c.runs)
			}
			if left := c.system.named(dir); len(left) > 0 {
				t.Errorf("not taken back: %q", left)
			}
		})
	}
}

// Loopback is open in the container if it is asked for, and not else.
func TestNetwork(t *testing.T) {
	for _, both := range []bool{false, true} {
		if err := network(both, both); err != nil {
			t.Errorf("%t: %v", both, err)
		}
		if err := network(both, !both); err == nil || !strings.Contains(err.Error(), "CheckNetIsolation LoopbackExempt -") {
			t.Errorf("asked %t, open %t: %v", both, !both, err)
		}
	}
}

// Given is what is in a place, no more; taken back is what was given, and what came
// into it meanwhile, but not what was open before.
func TestGiveAndTakeBack(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, "state/ledger", "state/identity/key", "out/bundle", "out/other/file", "here/file", "locked", "export")
	at := func(name string) string { return filepath.Join(dir, name) }
	f := &fake{names: map[string]bool{at("out/bundle"): true}, locked: at("locked"), trial: Ended{Said: held}}
	f.meanwhile = func() {
		want := []string{"export", "here", "out", "out/bundle", "state", "state/identity", "state/identity/key", "state/ledger"}
		if got := f.named(dir); !slices.Equal(got, want) {
			t.Errorf("inside, the container is let in at %q, want %q", got, want)
		}
		tree(t, dir, "out/new", "state/new")
		f.names[at("out/new")], f.names[at("state/new")] = true, true // by inheritance
	}
	if _, lacks := Enter(f, []Place{{Path: at("state"), Write: true, Deep: true}, {Path: at("out"), Write: true}, {Path: at("here"), Plain: true},
		{Path: at("locked")}, {Path: at("gone")}, {Path: at("export")}}); lacks != "" {
		t.Fatal(lacks)
	}
	if got := f.named(dir); !slices.Equal(got, []string{"out/bundle"}) {
		t.Errorf("afterwards it is let in at %q", got)
	}
}

// A directory with more files than any of a ceremony is left alone.
func TestGiveHasABound(t *testing.T) {
	dir := t.TempDir()
	for i := range most + 1 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &fake{names: map[string]bool{}}
	Enter(f, []Place{{Path: dir, Deep: true}})
	if len(f.names) > 0 {
		t.Errorf("%d lists were changed", len(f.names))
	}
}
