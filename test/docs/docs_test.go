// SPDX-License-Identifier: Apache-2.0

// Package docs holds the documents against the programs: each block of commands is
// run, on a terminal, as a person would paste it, and each thing that is to be seen
// afterwards is looked for on the screen.
package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyferry/pkg/fingerprint"
	"keyferry/test/scripttest"
	"keyferry/test/testbin"
)

func TestMain(m *testing.M) { os.Exit(testbin.MainAlone(m)) }

// block is a block of commands of a document.
type block struct {
	section string
	about   string // its info string: sh, and in which play it is run, if not in each
	text    string
	shows   []string // what people are to see after it: text in backquotes, up to …
}

var (
	fence = regexp.MustCompile("(?ms)^```(.*?)\n(.*?)^```\n")
	quote = regexp.MustCompile("`([^`]+)`")
)

// blocks reads a document of the tree.
func blocks(t *testing.T, name string) []block {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	var all []block
	found := fence.FindAllStringSubmatchIndex(text, -1)
	for i, at := range found {
		b := block{about: text[at[2]:at[3]], text: text[at[4]:at[5]]}
		for _, line := range strings.Split(text[:at[0]], "\n") {
			if strings.HasPrefix(line, "#") {
				b.section = strings.TrimLeft(line, "# ")
			}
		}
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		for _, line := range strings.Split(text[at[1]:end], "\n") {
			if strings.HasPrefix(line, "#") {
				break
			}
			if strings.HasPrefix(line, "- ☐") {
				for _, shown := range quote.FindAllStringSubmatch(line, -1) {
					b.shows = append(b.shows, shown[1])
				}
			}
		}
		all = append(all, b)
	}
	return all
}

// play is a ceremony that is played out of a document.
type play struct {
	*testing.T
	dir       string
	rehearsal bool
	edit      func(command string) string // a choice that the document leaves open
	heard     fingerprint.Fingerprint     // the last words on the screen
	ran       int
}

func newPlay(t *testing.T, rehearsal bool) *play {
	p := &play{T: t, dir: t.TempDir(), rehearsal: rehearsal, edit: func(c string) string { return c }}
	if err := os.Mkdir(filepath.Join(p.dir, "stick"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, vector := range map[string]string{"contoso.xml": "contoso-mode2.xml", "fabrikam.xml": "contoso-legacy-kdf.xml", "adatum.xml": "contoso-utf16.xml"} {
		p.copy(vector, name)
	}
	return p
}

// passwords of the exports, which are asked for by name.
var passwords = map[string]string{"contoso.xml": "Passw0rd!", "fabrikam.xml": "Pässw0rd!", "adatum.xml": "Passw0rd!", "contoso-slc.xml": "Passw0rd!",
	"no_key_tpd_contoso.xml": "Passw0rd!", "no_key_tpd_fabrikam.xml": "Pässw0rd!"}

func (p *play) copy(vector, name string) {
	p.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "tpd", vector))
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, name), data, 0o600)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// command is a line of a block, as this play types it: with its own stick, and in a
// rehearsal with --rehearsal.
func (p *play) command(line string) string {
	if p.rehearsal && (strings.HasPrefix(line, "offline ") || strings.HasPrefix(line, "online ")) && !strings.Contains(line, "--rehearsal") {
		command, rest, redirected := strings.Cut(line, " >")
		line = command + " --rehearsal"
		if redirected {
			line += " >" + rest
		}
	}
	return p.edit(strings.NewReplacer("/media/stick", filepath.Join(p.dir, "stick"), "/PATH/MODULE.so", scripttest.Module).Replace(line))
}

// run types each line of a block on a terminal, and looks for what is to be seen.
func (p *play) run(b block, code int) (screen string) {
	p.Helper()
	for line := range strings.Lines(b.text) {
		got, shown := p.typeLine(p.command(strings.TrimSuffix(line, "\n")))
		screen += shown
		if got != code {
			p.Fatalf("%s: exit code %d, want %d: %s\n%s", b.section, got, code, p.command(line), shown)
		}
	}
	p.ran++
	flat := strings.Join(strings.Fields(screen), " ")
	for _, want := range b.shows {
		for _, part := range strings.Split(strings.ReplaceAll(want, "/media/stick", filepath.Join(p.dir, "stick")), "…") {
			if part = strings.Join(strings.Fields(part), " "); code == 0 && isOutput(want) && !strings.Contains(flat, part) {
				p.Errorf("%s: the screen does not show %q:\n%s", b.section, part, screen)
			}
		}
	}
	return screen
}

