// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// wayOff is what a person does about a connection.
const wayOff = "pull the cables, switch the radios off ('rfkill block all'), take tunnels and routes down"

// Look tells what connects the machine, or could.
func Look() []Finding { return look("/") }

// look reads what the kernel shows in proc and sys below root.
//
// Interfaces are those of the process's network namespace, which
// /proc/self/net shows; /sys/class/net, asked for their state, shows that of
// whoever mounted it.
func look(root string) []Finding {
	m := machine{root: root}
	m.interfaces()
	m.addresses()
	m.routes()
	m.radios()
	m.sockets()
	return m.gathered
}

// machine is what the kernel shows below root.
type machine struct {
	root string
	gathered
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

// Sources: Documentation/ABI/testing/sysfs-class-net, sysfs-class-rfkill and
// sysfs-class-bluetooth of the kernel; proc(5); net/ipv4/fib_trie.c and
// net/ipv6/route.c for the tables in /proc/net.

const loopback = "lo"

// interfaces looks at /proc/self/net/dev, whose lines begin with "NAME:".
func (m *machine) interfaces() {
	for _, fields := range m.lines("interface", "proc/self/net/dev", 2) {
		if name, _, _ := strings.Cut(fields[0], ":"); name != loopback {
			m.iface(name)
		}
	}
}

func (m *machine) iface(name string) {
	kind := m.kind(name)
	flags, err := strconv.ParseUint(m.read("sys/class/net", name, "flags"), 0, 32)
	const up = 1 // IFF_UP
	switch {
	case err != nil:
		m.tell("interface", true, "the state of the %s %s can't be read", kind, name)
	case flags&up == 0:
	case m.read("sys/class/net", name, "carrier") == "1":
		m.tell("interface", true, "the %s %s is up and has a carrier", kind, name)
	case kind == tunnel:
		m.tell("interface", true, "the %s %s is up", kind, name)
	default:
		m.tell("interface", false, "the %s %s is up, without a carrier", kind, name)
	}
}

const tunnel = "VPN or tunnel device"

// tunnelTypes are the hardware types (ARPHRD_…) of point-to-point tunnels: PPP,
// IPIP, IP6IP6, SIT, GRE, IP6GRE, and none, which tun devices and WireGuard have.
var tunnelTypes = []string{"512", "768", "769", "776", "778", "823", "65534"}

func (m *machine) kind(name string) string {
	in := m.list("sys/class/net/" + name)
	switch {
	case slices.Contains(in, "tun_flags"), slices.Contains(tunnelTypes, m.read("sys/class/net", name, "type")):
		return tunnel
	case slices.Contains(in, "wireless"), slices.Contains(in, "phy80211"):
		return "wireless interface"
	case strings.Contains(m.read("sys/class/net", name, "uevent"), "DEVTYPE=wwan"):
		return "mobile interface"
	}
	return "interface"
}

// addresses tells those of the machine that other machines may know: of IPv4
// from the trie of routes, where "/32 host LOCAL" follows the address; of IPv6
// from if_inet6 (address, index, length, scope, flags, interface).
func (m *machine) addresses() {
	var all []string
	last := ""
	for _, fields := range m.lines("address", "proc/self/net/fib_trie", 0) {
		switch {
		case fields[0] == "|--" && len(fields) > 1:
			last = fields[1]
		case fields[0] == "/32" && fields[len(fields)-1] == "LOCAL" && !strings.HasPrefix(last, "127."):
			all = append(all, last)
		}
	}
	for _, fields := range m.lines("address", "proc/self/net/if_inet6", 0) {
		if name := fields[len(fields)-1]; name != loopback {
			all = append(all, parse6(fields[0])+" on "+name)
		}
	}
	slices.Sort(all)
	for _, address := range slices.Compact(all) {
		m.tell("address", false, "it has the address %s", address)
	}
}

// parse6 reads 32 hex digits.
func parse6(hex string) string {
	var parts []string
	for part := range slices.Chunk([]byte(hex), 4) {
		parts = append(parts, string(part))
	}
	address, err := netip.ParseAddr(strings.Join(parts, ":"))
	if err != nil {
		return hex
	}
	return address.String()
}

// routes looks at /proc/self/net/route (interface, destination, gateway, flags,
// …, mask at 7) and ipv6_route (destination, its length, …, flags at 8,
// interface at 9).
func (m *machine) routes() {
	for _, fields := range m.lines("route", "proc/self/net/route", 1) {
		if len(fields) > 7 {
			m.route("IPv4", fields[0], fields[1] == "00000000" && fields[7] == "00000000")
		}
	}
	const ours = 0x200 | 0x80000000 // RTF_REJECT: to nowhere; RTF_LOCAL: to this machine
	for _, fields := range m.lines("route", "proc/self/net/ipv6_route", 0) {
		if len(fields) < 10 {
			continue
		}
		flags, err := strconv.ParseUint(fields[8], 16, 32)
		if err == nil && flags&ours == 0 {
			m.route("IPv6", fields[9], fields[1] == "00")
		}
	}
}

func (m *machine) route(version, name string, isDefault bool) {
	switch {
	case name == loopback:
	case isDefault:
		m.tell("route", true, "there is a default route of %s, over %s", version, name)
	default:
		m.tell("route", false, "there is a route of %s over %s", version, name)
	}
}

// silent are the radios of rfkill that only receive.
var silent = []string{"gps", "fm"}

// classes are where radios are listed by their drivers, with the kind that
// rfkill has for them.
var classes = []struct{ dir, kind string }{{"sys/class/ieee80211", "wlan"}, {"sys/class/bluetooth", "bluetooth"}}

// radios looks for those that rfkill does not block, and those it does not know.
func (m *machine) radios() {
	known := map[string]bool{}
	for _, entry := range m.list("sys/class/rfkill") {
		kind := m.read("sys/class/rfkill", entry, "type")
		known[kind] = true
		off := m.read("sys/class/rfkill", entry, "soft") == "1" || m.read("sys/class/rfkill", entry, "hard") == "1"
		name := m.read("sys/class/rfkill", entry, "name")
		switch {
		case off:
			m.tell("radio", false, "the radio %s (%s) is switched off", name, kind)
		case !slices.Contains(silent, kind):
			m.tell("radio", true, "the radio %s (%s) is switched on", name, kind)
		}
	}
	for _, class := range classes {
		if names := m.list(class.dir); len(names) > 0 && !known[class.kind] {
			m.tell("radio", true, "the radio %s (%s) can't be switched off by rfkill", names[0], class.kind)
		}
	}
}

// States of a socket in /proc/net.
const (
	established = "01"
	unconnected = "07" // of UDP: it receives from anybody
	listening   = "0A"
)

// sockets looks at /proc/self/net/tcp and its like: number, local address and
// port, remote ones, state.
func (m *machine) sockets() {
	for _, protocol := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, fields := range m.lines("socket", "proc/self/net/"+protocol, 1) {
			if len(fields) < 4 {
				continue
			}
			local, remote, state := fields[1], fields[2], fields[3]
			switch {
			case state == established && !isLoopback(remote):
				m.tell("socket", true, "there is a connection (%s) to another machine", protocol)
			case (state == listening || state == unconnected) && !isLoopback(local):
				m.tell("socket", false, "a program listens to other machines at port %s (%s)", port(local), protocol)
			}
		}
	}
}

// isLoopback reads ADDRESS:PORT in hex. The address is of IPv4 with the last
// byte first, or of IPv6 as four such words.
func isLoopback(address string) bool {
	host, _, _ := strings.Cut(address, ":")
	const mapped = "0000000000000000FFFF0000"
	v4 := strings.TrimPrefix(host, mapped)
	return len(v4) == 8 && strings.HasSuffix(v4, "7F") || host == "00000000000000000000000001000000"
}

func port(address string) string {
	_, hex, _ := strings.Cut(address, ":")
	n, err := strconv.ParseUint(hex, 16, 16)
	if err != nil {
		return "?"
	}
	return strconv.FormatUint(n, 10)
}
