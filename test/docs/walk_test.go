// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"keyferry/test/scripttest"
)

// walk is a rehearsal that is typed by somebody who has the documents alone: after its
// first commands, which the document has, it types what the screens say is next. They
// fill in the words in capitals.
type walk struct {
	*play
	next map[string][]string // who does it, and the commands that the last screen named
}

var nextLine = regexp.MustCompile(`(?m)^Next(?:, (?:on|by) ([^:]*))?: (.*)$`)

// types types a line, looks at the screen, and returns it.
func (w *walk) types(line string, code int) string {
	w.Helper()
	got, screen := w.typeLine(line)
	if got != code {
		w.Fatalf("%s: exit code %d, want %d\n%s", line, got, code, screen)
	}
	w.readable(line, screen)
	w.next = map[string][]string{}
	for _, m := range nextLine.FindAllStringSubmatch(screen, -1) {
		w.next[m[1]] = append(w.next[m[1]], m[2])
	}
	return screen
}

// readable looks at a screen as a person does: no word of it is broken at its edge, no
// more than one fingerprint is there in words, and those that are to be read aloud
// have not left the screen.
func (w *walk) readable(line, screen string) {
	w.Helper()
	if strings.HasPrefix(line, "o") && !strings.Contains(screen, "REHEARSAL") && !strings.Contains(screen, "ehearsal") {
		w.Errorf("%s: the screen does not say that it is a rehearsal:\n%s", line, screen)
	}
	rows, height, at := 0, 0, 0
	for line := range strings.Lines(screen) {
		line = strings.TrimRight(line, "\r\n")
		if wordRows.MatchString(line) {
			if rows++; rows == 1 {
				at = height
			}
		}
		width := utf8.RuneCountInString(line)
		height += max(1, (width+columns-1)/columns)
		copied := regexp.MustCompile("^(Next.*: |Carry on the stick: |online: hint: if \\(\\(|[^ ]* *(hint: )?(`.*`|[^ ]+)[.,;:]?$)").MatchString(line)
		if width > columns && !copied && !strings.HasSuffix(line, ": ") && !asks.MatchString(line) && !strings.Contains(strings.TrimLeft(line, " "), "  ") { // the row of a table
			w.Errorf("%s: a line of %d columns:\n%s", line, width, screen)
		}
	}
	if rows > 8 {
		w.Errorf("%s: the words of more than one fingerprint are on the screen:\n%s", line, screen)
	}
	if strings.Contains(screen, "to be read aloud") && rows > 0 && height-at >= lines {
		w.Errorf("%s: the words leave the screen, which has %d lines after them:\n%s", line, height-at, screen)
	}
}

// asks finds a prompt, with what was typed behind it.
var asks = regexp.MustCompile(`: type words .*: `)

// follows types the command that the last screen named for somebody: this side, the other
// one, or an approver. pairs are what they know: a word in capitals, and what it is.
func (w *walk) follows(who string, code int, pairs ...string) string {
	w.Helper()
	if len(w.next[who]) == 0 {
		w.Fatalf("the screen did not say what is next for %q: %q", who, w.next)
	}
	line := w.next[who][0]
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(line+" ", " "+pairs[i]+" ") && !strings.Contains(line, " "+pairs[i]+"/") {
			w.Fatalf("%q does not ask for %s", line, pairs[i])
		}
		line = regexp.MustCompile(` `+pairs[i]+`([ /]|$)`).ReplaceAllString(line, " "+pairs[i+1]+"$1")
	}
	return w.types(line, code)
}

const disconnected, connected = "the disconnected side", "the connected side"

