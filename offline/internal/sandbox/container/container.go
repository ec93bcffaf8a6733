// SPDX-License-Identifier: Apache-2.0

// Package container has the program run in an AppContainer on Windows.
//
// A process in an AppContainer has a token with two halves: it may open what both
// its user and its container may. The container of Keyferry has no capabilities,
// so that it reaches no network, no device and no other process, and of files only
// those that are open to every container, as Windows and C:\Program Files are, and
// those whose access list names this container. The process outside, the broker,
// names it there for as long as the command runs: for what the command line names,
// where the command writes, and where the HSM's module lies. What package durable
// writes for its owner alone names it always: that lets in no other user, and no
// other container.
//
// It is tried, not believed: the broker starts the program in the container once
// to try all of that, the module with its token among it, and then a second time
// to do it. Where the trial fails, the broker itself goes on, without a container,
// and the record says why: a module whose service or device is shut off from
// containers must not stop a ceremony.
//
// Sources: learn.microsoft.com, "Launch an AppContainer", "AppContainer for legacy
// apps", userenv.h, UpdateProcThreadAttribute.
package container

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
)

// Name is that of the container, for every user of every machine.
const Name = "keyferry.offline"

// SID is the security identifier that Windows derives of the name of a container:
// of the SHA-256 of the name, in lower case and UTF-16, the first seven numbers.
func SID(name string) string {
	var text []byte
	for _, unit := range utf16.Encode([]rune(strings.ToLower(name))) {
		text = binary.LittleEndian.AppendUint16(text, unit)
	}
	sum := sha256.Sum256(text)
	sid := "S-1-15-2"
	for i := range 7 {
		sid += fmt.Sprintf("-%d", binary.LittleEndian.Uint32(sum[4*i:]))
	}
	return sid
}

// Stage is why the program runs.
type Stage string

const (
	Outside Stage = ""       // as the broker
	Trial   Stage = "trial"  // in the container, to try it
	Inside  Stage = "inside" // in the container, to do what the command line says
)

// Place is a file or directory that the container gets at.
type Place struct {
	Path  string
	Write bool // else it reads only
	Deep  bool // with all that is in it; else with the files directly in it
	Plain bool // with nothing that is in it
}

// Ended is how a run in the container ended.
type Ended struct {
	Said string // to the broker, at a trial
	Code uint32
}

// System is Windows, or a test's.
type System interface {
	// Prepare fails where there are no containers, or they shut nothing.
	Prepare() error
	// Change has an access list name the container, or no longer name it, with the
	// rights of the place. It reports whether that was not so before.
	Change(path string, p Place, name bool) (changed bool, err error)
	Run(Stage) (Ended, error)
}

// network fails where the container shuts what the module needs, or leaves open what
// nobody has asked for. Of sockets, none but loopback can be had in it, and that one
// by an administrator.
func network(asked, loopback bool) error {
	switch {
	case asked && !loopback:
		return fmt.Errorf("--unsafe-hsm-network asks for sockets; where loopback is enough, an administrator opens it by 'CheckNetIsolation LoopbackExempt -a -n=%s'", Name)
	case !asked && loopback:
		return fmt.Errorf("an administrator has opened loopback to it, and --unsafe-hsm-network was not given; 'CheckNetIsolation LoopbackExempt -d -n=%s' shuts it", Name)
	}
	return nil
}

// held is what the trial says where it holds.
const held = "held"

// Enter runs the program in the container, and returns its exit code; or why it
// can't be had, and then nothing was done but to try it.
func Enter(s System, places []Place) (code uint32, lacks string) {
	if err := s.Prepare(); err != nil {
		return 0, err.Error()
	}
	g := grants{system: s, before: map[string]bool{}}
	defer g.takeBack()
	for _, place := range places {
		g.give(place)
	}
	trial, err := s.Run(Trial)
	switch {
	case err != nil:
		return 0, fmt.Sprintf("the program can't be started in it: %v", err)
	case trial.Said != held && trial.Said != "":
		return 0, trial.Said
	case trial.Said == "" || trial.Code != 0:
		return 0, fmt.Sprintf("the program ended in it with %#x", trial.Code)
	}
	ended, err := s.Run(Inside)
	if err != nil {
		return 0, fmt.Sprintf("the program can't be started in it a second time: %v", err)
	}
	return ended.Code, ""
}

// grants are the access lists that name the container for now.
type grants struct {
	system System
	places []Place
	before map[string]bool // those that named it before: by an administrator, or by package durable
}

// give names the container in the list of the place, and in those of what is in it.
// What can't be given may be open already, to all containers: the trial tells.
func (g *grants) give(p Place) {
	paths, err := within(p)
	if err != nil {
		return
	}
	g.places = append(g.places, p)
	for _, path := range paths {
		if changed, err := g.system.Change(path, p, true); !changed && err == nil {
			g.before[path] = true
		}
	}
}

// takeBack takes the container out of the lists that it was not in before, and out
// of those of what was put into the places meanwhile. What can't be taken back lets in
// nobody but this user, and only in this container.
func (g *grants) takeBack() {
	for _, p := range slices.Backward(g.places) {
		paths, err := within(p)
		if err != nil {
			paths = []string{p.Path}
		}
		for _, path := range slices.Backward(paths) {
			if !g.before[path] {
				g.system.Change(path, p, false)
			}
		}
	}
}

// most is how many files of a directory are opened to the container; one that holds
// more is none of a ceremony's.
const most = 5000

// within lists a place and the files directly in it, which the program may have to
// compare or replace; of a deep one, all.
func within(p Place) (paths []string, err error) {
	if p.Plain {
		return []string{p.Path}, nil
	}
	err = filepath.WalkDir(p.Path, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != p.Path && !p.Deep && entry.IsDir():
			return fs.SkipDir
		case entry.IsDir() || entry.Type().IsRegular():
			paths = append(paths, path)
		}
		if len(paths) > most {
			return fmt.Errorf("%s holds more than %d files", p.Path, most)
		}
		return nil
	})
	return paths, err
}
