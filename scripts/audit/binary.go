// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/buildinfo"
	"debug/elf"
	"debug/pe"
	"errors"
	"slices"
	"strings"
)

// binary is what a built binary says of itself.
type binary struct {
	system    string   // linux/amd64
	cgo       bool     // as its build settings have it
	modules   []string // paths
	symbols   []string // of Go and C; without the numbers that the linker gives
	libraries []string // that the loader brings
	functions []string // that it takes from them
}

func readBinary(path string) (*binary, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	b := &binary{system: settings["GOOS"] + "/" + settings["GOARCH"], cgo: settings["CGO_ENABLED"] != "0"}
	for _, m := range info.Deps {
		b.modules = append(b.modules, m.Path)
	}
	if settings["GOOS"] == "windows" {
		err = b.readPE(path)
	} else {
		err = b.readELF(path)
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(b.symbols, "main.main") {
		return nil, errors.New("it has no symbols of Go, so it can't be judged: it must not be stripped")
	}
	slices.Sort(b.functions)
	return b, nil
}

func (b *binary) readELF(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return err
	}
	for _, s := range symbols {
		b.symbols = append(b.symbols, plain(s.Name))
	}
	if f.Section(".dynamic") == nil {
		return nil // static
	}
	if b.libraries, err = f.ImportedLibraries(); err != nil {
		return err
	}
	imported, err := f.DynamicSymbols()
	if err != nil {
		return err
	}
	for _, s := range imported {
		if s.Section == elf.SHN_UNDEF {
			b.functions = append(b.functions, s.Name)
		}
	}
	return nil
}

func (b *binary) readPE(path string) error {
	f, err := pe.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, s := range f.Symbols {
		b.symbols = append(b.symbols, plain(s.Name))
	}
	// Each is FUNCTION:LIBRARY. debug/pe's ImportedLibraries gives none.
	imported, err := f.ImportedSymbols()
	if err != nil {
		return err
	}
	if len(imported) == 0 {
		return errors.New("it names no function of Windows: it can't be read")
	}
	for _, s := range imported {
		function, library, _ := strings.Cut(s, ":")
		b.functions = append(b.functions, function)
		if library = strings.ToLower(library); !slices.Contains(b.libraries, library) {
			b.libraries = append(b.libraries, library)
		}
	}
	return nil
}

// plain is a symbol without what differs from one build of the toolchain to the
// next: the numbers of initialisers and of their parts, and type arguments.
func plain(symbol string) string {
	symbol, _, _ = strings.Cut(symbol, "[")
	parts := strings.Split(symbol, ".")
	for i, part := range parts {
		name := strings.TrimRight(part, "0123456789")
		switch {
		case name == "" && part != "", name == "func", name == "gowrap", name == "deferwrap", name == "stmp_":
			parts[i] = name + "N"
		}
	}
	return strings.Join(parts, ".")
}
