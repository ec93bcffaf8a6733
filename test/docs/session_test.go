// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// session is what README shows of a rehearsal: each command with as many lines of what
// it says; below zero, of its end.
var session = []struct {
	line  string
	shown int
}{
	{"online init", 2},
	{"offline init --out /media/stick", 5},
	{"online kek create --size 2048 --out /media/stick", 3},
	{"online trust --yes /media/stick/offline-card-offline.json", 2},
	{"offline trust --yes /media/stick/BYOK-SecurityWorld-pkg-NA-1", 3},
	{"offline import --tpd-file-path contoso.xml --key-identifier contoso-slc --keyless-password fresh --exchange-key-package /media/stick/BYOK-KEK-pkg-NA-1 --out /media/stick", -9},
	{"online upload /media/stick/keyferry-offline-1.kfb --active contoso-slc", 9},
	{"online receipt /media/stick/keyferry-offline-1.kfb --out /media/stick", 2},
	{"offline receipt /media/stick/keyferry-online-1.kfb", 9},
}

// docs/session.svg is a recording of a real run. Set UPDATE_DOCS to record it anew.
func TestSession(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "session.svg")
	p := newPlay(t, true)
	var lines []string
	for _, s := range session {
		typed := strings.TrimSpace(strings.ReplaceAll(p.command(s.line), filepath.Join(p.dir, "stick"), "/media/stick"))
		code, screen := p.typeLine(p.command(s.line))
		if code != 0 {
			t.Fatalf("%s: %d\n%s", s.line, code, screen)
		}
		lines = append(lines, folded("$ "+typed)...)
		screen = strings.NewReplacer(filepath.Join(p.dir, "stick"), "/media/stick", filepath.Join(p.dir, "home"), "~/.local/state", p.dir+"/", "").Replace(screen)
		said := strings.Split(strings.TrimSpace(screen), "\n")
		from, to := 0, min(len(said), s.shown)
		if s.shown < 0 {
			from, to = max(0, len(said)+s.shown), len(said)
		}
		if from > 0 {
			lines = append(lines, "…")
		}
		for _, line := range said[from:to] {
			lines = append(lines, folded(line)...)
		}
		if to < len(said) {
			lines = append(lines, "…")
		}
		lines = append(lines, "")
	}
	if os.Getenv("UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(svg(lines)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "$ ") && !strings.Contains(string(recorded), html.EscapeString(line)) {
			t.Errorf("docs/session.svg does not show %s: record it anew with UPDATE_DOCS=1 go test ./test/docs -run Session", line)
		}
	}
}

// folded breaks a line as a terminal of 100 columns does, between words.
func folded(line string) (lines []string) {
	for len([]rune(line)) > 100 {
		at := strings.LastIndex(string([]rune(line)[:100]), " ")
		if at <= 0 {
			break
		}
		lines = append(lines, line[:at])
		line = "    " + line[at+1:]
	}
	return append(lines, line)
}

// svg sets lines as a terminal shows them.
func svg(lines []string) string {
	const size, leading, margin = 13, 17, 16
	var b strings.Builder
	height := len(lines)*leading + 2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="860" height="%[1]d" viewBox="0 0 860 %[1]d" role="img" aria-label="A rehearsal in a terminal">
<rect width="860" height="%[1]d" rx="8" fill="#1b1f24"/>
<g font-family="ui-monospace, 'Liberation Mono', monospace" font-size="%[2]d" fill="#d6dbe1" style="white-space: pre">
`, height, size)
	for i, line := range lines {
		fill := ""
		if strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "    -") {
			fill = ` fill="#8fd19e" font-weight="bold"`
		}
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\"%s>%s</text>\n", margin, margin+size+i*leading, fill, html.EscapeString(line))
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}
