// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"keyferry/pkg/control"
	"keyferry/pkg/textfile"
)

// encodings are .NET's names of each encoding that is read; no name is as good. Only
// utf-16 itself leaves the byte order open.
var encodings = map[string][]string{
	"utf-8":    {"", "utf-8"},
	"utf-16le": {"", "utf-16", "utf-16le", "unicode", "iso-10646-ucs-2", "ucs-2"},
	"utf-16be": {"", "utf-16", "utf-16be"},
}

// codePage are encodings under whose names pure ASCII is what it is.
var codePage = regexp.MustCompile(`^(us-ascii|iso-8859-.*|windows-125.*)$`)

// decode returns the characters of a document, and checks that it declares the
// encoding that it is in.
func decode(data []byte) (string, error) {
	text, written := data, "utf-8"
	var err error
	switch {
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}), bytes.HasPrefix(data, []byte{'<', 0}):
		written = "utf-16le"
		text, err = textfile.DecodeUTF16(data, binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}), bytes.HasPrefix(data, []byte{0, '<'}):
		written = "utf-16be"
		text, err = textfile.DecodeUTF16(data, binary.BigEndian)
	}
	if err != nil {
		return "", fmt.Errorf("it begins as UTF-16: %w", err)
	}
	characters := strings.TrimPrefix(string(text), "\uFEFF") // the byte order mark
	_, declared, err := cutDeclaration(characters)
	if err != nil {
		return "", err
	}
	name := strings.ToLower(declared)
	isName := func(names []string) bool { return slices.Contains(names, name) }
	ascii := written == "utf-8" && !slices.ContainsFunc(data, func(b byte) bool { return b >= utf8.RuneSelf })
	switch {
	case isName(encodings[written]), ascii && codePage.MatchString(name):
		return characters, nil
	case written != "utf-8", isName(encodings["utf-16le"]), isName(encodings["utf-16be"]):
		return "", fmt.Errorf("it declares the encoding %s but is written in %s", control.Quote(declared), written)
	}
	return "", fmt.Errorf("it declares the encoding %s: only UTF-8 and UTF-16 are read here", control.Quote(declared))
}

// declaration is <?xml version="1.0" encoding="…" standalone="…"?>. Its groups are
// the encoding in either kind of quotes.
var declaration = regexp.MustCompile(strings.NewReplacer("S+", `[ \t\r\n]+`, "S*", `[ \t\r\n]*`, "NAME", `[A-Za-z][A-Za-z0-9._-]*`).Replace(
	`^<\?xmlS+versionS*=S*(?:"1\.0"|'1\.0')(?:S+encodingS*=S*(?:"(NAME)"|'(NAME)'))?(?:S+standaloneS*=S*(?:"(?:yes|no)"|'(?:yes|no)'))?S*\?>`))

// cutDeclaration takes the XML declaration off a text, which may have none, and
// returns the encoding that it names.
func cutDeclaration(text string) (rest, encoding string, err error) {
	if rest, begins := strings.CutPrefix(text, "<?xml"); !begins || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n?") {
		return text, "", nil
	}
	groups := declaration.FindStringSubmatch(text[:min(len(text), 1<<10)])
	if groups == nil {
		return "", "", errors.New("its first line, the XML declaration, is damaged: it is not as AD RMS writes it")
	}
	return text[len(groups[0]):], groups[1] + groups[2], nil
}
