// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// disconnected is what a machine without any network shows: tables with nothing
// but the loopback in them.
var disconnected = map[string]string{
	"proc/self/net/dev":        devHead + "    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n",
	"proc/self/net/route":      routeHead,
	"proc/self/net/ipv6_route": reject6 + local6,
	"proc/self/net/fib_trie":   "Local:\n  +-- 127.0.0.0/8 2 0 2\n     |-- 127.0.0.1\n        /32 host LOCAL\n",
	"proc/self/net/if_inet6":   "00000000000000000000000000000001 01 80 10 80       lo\n",
	"proc/self/net/tcp":        socketHead + "   0: 0100007F:0277 00000000:0000 0A 0\n   1: 0100007F:9C40 0100007F:0277 01 0\n",
	"proc/self/net/tcp6":       socketHead + "   0: 00000000000000000000000001000000:0277 00000000000000000000000000000000:0000 0A 0\n",
	"proc/self/net/udp":        socketHead,
	"proc/self/net/udp6":       socketHead,
	"sys/class/net/lo/flags":   "0x9\n",
	"sys/class/net/lo/type":    "772\n",
}

const (
	devHead    = "Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n"
	routeHead  = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
	socketHead = "  sl  local_address rem_address   st\n"
	zero6      = "00000000000000000000000000000000"
	reject6    = zero6 + " 00 " + zero6 + " 00 " + zero6 + " ffffffff 00000001 00000000 00200200       lo\n"
	local6     = "fe8000000000000000fc00fffe000001 80 " + zero6 + " 00 " + zero6 + " 00000000 00000002 00000000 80200001     eth0\n"
)

