// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// Sources: iphlpapi.h, netioapi.h, ifdef.h, tcpmib.h, wlanapi.h and
// bluetoothapis.h of the Windows SDK, and what learn.microsoft.com says of them.

// wayOff is what a person does about a connection.
const wayOff = "pull the cables, turn airplane mode on, end VPNs, disable what is left in ncpa.cpl or by Disable-NetAdapter, and Bluetooth in the device manager"

// machine is what Windows answers. No file is opened.
type machine struct {
	gathered
	adapters map[uint64]*adapter // by their LUID
}

type adapter struct {
	name, kind string
	up         bool
}

// Seen is what was seen from outside of a container, which hides the machine.
var Seen []Finding

// Look tells what connects the machine, or could.
func Look() []Finding {
	if Seen != nil {
		return Seen
	}
	m := machine{adapters: map[uint64]*adapter{}}
	m.interfaces()
	m.routes()
	m.radios()
	m.sockets()
	m.disks()
	return m.gathered
}

// unknown counts as connected.
func (m *machine) unknown(about, what string, err error) {
	m.tell(about, true, "Windows does not tell %s: %v", what, err)
}

const wireless, mobile, tunnel = "wireless interface", "mobile interface", "VPN or tunnel device"

func kind(ifType uint32) string {
	const virtual, wwan, wwan2 = 53, 243, 244 // IF_TYPE_PROP_VIRTUAL, such as WireGuard's; IF_TYPE_WWANPP
	switch ifType {
	case windows.IF_TYPE_IEEE80211:
		return wireless
	case wwan, wwan2:
		return mobile
	case windows.IF_TYPE_PPP, windows.IF_TYPE_TUNNEL, virtual:
		return tunnel
	}
	return "interface"
}

// interfaces looks at those that IP is bound to, and at the hardware that it is not
// bound to, such as a card that only virtual machines use. A disabled one is in
// neither list.
func (m *machine) interfaces() {
	const flags = windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST | windows.GAA_FLAG_SKIP_DNS_SERVER
	memory := make([]uint64, 1<<13)
	size := uint32(len(memory) * 8)
	first := func() *windows.IpAdapterAddresses { return (*windows.IpAdapterAddresses)(unsafe.Pointer(&memory[0])) }
	err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first(), &size)
	for errors.Is(err, windows.ERROR_BUFFER_OVERFLOW) {
		memory = make([]uint64, size/8+1<<10) // some more: others may come meanwhile
		size = uint32(len(memory) * 8)
		err = windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, first(), &size)
	}
	switch {
	case errors.Is(err, windows.ERROR_NO_DATA):
	case err != nil:
		m.unknown("interface", "which interfaces there are (GetAdaptersAddresses)", err)
	default:
		for a := first(); a != nil; a = a.Next {
			if a.IfType == windows.IF_TYPE_SOFTWARE_LOOPBACK {
				continue
			}
			name := windows.UTF16PtrToString(a.FriendlyName)
			m.iface(a.Luid, name, a.IfType, a.OperStatus)
			for u := a.FirstUnicastAddress; u != nil; u = u.Next {
				if address, ok := netip.AddrFromSlice(u.Address.IP()); ok {
					m.tell("address", false, "it has the address %s on %s", address.Unmap(), name)
				}
			}
		}
	}

	var table *windows.MibIfTable2
	if err := windows.GetIfTable2Ex(windows.MibIfTableNormal, &table); err != nil {
		m.unknown("interface", "which hardware there is (GetIfTable2)", err)
		return
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	const hardware, filter, connector = 1 << 0, 1 << 1, 1 << 2
	for _, row := range unsafe.Slice(&table.Table[0], table.NumEntries) {
		if m.adapters[row.InterfaceLuid] == nil && row.InterfaceAndOperStatusFlags&(hardware|filter|connector) == hardware|connector {
			m.iface(row.InterfaceLuid, windows.UTF16ToString(row.Alias[:]), row.Type, row.OperStatus)
		}
	}
}

func (m *machine) iface(luid uint64, name string, ifType, status uint32) {
	a := &adapter{name: name, kind: kind(ifType)}
	m.adapters[luid] = a
	switch status {
	case windows.IfOperStatusUp:
		a.up = true
		m.tell("interface", true, "the %s %s is connected", a.kind, name)
	case windows.IfOperStatusDown, windows.IfOperStatusNotPresent, windows.IfOperStatusLowerLayerDown, windows.IfOperStatusDormant:
		m.tell("interface", false, "the %s %s is enabled, and not connected", a.kind, name)
	default:
		a.up = true
		m.tell("interface", true, "Windows does not tell whether the %s %s is connected", a.kind, name)
	}
}

