// SPDX-License-Identifier: Apache-2.0

// Command audit reads built binaries, of any system, and holds what is linked
// into them against docs/linked.md: modules, code that could reach a network,
// and what is asked of the system's libraries. Whatever is not on that page is a
// breach. It judges the binary and not the sources, since what a package
// imports says little about what the linker keeps.
//
//	go run ./scripts/audit [-whole] bin/offline bin/online
//	go run ./scripts/audit -lines docs/audit.md
//
// The second form holds that page's numbers of lines against the tree. With -whole, the binaries are those of all systems, and what is on the page
// but in none of them is a breach, too. Exit codes: 0 all holds, 1 a breach.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// most is how many breaches are shown: a dial brings hundreds of symbols.
const most = 20

func main() {
	page := flag.String("page", "docs/linked.md", "what may be linked")
	whole := flag.Bool("whole", false, "the binaries are those of all systems")
	lines := flag.String("lines", "", "the page whose numbers of lines are held against the tree")
	flag.Parse()
	var breaches []string
	var err error
	if *lines != "" {
		breaches, err = countLines(os.Stdout, *lines)
	} else {
		breaches, err = audit(os.Stdout, *page, flag.Args(), *whole)
	}
	for i, breach := range breaches {
		if i == most {
			fmt.Fprintf(os.Stderr, "audit: and %d more\n", len(breaches)-most)
			break
		}
		fmt.Fprintln(os.Stderr, "audit:", breach)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "audit:", err)
	}
	if err != nil || len(breaches) > 0 {
		os.Exit(1)
	}
}

// audit lists what is in the binaries, and returns what is wrong with them, one
// sentence each.
func audit(list io.Writer, page string, paths []string, whole bool) (breaches []string, err error) {
	known, err := readPage(page)
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		side, err := sideOf(path)
		if err != nil {
			return nil, err
		}
		b, err := readBinary(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		found := b.judge(side, known)
		fmt.Fprintf(list, "%s  %s, %d modules, %d symbols, %d of them of the watched kind\n", path, b.system, len(b.modules), len(b.symbols), len(watched(side, b.symbols)))
		fmt.Fprintf(list, "  libraries: %s\n  of these: %s\n", orNone(b.libraries), orNone(b.functions))
		for _, breach := range found {
			breaches = append(breaches, path+": "+breach)
		}
	}
	if whole {
		breaches = append(breaches, known.unseen()...)
	}
	return breaches, nil
}

// sideOf tells by its name which binary a file is: offline, online-linux-arm64,
// offline-windows-amd64.exe.
func sideOf(path string) (string, error) {
	side, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".exe"), "-")
	if side != "offline" && side != "online" {
		return "", fmt.Errorf("%s: the name does not begin with offline or online", path)
	}
	return side, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}
