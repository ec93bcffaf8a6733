// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each command of both programs that ends well says what is next, and it is what
// `next` says; but for a command that has something in its hand of which the ledger
// does not know yet, such as a file that was looked at or a dry run.
func TestEveryCommandSaysWhatIsNext(t *testing.T) {
	t.Parallel()
	w := &walk{play: newPlay(t, true)}
	w.types("ssh-keygen -q -t ed25519 -N '' -C alice -f alice", 0)
	ran := []string{"next", "practice serve", "wrap", "rehearsal clean"} // served until it is stopped; of tokens: wrap.txt, dress.txt
	for line := range strings.Lines(`
online init --approver alice.pub
online doctor
offline init --out stick
offline doctor
offline selftest
online kek create --size 2048 --out stick
online kek fetch --out stick
online trust --yes stick/offline-card-offline.json
offline trust --yes stick/BYOK-SecurityWorld-pkg-NA-1
offline packages verify -k stick/BYOK-KEK-pkg-NA-1 -w stick/BYOK-SecurityWorld-pkg-NA-1	in hand
offline inspect contoso.xml	in hand
offline import --dry-run --tpd-file-path contoso.xml --key-identifier contoso --keyless-password fresh --exchange-key-package stick/BYOK-KEK-pkg-NA-1	in hand
offline import --tpd-file-path contoso.xml --key-identifier contoso --keyless-password fresh --exchange-key-package stick/BYOK-KEK-pkg-NA-1
offline import --tpd-file-path contoso.xml --key-identifier contoso --keyless-password fresh --exchange-key-package stick/BYOK-KEK-pkg-NA-1
offline seal --out stick
cp stick/keyferry-offline-1.request.json stick/approval-1.json
ssh-keygen -Y sign -f alice -n keyferry-bundle-v2 stick/approval-1.json
offline approve --signature stick/approval-1.json.sig
offline seal --out stick
offline seal --out stick
online verify stick/keyferry-offline-1.kfb	in hand
online package stick/keyferry-offline-1.kfb --out transfer
online inspect transfer/no_key_tpd_contoso.xml --protection-password-file transfer/one_time_password_contoso.txt
online upload --dry-run stick/keyferry-offline-1.kfb --active contoso	in hand
online upload stick/keyferry-offline-1.kfb --active contoso
online upload stick/keyferry-offline-1.kfb --active contoso
online import-tpd --tpd-file transfer/no_key_tpd_contoso.xml --hsm-key-file transfer/KeyTransferPackage-contoso.byok --protection-password-file transfer/one_time_password_contoso.txt
online receipt stick/keyferry-offline-1.kfb --out stick
online receipt stick/keyferry-offline-1.kfb --out stick
offline receipt stick/keyferry-online-1.kfb
offline receipt stick/keyferry-online-1.kfb
offline status
offline fingerprint
offline runsheet --out offline-sheets
offline transcript
offline transcript verify
offline transcript --sheet html --out sheet.html
online status
online fingerprint
online runsheet --out online-sheets
online transcript
online transcript verify
online transcript --sheet text
online approvers --approver alice.pub --approver bob.pub --threshold 1 --out stick
`) {
		line, inHand, _ := strings.Cut(strings.TrimSpace(line), "\t")
		program, _, _ := strings.Cut(line, " ")
		if strings.HasPrefix(line, "online approvers") {
			w.types("ssh-keygen -q -t ed25519 -N '' -C bob -f bob", 0)
		}
		if program != "offline" && program != "online" {
			if line != "" {
				w.types(line, 0)
			}
			continue
		}
		words := strings.Fields(line)
		ran = append(ran, words[1])
		if len(words) > 2 {
			ran = append(ran, words[1]+" "+words[2])
		}
		screen := w.types(w.command(line), 0)
		said := w.next
		if len(said) == 0 {
			t.Errorf("%s: it does not say what is next:\n%s", line, screen)
		}
		w.types(program+" next --rehearsal", 0)
		if inHand == "" && !slices.EqualFunc(all(said), all(w.next), func(a, b string) bool { return a == b }) {
			t.Errorf("%s: it says %q, and `next` %q", line, all(said), all(w.next))
		}
	}
	for _, program := range []string{"offline", "online"} {
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+(?: [a-z]+)?)  +[a-z]`).FindAllStringSubmatch(w.types(program+" help", 0), -1) {
			if !slices.Contains(ran, m[1]) {
				t.Errorf("%s %s was not run", program, m[1])
			}
		}
	}
}

// all lists who is to do what.
func all(next map[string][]string) (lines []string) {
	for who, commands := range next {
		for _, command := range commands {
			lines = append(lines, who+": "+command)
		}
	}
	slices.Sort(lines)
	return lines
}
