// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
)

// Symbols that must be on the page, if they are in a binary at all. For offline:
// all of the packages that are there to reach others; of the packages that lead
// to the kernel, what sounds of sockets, names or other programs. For online:
// the C world.
var watch = map[string]*regexp.Regexp{
	"offline": regexp.MustCompile(`^((vendor/)?golang\.org/x/net[./]` +
		`|net[./]|crypto/tls[./]|os/exec\.|golang\.org/x/crypto/ssh[./]` +
		`|(os|syscall|internal/poll|internal/syscall/\w+|golang\.org/x/sys/\w+)\..*` +
		`(?i:socket|connect|listen|accept|bind|sendto|sendmsg|sendmmsg|recvfrom|recvmsg|recvmmsg|addrinfo|dnsquery|wsa|ws2_|iphlpapi|winhttp|wininet|startprocess|forkexec|exec$))`),
	"online": regexp.MustCompile(`^(runtime/cgo\.|_cgo_[0-9a-f]{12}_|_cgoexp|github\.com/miekg/pkcs11\.|github\.com/ThalesIgnite/|keyferry/offline/)`),
}

// Functions of the C library and of Windows that reach a network or look a name
// up. They are named for the message alone: a function that is not on the page
// is a breach in any case.
var reaches = regexp.MustCompile(`^(socket|socketpair|connect|bind|listen|accept4?|send|sendto|sendm?msg|recv|recvfrom|recvm?msg|get(addr|name)info|gethostby.*|res_.*|if_.*|execv.*|fork|posix_spawn.*|system|popen|WSA.*|WinHttp.*|Internet.*|Dns.*|CreateProcess.*)$`)

// watched are those symbols of a side that have to be on the page, each once.
func watched(side string, symbols []string) []string {
	var found []string
	for _, s := range symbols {
		if watch[side].MatchString(s) {
			found = append(found, s)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// judge holds a binary against the page.
func (b *binary) judge(side string, known *page) []string {
	var breaches []string
	report := func(format string, args ...any) { breaches = append(breaches, fmt.Sprintf(format, args...)) }
	for _, module := range b.modules {
		if !known.modules[side].has(module) {
			report("the module %s is linked and not on the page", module)
		}
	}
	for _, symbol := range watched(side, b.symbols) {
		if side == "online" {
			report("%s is linked: online holds neither C nor PKCS#11", symbol)
		} else if !known.symbols.has(symbol) {
			report("%s is linked and not on the page: code that may reach a network or another program", symbol)
		}
	}
	if side == "online" {
		if b.cgo {
			report("it was built with cgo")
		}
		for _, library := range b.libraries {
			if library != "kernel32.dll" {
				report("the library %s is asked for: online needs none", library)
			}
		}
		return breaches
	}
	for _, library := range b.libraries {
		if !known.imports.has(library) {
			report("the library %s is asked for and not on the page", library)
		}
	}
	for _, function := range b.functions {
		switch {
		case known.imports.has(function):
		case reaches.MatchString(function):
			report("the system's function %s is asked for: it reaches a network or another program", function)
		default:
			report("the system's function %s is asked for and not on the page", function)
		}
	}
	return breaches
}