// routes tells a default route, unless its interface is known to be down.
func (m *machine) routes() {
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_UNSPEC, &table); err != nil {
		m.unknown("route", "which routes there are (GetIpForwardTable2)", err)
		return
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	for _, row := range table.Rows() {
		version := "IPv4"
		if row.DestinationPrefix.Prefix.Family == windows.AF_INET6 {
			version = "IPv6"
		}
		a := m.adapters[row.InterfaceLuid]
		switch isDefault := row.DestinationPrefix.PrefixLength == 0; {
		case a != nil && isDefault && a.up:
			m.tell("route", true, "there is a default route of %s, over %s", version, a.name)
		case a != nil:
			m.tell("route", false, "there is a route of %s over %s", version, a.name)
		case isDefault:
			m.tell("route", true, "there is a default route of %s, over the interface with the number %d", version, row.InterfaceIndex)
		}
	}
}

// radios asks Windows for those of wireless LAN and Bluetooth. It has no call for
// those of mobile networks: one that is enabled counts as on.
func (m *machine) radios() {
	m.wlan()
	m.bluetooth()
	for _, a := range m.adapters {
		if a.kind == mobile {
			m.tell("radio", true, "whether the radio of the mobile interface %s is off can't be known: disable it by Disable-NetAdapter", a.name)
		}
	}
}

// answers calls a function of Windows that answers with an error number.
func answers(p *windows.LazyProc, args ...uintptr) error {
	if err := p.Find(); err != nil {
		return err
	}
	if code, _, _ := p.Call(args...); code != 0 {
		return syscall.Errno(code)
	}
	return nil
}

// wlan looks whether a radio of wireless LAN is on. Windows Server has no such
// service unless it was added, and no library then.
func (m *machine) wlan() {
	api := windows.NewLazySystemDLL("wlanapi.dll")
	var version uint32
	var client windows.Handle
	var list *wlanInterfaces
	err := answers(api.NewProc("WlanOpenHandle"), 2, 0, uintptr(unsafe.Pointer(&version)), uintptr(unsafe.Pointer(&client)))
	if err == nil {
		defer answers(api.NewProc("WlanCloseHandle"), uintptr(client), 0)
		err = answers(api.NewProc("WlanEnumInterfaces"), uintptr(client), 0, uintptr(unsafe.Pointer(&list)))
	}
	if err != nil {
		for _, a := range m.adapters {
			if a.kind == wireless {
				m.unknown("radio", "whether the radio of the wireless interface "+a.name+" is off (wlanapi)", err)
			}
		}
		return
	}
	defer api.NewProc("WlanFreeMemory").Call(uintptr(unsafe.Pointer(list)))
	for i := range unsafe.Slice(&list.first, list.count) {
		in := &unsafe.Slice(&list.first, list.count)[i]
		name := windows.UTF16ToString(in.description[:])
		const radioState = 4 // wlan_intf_opcode_radio_state
		var size uint32
		var state *wlanRadios
		err := answers(api.NewProc("WlanQueryInterface"), uintptr(client), uintptr(unsafe.Pointer(&in.guid)), radioState, 0,
			uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&state)), 0)
		if err != nil {
			m.unknown("radio", "whether the radio of "+name+" is off (wlanapi)", err)
			continue
		}
		const off = 2 // dot11_radio_state_off
		on := state.count == 0
		for _, phy := range state.phy[:min(state.count, uint32(len(state.phy)))] {
			on = on || phy.software != off && phy.hardware != off
		}
		api.NewProc("WlanFreeMemory").Call(uintptr(unsafe.Pointer(state)))
		if on {
			m.tell("radio", true, "the radio %s (wireless LAN) is switched on", name)
		} else {
			m.tell("radio", false, "the radio %s (wireless LAN) is switched off", name)
		}
	}
}

type wlanInterfaces struct { // WLAN_INTERFACE_INFO_LIST
	count, index uint32
	first        wlanInterface
}

type wlanInterface struct { // WLAN_INTERFACE_INFO
	guid        windows.GUID
	description [256]uint16
	state       uint32
}

type wlanRadios struct { // WLAN_RADIO_STATE
	count uint32
	phy   [64]struct{ index, software, hardware uint32 }
}

// bluetooth looks for a radio, which Windows lists while it is on.
func (m *machine) bluetooth() {
	api := windows.NewLazySystemDLL("bthprops.cpl")
	find := api.NewProc("BluetoothFindFirstRadio")
	if find.Find() != nil {
		return // Windows Server has none
	}
	size := uint32(4) // BLUETOOTH_FIND_RADIO_PARAMS
	var radio windows.Handle
	found, _, err := find.Call(uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&radio)))
	switch {
	case found != 0:
		m.tell("radio", true, "a Bluetooth radio is switched on")
		api.NewProc("BluetoothFindRadioClose").Call(found)
		windows.CloseHandle(radio)
	case errors.Is(err, windows.ERROR_NO_MORE_ITEMS), errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE), errors.Is(err, windows.ERROR_SUCCESS),
		errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED):
	default:
		m.unknown("radio", "whether a Bluetooth radio is on", err)
	}
}

// table describes one of Windows' tables of sockets: a count, then rows. Each
// place is an offset in a row; -1 where it has none.
type table struct {
	call, protocol                    string
	family, class                     uintptr
	row, local, remote, address, port int // port: from the address
	state                             int
}

