// SPDX-License-Identifier: Apache-2.0

// Package machine tells what connects the machine to a network, or could.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// Finding is one thing that connects the machine, or could.
type Finding struct {
	About     string `json:"about"`     // interface, address, route, radio, socket
	Connected bool   `json:"connected"` // it connects the machine now
	Text      string `json:"text"`
}

// Look tells what connects the machine, or could, from what the kernel shows
// in proc and sys below root ("/" but in tests). No packet is sent, no socket
// opened. Connected are:
//
//   - an interface, not the loopback, that is up and has a carrier, or is a
//     tunnel and up;
//   - a default route;
//   - a radio that transmits (wireless LAN, Bluetooth, mobile) and is not
//     switched off by rfkill;
//   - a TCP connection to another machine.
//
// Told besides: interfaces without carrier, addresses, other routes, and sockets
// that listen to other machines. What can't be read counts as connected, so on a
// system without /proc the machine does.
//
// Interfaces are those of the process's network namespace, which
// /proc/self/net shows; /sys/class/net, asked for their state, shows that of
// whoever mounted it.
func Look(root string) []Finding {
	m := machine{root: root}
	m.interfaces()
	m.addresses()
	m.routes()
	m.radios()
	m.sockets()
	return m.found
}

// Refuse is the refusal of a connected machine (KF-AIRGAP-CONNECTED), nil for
// one that is not.
func Refuse(found []Finding) error {
	var why []string
	for _, f := range found {
		if f.Connected {
			why = append(why, f.Text)
		}
	}
	if why == nil {
		return nil
	}
	return control.Connected.Refuse("this machine is connected: %s", strings.Join(why, "; "))
}

// machine gathers findings.
type machine struct {
	root  string
	found []Finding
}

func (m *machine) tell(about string, connected bool, format string, args ...any) {
	m.found = append(m.found, Finding{about, connected, fmt.Sprintf(format, args...)})
}

// read returns a file of the kernel's, "" if it is not there or, as the carrier
// of an interface that is down, not to be had.
func (m *machine) read(path ...string) string {
	data, err := os.ReadFile(filepath.Join(append([]string{m.root}, path...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// lines returns the fields of each line of a table of the kernel's, without its
// heads. Only a table of IP version 6 may be absent.
func (m *machine) lines(about, path string, heads int) [][]string {
	data, err := os.ReadFile(filepath.Join(m.root, path))
	if errors.Is(err, fs.ErrNotExist) && strings.Contains(filepath.Base(path), "6") {
		return nil
	}
	if err != nil {
		m.tell(about, true, "what it has of the kind %q can't be known: %v", about, err)
		return nil
	}
	var table [][]string
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if fields := strings.Fields(line); i >= heads && len(fields) > 0 {
			table = append(table, fields)
		}
	}
	return table
}

// list returns the names in a directory, none if it is not there.
func (m *machine) list(path string) []string {
	entries, err := os.ReadDir(filepath.Join(m.root, path))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
