// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// A terminal of 80 by 24 shows the help on each command with the next prompt below it;
// what does not fit has its names there, and its explanation in `help COMMAND`.
func TestHelpFitsTheScreen(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"offline", "online"} {
		help := func(lines int, args ...string) string {
			out, err := exec.Command(program, args...).Output()
			if err != nil {
				t.Fatalf("%s %q: %v", program, args, err)
			}
			text := strings.TrimSuffix(string(out), "\n")
			if n := strings.Count(text, "\n") + 1; lines > 0 && n > lines {
				t.Errorf("%s %q has %d lines", program, args, n)
			}
			for line := range strings.SplitSeq(text, "\n") {
				if len([]rune(line)) > 80 {
					t.Errorf("%s %q is wider than a screen: %s", program, args, line)
				}
			}
			return text
		}
		const screen = 23
		help(screen, "help", "flags")
		commands := regexp.MustCompile(`(?m)^  ([a-z][a-z -]*?[a-z])  +\S`).FindAllStringSubmatch(help(screen, "--help"), -1)
		if len(commands) < 15 {
			t.Fatalf("%s: only %d commands", program, len(commands))
		}
		for _, c := range commands {
			name := strings.Fields(c[1])
			short := help(screen, append(name, "--help")...)
			whole := help(0, append([]string{"help"}, name...)...)
			for _, flag := range regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(short, -1) {
				if flag != "--help" && !strings.Contains(whole, flag) {
					t.Errorf("%s help %s does not explain %s", program, c[1], flag)
				}
			}
		}
	}
}
