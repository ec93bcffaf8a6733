// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf8"

	"keyferry/internal/words"
	"keyferry/pkg/control"
)

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\r' || b == '\t' }

// isName marks the bytes that occur in a name of ASCII, but for the colon.
var isName = func() (table [256]bool) {
	for b := range table {
		table[b] = isNameStart(byte(b)) || '0' <= b && b <= '9' || b == '-' || b == '.'
	}
	return table
}()

func isNameStart(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' || b == '_' }

// isPlain marks what stands for itself in an attribute's value: printable ASCII
// without < > & and the quotes.
var isPlain = func() (table [256]bool) {
	for b := ' '; b <= '~'; b++ {
		table[b] = strings.IndexByte(`<>&"'`, byte(b)) < 0
	}
	return table
}()

// special marks, in eight bytes, what text may not hold as it is: < > &, control
// characters and what is not ASCII. The high bit of the lowest such byte is set,
// and none below it; one above it may be set wrongly by a borrow.
func special(x uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	angle := (x | 2*ones) ^ '>'*ones // 0 for < and >, which differ in that bit
	amp := x ^ '&'*ones
	return (x | (x - ' '*ones) | (angle - ones) | (amp - ones)) & highs
}

// plainUntil returns the place of the first special byte from s[at] on, or the
// end.
func plainUntil(s string, at int) int {
	for start := at; at+8 <= len(s); {
		if found := special(words.Load(s[at:])); found != 0 {
			return at + bits.TrailingZeros64(found)/8
		}
		if at += 8; at-start == 1<<10 { // then it is likely to be base64, and much longer
			at = passPlain(s, at)
		}
	}
	for at < len(s) && s[at] >= ' ' && s[at] < 0x80 && s[at] != '<' && s[at] != '>' && s[at] != '&' {
		at++
	}
	return at
}

// passPlain passes over plain bytes, a block at once: the library's search takes
// 32 bytes in a step, and what it leaves to look for is simple.
func passPlain(s string, at int) int {
	const size = 4 << 10
	for ; at+size <= len(s); at += size {
		if block := s[at : at+size]; strings.IndexByte(block, '<') >= 0 || strings.IndexByte(block, '>') >= 0 || strings.IndexByte(block, '&') >= 0 || !isPrintable(block) {
			break
		}
	}
	return at
}

// isPrintable reports whether all of a text, of a multiple of 32 bytes, is ASCII
// without control characters, but for DEL.
func isPrintable(s string) bool {
	const spaces, highs = ' ' * 0x0101010101010101, 0x8080808080808080
	var found uint64
	for at := 0; at < len(s); at += 32 {
		a, b, c, d := words.Load(s[at:]), words.Load(s[at+8:]), words.Load(s[at+16:]), words.Load(s[at+24:])
		found |= a | b | c | d | (a - spaces) | (b - spaces) | (c - spaces) | (d - spaces)
	}
	return found&highs == 0
}

// longText is how many bytes of text with references are worth to be rewritten
// on another core: a document in a document.
const longText = 4 << 10

// readText reads a run of text from s[at] on, up to the next < or the end, and
// returns where that is; with an error, where that one is. A long text with
// references is returned raw, neither rewritten nor checked to its end.
func readText(s string, at int) (text string, raw bool, end int, err error) {
	for start := at; ; {
		if at = plainUntil(s, at); at == len(s) {
			return s[start:at], false, at, nil
		}
		switch s[at] {
		case '<':
			return s[start:at], false, at, nil
		case '&', '\r':
			end := len(s)
			if length := strings.IndexByte(s[at:], '<'); length >= 0 {
				end = at + length
			}
			if end-start >= longText {
				return s[start:end], true, end, nil
			}
			text, bad, err := rewritten(s[start:end])
			if err != nil {
				end = start + bad
			}
			return text, false, end, err
		}
		size, err := checkCharacter(s[start:], at-start)
		if err != nil {
			return "", false, at, err
		}
		at += size
	}
}

// readValue reads an attribute's value up to the quote that closes it.
func readValue(s string, at int, quote byte) (value string, end int, err error) {
	start := at
	for at < len(s) && isPlain[s[at]] {
		at++
	}
	if at < len(s) && s[at] == quote {
		return s[start:at], at, nil
	}
	length := strings.IndexByte(s[at:], quote)
	if length < 0 {
		return "", len(s), nil
	}
	end = at + length
	if bad := strings.IndexAny(s[at:end], "<\t\r\n"); bad >= 0 {
		return "", at + bad, errors.New("an attribute's value has a <, a line end or a tab")
	}
	value, bad, err := rewritten(s[start:end])
	if err != nil {
		end = start + bad
	}
	return value, end, err
}

// rewritten returns the characters that the raw ones, in which there is no <,
// stand for: references are resolved, and line ends become line feeds. With an
// error it returns its place.
//
// This is how a document in a document is read, where every few bytes are &lt;
// or &gt;: what is plain is copied by eight bytes.
func rewritten(raw string) (text string, bad int, err error) {
	// No reference is less than three bytes longer than its character.
	buf := make([]byte, 0, max(0, len(raw)-3*strings.Count(raw, "&")))
	for at := 0; at < len(raw); {
		for at+8 <= len(raw) && len(buf)+8 <= cap(buf) {
			x := words.Load(raw[at:])
			plain := bits.TrailingZeros64(special(x)) / 8 // 8 if there is none that is special
			buf = binary.LittleEndian.AppendUint64(buf, x)[:len(buf)+plain]
			if at += plain; plain < 8 {
				break
			}
		}
		switch rest := raw[at:]; {
		case strings.HasPrefix(rest, "&lt;"):
			buf, at = append(buf, '<'), at+4
			continue
		case strings.HasPrefix(rest, "&gt;"):
			buf, at = append(buf, '>'), at+4
			continue
		}
		var size int
		if buf, size, err = appendOne(buf, raw, at); err != nil {
			return "", at, err
		}
		at += size
	}
	return stringOf(buf), 0, nil
}

// appendOne appends the character that raw[at] begins, if there is one, and
// returns how many bytes it takes there.
func appendOne(buf []byte, raw string, at int) (after []byte, size int, err error) {
	if at == len(raw) {
		return buf, 0, nil
	}
	switch b := raw[at]; {
	case b == '&':
		r, size, err := reference(raw[at:])
		return utf8.AppendRune(buf, r), size, err
	case b == '\r' && strings.HasPrefix(raw[at:], "\r\n"):
		return append(buf, '\n'), 2, nil
	case b == '\r':
		return append(buf, '\n'), 1, nil
	}
	if size, err = checkCharacter(raw, at); err != nil {
		return buf, 0, err
	}
	return append(buf, raw[at:at+size]...), size, nil
}

// checkCharacter checks the character at s[at], which is neither < nor &, and
// returns its length. The text begins where s does.
func checkCharacter(s string, at int) (size int, err error) {
	switch b := s[at]; {
	case b == '>':
		if strings.HasSuffix(s[:at], "]]") {
			return 0, errors.New("]]> stands in the text")
		}
		return 1, nil
	case b >= ' ' && b < 0x80 || isSpace(b):
		return 1, nil
	}
	r, size := utf8.DecodeRuneInString(s[at:])
	if r == utf8.RuneError && size == 1 {
		return 0, errors.New("invalid UTF-8")
	}
	if !isCharacter(r) {
		return 0, fmt.Errorf("illegal character code %U", r)
	}
	return size, nil
}

// isCharacter reports whether XML 1.0 has the character.
func isCharacter(r rune) bool {
	return r >= ' ' && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= utf8.MaxRune || r == '\t' || r == '\n' || r == '\r'
}

// reference reads the character reference that s begins with, but for &lt; and
// &gt;, and its length.
func reference(s string) (r rune, size int, err error) {
	switch {
	case strings.HasPrefix(s, "&amp;"):
		return '&', 5, nil
	case strings.HasPrefix(s, "&quot;"):
		return '"', 6, nil
	case strings.HasPrefix(s, "&apos;"):
		return '\'', 6, nil
	case strings.HasPrefix(s, "&#"):
		return numericReference(s)
	}
	return 0, 0, fmt.Errorf("unknown entity %s", control.Quote(s[:min(len(s), 16)]))
}

// numericReference reads &#233; or &#xE9;.
func numericReference(s string) (r rune, size int, err error) {
	at, base := len("&#"), rune(10)
	if strings.HasPrefix(s, "&#x") {
		at, base = len("&#x"), 16
	}
	for first := at; at < len(s); at++ {
		digit := rune(99)
		switch b := s[at]; {
		case b == ';' && at > first && isCharacter(r):
			return r, at + 1, nil
		case '0' <= b && b <= '9':
			digit = rune(b - '0')
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			digit = rune(b|0x20-'a') + 10
		}
		if r = r*base + digit; digit >= base || r > utf8.MaxRune {
			break
		}
	}
	return 0, 0, fmt.Errorf("the entity %s is no character", control.Quote(s[:min(len(s), 16)]))
}