var tables = []table{
	{"GetExtendedTcpTable", "tcp", windows.AF_INET, 5, 24, 4, 12, 4, 4, 0},
	{"GetExtendedTcpTable", "tcp6", windows.AF_INET6, 5, 56, 0, 24, 16, 20, 48},
	{"GetExtendedUdpTable", "udp", windows.AF_INET, 1, 12, 0, -1, 4, 4, -1},
	{"GetExtendedUdpTable", "udp6", windows.AF_INET6, 1, 28, 0, -1, 16, 20, -1},
}

func (m *machine) sockets() {
	for _, t := range tables {
		data, err := t.read()
		if errors.Is(err, windows.ERROR_NOT_SUPPORTED) && t.family == windows.AF_INET6 {
			continue // this Windows has no IPv6
		}
		if err != nil {
			m.unknown("socket", "which sockets there are ("+t.call+", "+t.protocol+")", err)
			continue
		}
		const listening, established = 2, 5 // MIB_TCP_STATE_…
		for row := data; len(row) >= t.row; row = row[t.row:] {
			state := uint32(listening) // UDP receives from anybody
			if t.state >= 0 {
				state = binary.LittleEndian.Uint32(row[t.state:])
			}
			address := func(at int) netip.Addr { a, _ := netip.AddrFromSlice(row[at : at+t.address]); return a.Unmap() }
			switch {
			case state == established && !address(t.remote).IsLoopback():
				m.tell("socket", true, "there is a connection (%s) to another machine", t.protocol)
			case state == listening && !address(t.local).IsLoopback():
				m.tell("socket", false, "a program listens to other machines at port %d (%s)", binary.BigEndian.Uint16(row[t.local+t.port:]), t.protocol)
			}
		}
	}
}

// read returns the rows.
func (t *table) read() ([]byte, error) {
	call := windows.NewLazySystemDLL("iphlpapi.dll").NewProc(t.call)
	for size := uint32(1 << 16); ; size += 1 << 14 { // some more: others may come meanwhile
		memory := make([]byte, size)
		err := answers(call, uintptr(unsafe.Pointer(&memory[0])), uintptr(unsafe.Pointer(&size)), 0, t.family, t.class, 0)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rows := memory[4:]
		return rows[:min(int(binary.LittleEndian.Uint32(memory))*t.row, len(rows))], nil
	}
}

// disks tells what of memory may reach this machine's disk, and what may be left
// unwritten on a stick.
func (m *machine) disks() {
	const manager, power = `SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management`, `SYSTEM\CurrentControlSet\Control\Power`
	if key, err := registry.OpenKey(registry.LOCAL_MACHINE, manager, registry.QUERY_VALUE); err != nil {
		m.tell("memory", false, "Windows does not tell whether it has a page file: memory may be written to one")
	} else {
		files, _, err := key.GetStringsValue("PagingFiles")
		if err == nil && strings.Join(files, "") != "" {
			m.tell("memory", false, "Windows has a page file (%s): memory may be written to it; take it away in sysdm.cpl, Advanced, Performance", files[0])
		}
		key.Close()
	}
	if key, err := registry.OpenKey(registry.LOCAL_MACHINE, power, registry.QUERY_VALUE); err == nil {
		if on, _, err := key.GetIntegerValue("HibernateEnabled"); err == nil && on != 0 {
			m.tell("memory", false, "hibernation is on: all memory may be written to the disk; 'powercfg /hibernate off' ends that")
		}
		key.Close()
	}
	drives, err := windows.GetLogicalDrives()
	for i := 0; err == nil && i < 26; i++ {
		root := string(rune('A'+i)) + `:\`
		if name, err := windows.UTF16PtrFromString(root); drives&(1<<i) == 0 || err != nil || windows.GetDriveType(name) != windows.DRIVE_REMOVABLE {
			continue
		}
		if quick, err := quickRemoval(root); err == nil && quick {
			m.tell("stick", false, "%s is set to quick removal; it is ejected before it is pulled all the same", root)
		} else {
			m.tell("stick", false, "%s may hold back what was written (its policy of removal): it must be ejected before it is pulled", root)
		}
	}
}

// quickRemoval asks a drive whether Windows writes to it at once.
func quickRemoval(root string) (bool, error) {
	name, err := windows.UTF16PtrFromString(`\\.\` + root[:2])
	if err != nil {
		return false, err
	}
	drive, err := windows.CreateFile(name, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return false, err
	}
	defer windows.CloseHandle(drive)
	var info struct { // STORAGE_HOTPLUG_INFO
		size                                               uint32
		mediaRemovable, mediaHotplug, deviceHotplug, cache byte
	}
	const getHotplugInfo = 0x2D0C14 // IOCTL_STORAGE_GET_HOTPLUG_INFO
	var n uint32
	err = windows.DeviceIoControl(drive, getHotplugInfo, nil, 0, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), &n, nil)
	return info.deviceHotplug != 0, err
}