// isOutput tells a sentence of a program from a name, a flag or a command.
func isOutput(shown string) bool {
	first, _, more := strings.Cut(shown, " ")
	return more && !slices.Contains([]string{"offline", "online", "sha256sum", "--head", "ssh-keygen", "az"}, first) &&
		!strings.HasPrefix(shown, "--") && shown != "transcript verify --head SHA256:…" && shown != "Bundles need no approval"
}

var (
	asksWords    = regexp.MustCompile(`type words (\d+), (\d+) and (\d+) [^:]*: $`)
	asksPassword = regexp.MustCompile(`([\w-]+\.xml): protection password: $`)
	wordRows     = regexp.MustCompile(`(?m)^ ?\d+  (\S+ +\S+ +\S+ +\S+?)\s*$`)
)

// answer is what a person types at the prompt at the end of the screen; nothing
// where there is none.
func (p *play) answer(screen string) string {
	screen = strings.ReplaceAll(screen, "\r", "")
	if m := asksWords.FindStringSubmatch(screen); m != nil {
		var answer []string
		for _, n := range m[1:] {
			place, _ := strconv.Atoi(n)
			answer = append(answer, p.heard.Words()[place-1])
		}
		return strings.Join(answer, " ")
	}
	if m := asksPassword.FindStringSubmatch(screen); m != nil {
		return passwords[m[1]]
	}
	switch {
	case strings.HasSuffix(screen, "PIN: "), strings.HasSuffix(screen, "Please enter User PIN: "):
		return pin
	case strings.HasSuffix(screen, "Carry this plan out? "), strings.HasSuffix(screen, "(Yes/no) "):
		return "Yes"
	}
	return ""
}

// pin is that of the token of a real ceremony.
const pin = "123456"

// A terminal of old.
const columns, lines = 80, 24

// typeLine runs a line in a shell on a terminal of that size.
func (p *play) typeLine(line string) (code int, screen string) {
	p.Helper()
	person, terminal, err := scripttest.OpenTerminal()
	if err != nil {
		p.Fatal(err)
	}
	defer person.Close()
	if err := unix.IoctlSetWinsize(int(person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}); err != nil {
		p.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(p.dir, "home"), "KEYFERRY_STATE=", "SOFTHSM2_CONF="+filepath.Join(p.dir, "softhsm2.conf"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	terminal.Close()
	stop := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var all strings.Builder
	answered := 0
	for buf := make([]byte, 4096); ; {
		n, err := person.Read(buf)
		all.Write(buf[:n])
		if err != nil { // EIO: nobody has the terminal open any more
			break
		}
		if answer := p.answer(all.String()[answered:]); answer != "" {
			answered = all.Len()
			time.Sleep(200 * time.Millisecond) // other programs throw away what is typed before they hide it
			if _, err := person.WriteString(answer + "\n"); err != nil {
				break
			}
		}
	}
	err = cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		p.Fatal(err)
	}
	screen = strings.ReplaceAll(all.String(), "\r", "")
	var words []string
	for _, row := range wordRows.FindAllStringSubmatch(screen, -1) {
		words = append(words, strings.Fields(row[1])...)
	}
	if len(words) >= 32 {
		if p.heard, err = fingerprint.Parse(strings.Join(words[:32], " ")); err != nil {
			p.Fatal(err)
		}
	}
	return code, screen
}

// inPlay chooses the blocks that are run in a play.
func inPlay(all []block, plays ...string) (chosen []block) {
	for _, b := range all {
		language, of, _ := strings.Cut(b.about, " ")
		if language == "sh" && (of == "" || slices.Contains(plays, of)) {
			chosen = append(chosen, b)
		}
	}
	return chosen
}

// Every block is of a play that is played below.
func TestBlocksArePlayed(t *testing.T) {
	for _, page := range []string{"ceremony.md", "recovery.md"} {
		for _, b := range blocks(t, page) {
			language, of, _ := strings.Cut(b.about, " ")
			if !slices.Contains([]string{"sh", "powershell"}, language) || !slices.Contains([]string{"", "rehearsal", "second", "approvers", "kit", "real", "dress", "order"}, of) {
				t.Errorf("%s, %s: a block is of %q, which nothing plays", page, b.section, b.about)
			}
			if strings.Contains(b.text, "…") || strings.TrimSpace(b.text) == "" {
				t.Errorf("%s, %s: a block can't be pasted:\n%s", page, b.section, b.text)
			}
		}
	}
}

// Below each command of the ceremony that Windows has in another form stands that form.
func TestWindowsForms(t *testing.T) {
	page, err := os.ReadFile("../../docs/ceremony.md")
	if err != nil {
		t.Fatal(err)
	}
	forms := strings.NewReplacer("/media/stick/", `E:\`, "/media/stick", `E:\`, "/PATH/MODULE.so", `C:\PATH\MODULE.dll`, "\ncp ", "\ncopy ")
	for _, b := range blocks(t, "ceremony.md") {
		text := "\n" + strings.TrimSpace(b.text)
		windows := strings.ReplaceAll(forms.Replace(text)[1:], "\n", "`; `")
		if strings.HasPrefix(b.about, "sh") && strings.ContainsAny(strings.ReplaceAll(text, "https://", ""), `/'"<>|&$`) && !strings.Contains(string(page), text+"\n```\n\nOn Windows: `"+windows+"`.") {
			t.Errorf("%s: a form for Windows is missing: On Windows: `%s`.", b.section, windows)
		}
	}
}

