// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// What a parser passes over, see [Document].
const (
	Comment     = "a comment"
	Instruction = "a processing instruction"
)

var errAmid = errors.New("a comment or processing instruction does not stand between elements")

// markup passes over a comment or processing instruction, unless there is text
// before it, and says what is wrong with whatever else begins with <! or <?.
func (p *parser) markup(blank bool) error {
	rest := p.s[p.at:]
	comment, instruction := strings.HasPrefix(rest, "<!--"), strings.HasPrefix(rest, "<?")
	switch {
	case (comment || instruction) && !blank:
		return errAmid
	case comment:
		return p.comment()
	case instruction:
		return p.instruction()
	case strings.HasPrefix(rest, "<!["):
		return errors.New("a CDATA section is not accepted")
	}
	return errors.New("a document type declaration is not accepted")
}

// comment passes over <!-- … -->, with no other -- in it.
func (p *parser) comment() error {
	p.at += len("<!--")
	text, after, ended := strings.Cut(p.s[p.at:], "--")
	switch {
	case !ended || after == "":
		return errEnd
	case after[0] != '>':
		return errors.New("a comment has a -- in it")
	}
	return p.pass(Comment, text, "-->")
}

// instruction passes over <?name … ?>.
func (p *parser) instruction() error {
	p.at += len("<?")
	name, colon, err := p.name()
	if err != nil {
		return err
	}
	text, _, ended := strings.Cut(p.s[p.at:], "?>")
	switch {
	case !ended:
		return errEnd
	case strings.EqualFold(name, "xml") || colon > 0:
		return fmt.Errorf("a processing instruction can't be named %s", control.Quote(name))
	case text != "" && !isSpace(text[0]):
		return errors.New("a processing instruction has no white space after its name")
	}
	return p.pass(Instruction, text, "?>")
}

// pass passes over the text and what ends it, and notes that.
func (p *parser) pass(what, text, end string) error {
	for at := 0; at < len(text); {
		size, err := checkCharacter(text[at:], 0)
		if err != nil {
			p.at += at
			return fmt.Errorf("in %s: %w", what, err)
		}
		at += size
	}
	p.at += len(text) + len(end)
	if p.passed = len(p.d.elements); !slices.Contains(p.d.Passed, what) {
		p.d.Passed = append(p.d.Passed, what)
	}
	return nil
}