// A new reader gets through a rehearsal with two exports of different passwords, two
// approvers and the hand-over kit.
func TestWalk(t *testing.T) {
	t.Parallel()
	w := &walk{play: newPlay(t, true)}
	stick := filepath.Join(w.dir, "stick")
	for _, name := range []string{"alice", "bob"} {
		w.types("ssh-keygen -q -t ed25519 -N '' -C "+name+" -f "+name, 0)
	}

	// Both sides introduce themselves.
	w.types("online next --rehearsal", 0)
	w.follows("", 0)
	for _, name := range []string{"online"} { // the document has approvers and kit
		if err := os.RemoveAll(filepath.Join(w.dir, "home", "keyferry-"+name+"-rehearsal")); err != nil {
			t.Fatal(err)
		}
	}
	w.types("online init --rehearsal --tenant kit --approver alice.pub --approver bob.pub --threshold 2", 0)
	kek := w.next
	w.types("online doctor --rehearsal", 0)
	if !slices.Equal(w.next[""], kek[""]) {
		t.Errorf("doctor says %q, init said %q", w.next, kek)
	}
	w.types("offline next --rehearsal", 0)
	w.follows("", 0, "DIR", "stick")
	trustCard := w.next
	w.next = kek
	w.follows("", 0, "DIR", "stick")
	trustWorld := w.next
	w.types("offline fingerprint --rehearsal", 0)
	w.next = trustCard
	w.follows(connected, 0)
	w.types("online fingerprint --rehearsal", 0)
	w.next = trustWorld
	w.follows(disconnected, 0)

	// The keys go into the HSM.
	w.types("offline packages verify -k stick/BYOK-KEK-pkg-NA-1 -w stick/BYOK-SecurityWorld-pkg-NA-1 --rehearsal", 0)
	w.types("offline inspect contoso.xml fabrikam.xml --rehearsal", 0)
	import_ := strings.NewReplacer("ID-1", "contoso", "ID-2", "fabrikam").Replace(w.next[""][0])
	w.types(import_+" --dry-run", 0)
	if want := []string{import_}; !slices.Equal(w.next[""], want) {
		t.Errorf("after the dry run comes %q, not %q", w.next[""], want)
	}
	w.follows("", 0)
	w.follows("", 0) // seal: the request
	request := w.next
	for _, name := range []string{"alice", "bob"} {
		w.next = map[string][]string{name: request[name]}
		w.follows(name, 0)
		w.next = map[string][]string{name: request[name][1:]}
		w.follows(name, 0, "KEY", name)
	}
	w.next = request
	w.follows("", 0)
	w.follows("", 0) // seal: the bundle
	verify := w.next
	w.types("offline fingerprint --rehearsal", 0)

	// They go to Azure.
	w.next = verify
	w.follows(connected, 0)
	w.types(w.next[""][0]+" --active contoso", 4)
	kit := filepath.Dir(w.find("import-tpds.ps1"))
	script, err := os.ReadFile(filepath.Join(kit, "import-tpds.ps1"))
	if err != nil {
		t.Fatal(err)
	}
	result, err := scripttest.KitResult(string(script), "Active")
	if err == nil {
		err = os.WriteFile(filepath.Join(kit, "keyferry-result.json"), result, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.types("online next --rehearsal", 0)
	w.heard = scripttest.KitDigest(result)
	w.follows("", 0)
	w.follows("", 0) // the receipt
	w.follows(disconnected, 0)
	screen := w.follows("", 0)
	if sheet := w.find("sheet-*.html"); sheet == "" || !strings.Contains(screen, filepath.Base(sheet)) {
		t.Errorf("no sheet to sign: %s", screen)
	}
	for _, side := range []string{"offline", "online"} {
		w.types(side+" --rehearsal", 0)
		w.types(side+" transcript verify --rehearsal", 0)
	}
	if entries, err := os.ReadDir(stick); err != nil || len(entries) < 6 {
		t.Errorf("%v, %v", entries, err)
	}
}

// find returns the one file of that name; empty if there is none.
func (p *play) find(pattern string) (found string) {
	p.Helper()
	err := filepath.WalkDir(p.dir, func(path string, _ os.DirEntry, err error) error {
		if matches, _ := filepath.Match(pattern, filepath.Base(path)); matches && err == nil {
			if found != "" {
				p.Errorf("%s and %s", found, path)
			}
			found = path
		}
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return found
}