// A rehearsal, then a second batch.
func TestCeremonyRehearsal(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true)
	for _, b := range inPlay(blocks(t, "ceremony.md"), "rehearsal", "second") {
		p.run(b, 0)
	}
	if p.ran < 20 {
		t.Errorf("only %d blocks were run", p.ran)
	}
	t.Logf("count: %d blocks", p.ran)
}

// A rehearsal with two approvers and the hand-over kit.
func TestCeremonyApproversAndKit(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true)
	for _, name := range []string{"alice", "bob"} {
		if code, said := p.typeLine("ssh-keygen -q -t ed25519 -N '' -C " + name + " -f " + name); code != 0 {
			t.Fatal(said)
		}
	}
	p.edit = func(line string) string {
		if strings.HasPrefix(line, "online init ") {
			line += " --tenant kit --approver alice.pub --approver bob.pub --threshold 2"
		}
		return line
	}
	for _, b := range inPlay(blocks(t, "ceremony.md"), "rehearsal", "approvers", "kit") {
		code := 0
		switch {
		case b.section == "10. Seal the bundle" && b.about == "sh":
			b.shows = nil // the request alone
		case b.section == "14. Upload":
			code = 4 // by hand from here
		case b.section == "14a. Hand over to Windows":
			script, err := os.ReadFile(p.find("import-tpds.ps1"))
			if err != nil {
				t.Fatal(err)
			}
			result, err := scripttest.KitResult(string(script), "Active")
			if err == nil {
				p.heard = scripttest.KitDigest(result)
				err = os.WriteFile(filepath.Join(p.dir, "keyferry-result.json"), result, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		p.run(b, code)
	}
}

// What differs in the real ceremony and in a dress rehearsal: the token and its PIN, a
// vault, and the KEK as a second machine reads it from the vault. Azure's own command
// is played by one that hands out a key.
func TestCeremonyReal(t *testing.T) {
	t.Parallel()
	p := newPlay(t, false)
	az := "#!/bin/sh\nopenssl genrsa 2048 2>/dev/null | openssl pkey -pubout -outform DER -out \"$(eval echo \\${$#})\"\n"
	if err := os.WriteFile(filepath.Join(p.dir, "az"), []byte(az), 0o700); err != nil {
		t.Fatal(err)
	}
	p.makeTokens()
	for _, b := range blocks(t, "ceremony.md") {
		switch b.about {
		case "sh real": // with a state directory of its own
			p.rehearsal = false
		case "sh dress":
			p.rehearsal = true
			if err := os.RemoveAll(filepath.Join(p.dir, "stick", "offline-card-offline.json")); err != nil {
				t.Fatal(err)
			}
		default:
			continue
		}
		p.edit = func(line string) string { return strings.Replace(line, "az ", "./az ", 1) }
		b.shows = slices.DeleteFunc(b.shows, func(s string) bool { return strings.Contains(s, "(rehearsal)") })
		p.run(b, 0)
	}
}

// makeTokens makes the tokens of a real ceremony and of one in dress.
func (p *play) makeTokens() {
	p.Helper()
	if err := errors.Join(
		os.WriteFile(filepath.Join(p.dir, "softhsm2.conf"), []byte("directories.tokendir = "+filepath.Join(p.dir, "tokens")+"\n"), 0o600),
		os.Mkdir(filepath.Join(p.dir, "tokens"), 0o700),
	); err != nil {
		p.Fatal(err)
	}
	for _, label := range []string{"LABEL", "SPARE"} {
		p.rehearse("softhsm2-util --init-token --free --label " + label + " --pin " + pin + " --so-pin " + pin)
	}
}

// rehearse types lines of a rehearsal that come before what a document is about.
func (p *play) rehearse(lines ...string) {
	p.Helper()
	for _, line := range lines {
		if code, screen := p.typeLine(p.command(line)); code != 0 {
			p.Fatalf("%s: exit code %d\n%s", line, code, screen)
		}
	}
}

// upTo is a ceremony whose connected side is pinned, with a small KEK.
func upTo(init string) []string {
	return []string{
		"online init" + init, "offline init --out /media/stick", "online kek create --size 2048 --out /media/stick",
		"online trust --yes /media/stick/offline-card-offline.json", "offline trust --yes /media/stick/BYOK-SecurityWorld-pkg-NA-1",
	}
}

func importOf(name string, kek int) string {
	return fmt.Sprintf("offline import --tpd-file-path %[1]s.xml --key-identifier %[1]s --keyless-password fresh --exchange-key-package /media/stick/BYOK-KEK-pkg-NA-%[2]d --out /media/stick", name, kek)
}

// What went wrong, in one ceremony after the other.
func TestRecovery(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true)
	p.rehearse(upTo("")...)
	p.copy("contoso-mode2.xml", "contoso-slc.xml")
	p.rehearse(importOf("contoso-slc", 1))
	for _, b := range inPlay(blocks(t, "recovery.md"), "order") {
		if b.about == "sh order" {
			p.rehearse(importOf("fabrikam", 2), importOf("adatum", 2))
		}
		if strings.Contains(b.text, "offline seal") { // the first one did not come through
			if err := os.Remove(filepath.Join(p.dir, "stick", "keyferry-offline-1.kfb")); err != nil {
				t.Fatal(err)
			}
		}
		p.run(b, 0)
	}
	t.Logf("count: %d blocks", p.ran)
}

func TestRecoveryApprovers(t *testing.T) {
	t.Parallel()
	p := newPlay(t, true)
	for _, name := range []string{"alice", "bob", "dave"} {
		p.rehearse("ssh-keygen -q -t ed25519 -N '' -C " + name + " -f " + name)
	}
	p.rehearse(upTo(" --approver alice.pub --approver bob.pub")...)
	p.rehearse(importOf("fabrikam", 1))
	for _, b := range blocks(t, "recovery.md") {
		if b.about == "sh approvers" {
			if screen := p.run(b, 0); strings.Contains(b.text, "offline approve") && !strings.Contains(screen, "dave") {
				t.Errorf("the new approver is not named:\n%s", screen)
			}
		}
	}
}

// The keys of a token are removed by OpenSC's tool as the page has it.
func TestRecoveryToken(t *testing.T) {
	t.Parallel()
	p := newPlay(t, false)
	p.makeTokens()
	p.rehearse("offline init --hsm-module /PATH/MODULE.so --hsm-token LABEL")
	for _, b := range blocks(t, "recovery.md") {
		if b.about == "sh real" {
			p.run(b, 0)
		}
	}
	p.rehearse("offline init --state again --hsm-module /PATH/MODULE.so --hsm-token LABEL")
}
