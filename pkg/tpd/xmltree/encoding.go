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
	"unicode/utf16"
	"unicode/utf8"

	"keyferry/pkg/control"
)

// decode returns the characters of a document, and checks that it declares the
// encoding that it is in.
func decode(data []byte) (string, error) {
	var text, written string
	var err error
	switch {
	case bytes.HasPrefix(data, []byte{0xEF, 0xBB, 0xBF}):
		text, written = string(data[3:]), "utf-8"
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		written = "utf-16le"
		text, err = decodeUTF16(data[2:], binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		written = "utf-16be"
		text, err = decodeUTF16(data[2:], binary.BigEndian)
	case bytes.HasPrefix(data, []byte{'<', 0}):
		written = "utf-16le"
		text, err = decodeUTF16(data, binary.LittleEndian)
	case bytes.HasPrefix(data, []byte{0, '<'}):
		written = "utf-16be"
		text, err = decodeUTF16(data, binary.BigEndian)
	default:
		text, written = string(data), "utf-8"
	}
	if err != nil {
		return "", err
	}
	_, declared, err := cutDeclaration(text)
	if err != nil {
		return "", err
	}
	return text, checkEncoding(declared, written, len(text) == len(data) && !slices.ContainsFunc(data, func(b byte) bool { return b >= utf8.RuneSelf }))
}

// checkEncoding compares the declared encoding, "" for none, with the one that
// the bytes are in. .NET has several names for UTF-16, of which only utf-16
// itself leaves the byte order open. Pure ASCII is what it is under each name
// below.
func checkEncoding(declared, written string, ascii bool) error {
	name := strings.ToLower(declared)
	wide := strings.HasPrefix(written, "utf-16")
	little := slices.Contains([]string{"unicode", "iso-10646-ucs-2", "ucs-2"}, name)
	switch {
	case name == "" || name == written || wide && name == "utf-16" || little && written == "utf-16le":
		return nil
	case wide:
		return fmt.Errorf("it declares the encoding %s but is written in %s", control.Quote(declared), written)
	case name == "us-ascii" || strings.HasPrefix(name, "iso-8859-") || strings.HasPrefix(name, "windows-125"):
		if ascii {
			return nil
		}
		return fmt.Errorf("it declares the encoding %s and has letters outside of ASCII: only UTF-8 and UTF-16 are read here", control.Quote(declared))
	case little || strings.HasPrefix(name, "utf-16"):
		return fmt.Errorf("it declares the encoding %s but its bytes are not of that encoding", control.Quote(declared))
	}
	return fmt.Errorf("it declares the encoding %s: only UTF-8 and UTF-16 are read here", control.Quote(declared))
}

func decodeUTF16(data []byte, order binary.ByteOrder) (string, error) {
	if len(data)%2 != 0 {
		return "", errors.New("it begins as UTF-16 but has an odd number of bytes: it was cut short")
	}
	text := make([]byte, 0, len(data)/2) // enough for ASCII
	for i := 0; i < len(data); i += 2 {
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i < len(data) {
				r = utf16.DecodeRune(r, rune(order.Uint16(data[i:])))
			}
			if r < 0x10000 {
				return "", fmt.Errorf("it is damaged: half a UTF-16 surrogate pair before byte %d", i)
			}
		}
		text = utf8.AppendRune(text, r)
	}
	return string(text), nil
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
