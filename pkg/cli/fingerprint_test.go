// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

func TestCompareGiven(t *testing.T) {
	is := fingerprint.Of([]byte("card"))
	for name, c := range map[string]struct {
		given   string
		refused *control.Control
	}{
		"as String":         {given: is.String()},
		"in lower case":     {given: strings.ToLower(is.String())},
		"as hex":            {given: is.Hex()},
		"as upper-case hex": {given: strings.ToUpper(is.Hex())},
		"as grouped hex":    {given: is.Grouped()},
		"as base64":         {given: is.SSH()},
		"as words":          {given: strings.Join(is.Words(), " ")},
		"as rows":           {given: is.Rows()},
		"another":           {given: fingerprint.Of([]byte("another card")).String(), refused: &control.TrustFingerprint},
		"other words":       {given: fingerprint.Of([]byte("another card")).Rows(), refused: &control.TrustFingerprint},
		"cut":               {given: is.String()[:60], refused: &control.CommandLine},
		"no words":          {given: "three blind mice", refused: &control.CommandLine},
	} {
		err := new(IO).Compare(Compared{What: "offline card", Is: is, Flag: "fingerprint", Given: c.given})
		if c.refused == nil && err != nil || c.refused != nil && !control.Is(err, *c.refused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// person answers each question for words by answer, which is told the places.
type person struct {
	screen bytes.Buffer
	typed  bytes.Buffer
	answer func(try int, places []int) string
	tries  int
}

var wordsAsked = regexp.MustCompile(`type words (\d+), (\d+) and (\d+) .*: $`)

func (p *person) Write(b []byte) (int, error) { return p.screen.Write(b) }

func (p *person) Read(b []byte) (int, error) {
	if m := wordsAsked.FindStringSubmatch(p.screen.String()); m != nil && p.typed.Len() == 0 && p.answer != nil {
		var places []int
		for _, s := range m[1:] {
			n, _ := strconv.Atoi(s)
			places = append(places, n-1)
		}
		line := p.answer(p.tries, places)
		p.tries++
		if line == "" {
			return 0, io.EOF
		}
		p.typed.WriteString(line + "\n")
		p.screen.WriteString("\n")
	}
	return p.typed.Read(b)
}

// Who did not hear the words can't confirm them: some are asked for, and none shown.
func TestCompareAsks(t *testing.T) {
	is, other := fingerprint.Of([]byte("card")), fingerprint.Of([]byte("another card"))
	at := func(f fingerprint.Fingerprint, places []int) string {
		var told []string
		for _, p := range places {
			told = append(told, f.Words()[p])
		}
		return strings.Join(told, " ")
	}
	always := func(line string) func(int, []int) string { return func(int, []int) string { return line } }
	for name, c := range map[string]struct {
		answer  func(try int, places []int) string
		refused *control.Control
	}{
		"the words":             {answer: func(_ int, p []int) string { return at(is, p) }},
		"in capitals, commas":   {answer: func(_ int, p []int) string { return strings.ToUpper(strings.ReplaceAll(at(is, p), " ", ", ")) }},
		"the bytes":             {answer: func(_ int, p []int) string { return fmt.Sprintf("%02x %02X %02x", is[p[0]], is[p[1]], is[p[2]]) }},
		"all words":             {answer: always(strings.Join(is.Words(), " "))},
		"all hex":               {answer: always(is.Hex())},
		"a slip, then right":    {answer: func(try int, p []int) string { return []string{"carrot a b", at(is, p)}[try] }},
		"two words, then right": {answer: func(try int, p []int) string { return []string{"tissue tobacco", at(is, p)}[try] }},
		"another's words":       {answer: func(_ int, p []int) string { return at(other, p) }, refused: &control.TrustFingerprint},
		"another's hex":         {answer: always(other.Hex()), refused: &control.TrustFingerprint},
		"Yes":                   {answer: always("Yes"), refused: &control.NotConfirmed},
		"nothing":               {refused: &control.NoTerminal},
	} {
		t.Run(name, func(t *testing.T) {
			p := &person{answer: c.answer}
			err := (&IO{program: "online", stdin: p, stderr: p}).Compare(Compared{What: "offline card", Heard: "as the other side reads them aloud", Is: is, Flag: "fingerprint"})
			if c.refused == nil && err != nil || c.refused != nil && !control.Is(err, *c.refused) {
				t.Fatalf("got %v after\n%s", err, p.screen.String())
			}
			if strings.Contains(p.screen.String(), is.Rows()[:30]) || strings.Contains(p.screen.String(), is.Hex()[:8]) || strings.Contains(p.screen.String(), is.Grouped()[:9]) {
				t.Errorf("the fingerprint is shown:\n%s", p.screen.String())
			}
		})
	}
}

func TestCompareByEye(t *testing.T) {
	is := fingerprint.Of([]byte("card"))
	for name, c := range map[string]struct {
		stdin                       string
		yes, rehearsal, bothScreens bool
		refused                     *control.Control
	}{
		"answered Yes":             {stdin: "Yes\n", bothScreens: true},
		"answered yes":             {stdin: "yes\n", bothScreens: true, refused: &control.NotConfirmed},
		"answered by nobody":       {bothScreens: true, refused: &control.NoTerminal},
		"--yes in a rehearsal":     {yes: true, rehearsal: true},
		"--yes in a real ceremony": {yes: true, stdin: "Yes\n", bothScreens: true, refused: &control.NotConfirmed},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			o := &IO{Yes: c.yes, program: "online", stdin: strings.NewReader(c.stdin), stderr: &stderr}
			err := o.Compare(Compared{What: "offline card", Is: is, Flag: "fingerprint", BothScreens: c.bothScreens, Rehearsal: c.rehearsal})
			if c.refused == nil && err != nil || c.refused != nil && !control.Is(err, *c.refused) {
				t.Fatalf("got %v", err)
			}
			if shown := strings.Contains(stderr.String(), "\n"+is.Spoken()+"\n"); shown == c.yes {
				t.Errorf("got %q", stderr.String())
			}
		})
	}
}

// Three places of thirty-two, each as likely.
func TestChoose(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		chosen := choose(places)
		if len(chosen) != places || chosen[0] >= chosen[1] || chosen[1] >= chosen[2] || chosen[0] < 0 || chosen[2] > 31 {
			t.Fatalf("chose %v", chosen)
		}
		for _, c := range chosen {
			seen[c] = true
		}
	}
	if len(seen) != 32 {
		t.Errorf("in 200 questions only %d places were asked for", len(seen))
	}
}