// tree lays a machine out in files: disconnected, with the changes. An empty
// content takes a file away.
func tree(t *testing.T, changes map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := maps.Clone(disconnected)
	maps.Copy(files, changes)
	for name, content := range files {
		if content == "" {
			continue
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// dev is /proc/self/net/dev with one more interface.
func dev(name string) string { return disconnected["proc/self/net/dev"] + name + ": 0 0\n" }

// card is an interface as sysfs shows it.
func card(name string, attributes map[string]string) map[string]string {
	changes := map[string]string{"proc/self/net/dev": dev(name)}
	for attribute, value := range attributes {
		changes["sys/class/net/"+name+"/"+attribute] = value + "\n"
	}
	return changes
}

func radio(kind, soft, hard string) map[string]string {
	at := "sys/class/rfkill/rfkill0/"
	return map[string]string{at + "type": kind + "\n", at + "soft": soft + "\n", at + "hard": hard + "\n", at + "name": "hci0\n"}
}

func TestLookFindsConnections(t *testing.T) {
	for name, c := range map[string]struct {
		changes map[string]string
		want    string
	}{
		"cable":                 {card("eth0", map[string]string{"flags": "0x1003", "carrier": "1", "type": "1"}), "the interface eth0 is up and has a carrier"},
		"wireless":              {card("wlan0", map[string]string{"flags": "0x1003", "carrier": "1", "phy80211/name": "phy0"}), "the wireless interface wlan0 is up and has a carrier"},
		"mobile":                {card("wwan0", map[string]string{"flags": "0x1", "carrier": "1", "uevent": "DEVTYPE=wwan"}), "the mobile interface wwan0 is up and has a carrier"},
		"tun":                   {card("tun0", map[string]string{"flags": "0x1091", "carrier": "0", "tun_flags": "0x1", "type": "65534"}), "the VPN or tunnel device tun0 is up"},
		"WireGuard":             {card("wg0", map[string]string{"flags": "0x91", "carrier": "1", "type": "65534"}), "the VPN or tunnel device wg0 is up and has a carrier"},
		"PPP":                   {card("ppp0", map[string]string{"flags": "0x10d1", "type": "512"}), "the VPN or tunnel device ppp0 is up"},
		"sysfs of another":      {card("eth0", nil), "the state of the interface eth0 can't be read"},
		"default route":         {map[string]string{"proc/self/net/route": routeHead + "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"}, "there is a default route of IPv4, over eth0"},
		"default route of IPv6": {map[string]string{"proc/self/net/ipv6_route": zero6 + " 00 " + zero6 + " 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003 eth0\n"}, "there is a default route of IPv6, over eth0"},
		"Bluetooth":             {radio("bluetooth", "0", "0"), "the radio hci0 (bluetooth) is switched on"},
		"wireless radio":        {radio("wlan", "0", "0"), "the radio hci0 (wlan) is switched on"},
		"radio without rfkill":  {map[string]string{"sys/class/bluetooth/hci1/address": "x"}, "the radio hci1 (bluetooth) can't be switched off by rfkill"},
		"connection":            {map[string]string{"proc/self/net/tcp": socketHead + " 1: 020200C0:9C40 05020CC0:01BB 01 0\n"}, "there is a connection (tcp) to another machine"},
		"connection of IPv6":    {map[string]string{"proc/self/net/tcp6": socketHead + " 1: 000000FD000000000000000002000000:9C40 000000FD000000000000000001000000:01BB 01 0\n"}, "there is a connection (tcp6) to another machine"},
		"no table":              {map[string]string{"proc/self/net/dev": ""}, "can't be known"},
		"no routes":             {map[string]string{"proc/self/net/route": ""}, "can't be known"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Refuse(look(tree(t, c.changes)))
			if !control.Is(err, control.Connected) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLookFindsNoConnection(t *testing.T) {
	for name, c := range map[string]struct {
		changes map[string]string
		want    []string
	}{
		"nothing":                   {nil, nil},
		"no IPv6":                   {map[string]string{"proc/self/net/ipv6_route": "", "proc/self/net/if_inet6": "", "proc/self/net/tcp6": "", "proc/self/net/udp6": ""}, nil},
		"down":                      {card("eth0", map[string]string{"flags": "0x1002", "type": "1"}), nil},
		"no cable":                  {card("eth0", map[string]string{"flags": "0x1003", "carrier": "0", "type": "1"}), []string{"the interface eth0 is up, without a carrier"}},
		"tunnel down":               {card("wg0", map[string]string{"flags": "0x90", "type": "65534"}), nil},
		"radio blocked":             {radio("bluetooth", "1", "0"), []string{"the radio hci0 (bluetooth) is switched off"}},
		"radio switched":            {radio("wlan", "0", "1"), []string{"the radio hci0 (wlan) is switched off"}},
		"receiver":                  {radio("gps", "0", "0"), nil},
		"interfaces of sysfs alone": {map[string]string{"sys/class/net/eth0/flags": "0x1003\n", "sys/class/net/eth0/carrier": "1\n"}, nil},
		"address": {map[string]string{
			"proc/self/net/fib_trie": "Main:\n |-- 192.0.2.2\n /32 host LOCAL\n |-- 192.0.2.255\n /32 link BROADCAST\nLocal:\n |-- 192.0.2.2\n /32 host LOCAL\n",
			"proc/self/net/if_inet6": "fd000000000000000000000000000002 04 40 00 82     eth0\n",
		}, []string{"it has the address 192.0.2.2", "it has the address fd00::2 on eth0"}},
		"route": {map[string]string{"proc/self/net/route": routeHead + "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"}, []string{"there is a route of IPv4 over eth0"}},
		"listener": {map[string]string{
			"proc/self/net/tcp": socketHead + " 0: 00000000:0016 00000000:0000 0A 0\n",
			"proc/self/net/udp": socketHead + " 0: 00000000:14E9 00000000:0000 07 0\n",
		}, []string{"a program listens to other machines at port 22 (tcp)", "a program listens to other machines at port 5353 (udp)"}},
		"connection to itself": {map[string]string{"proc/self/net/tcp6": socketHead + " 1: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:01BB 01 0\n"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			found := look(tree(t, c.changes))
			if err := Refuse(found); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.Text)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}
