// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
)

// childImport makes this test a process that does an importTask, as JSON, when
// it is told to go on.
const childImport = "KEYFERRY_TEST_IMPORT"

type importTask struct {
	module.Choice
	Vector, Label string
}

// importer is such a process.
type importer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startImporter(t *testing.T, task importTask) *importer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^TestTwoProcesses$", "-test.count=1")
	cmd.Env = append(os.Environ(), childImport+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &importer{cmd, in, bufio.NewReader(out)}
}

// says reads what the process answers, a line.
func (i *importer) says(t *testing.T) string {
	t.Helper()
	line, err := i.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func (i *importer) goOn(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(i.in, "\n"); err != nil {
		t.Fatal(err)
	}
}

// beImporter is the process: it stops before it stores the key, before it looks
// whether it is alone, and before it ends.
func beImporter(t *testing.T, text string) {
	var task importTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		t.Fatal(err)
	}
	token, err := open(task.Choice, testPIN)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	token.trial = vectorTrial(t)
	key := vectorKey(t, task.Vector)
	if err := token.CheckFree(task.Label, &key.PublicKey, false); err != nil {
		t.Fatal(err)
	}
	proven := imported(t, token, key)
	stdin := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := stdin.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	kept, err := proven.Keep(KeepOptions{Label: task.Label})
	fmt.Println("stored:", err)
	if _, err := stdin.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		if err = token.CheckAlone(kept); err != nil {
			err = errors.Join(err, kept.Remove())
		}
	}
	fmt.Println("kept:", err)
	if _, err := stdin.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

// Two processes store a key in one token at once: two keys get in; of one key,
// or one label, there is never a second. But NSS makes one pair of the same key
// stored twice, and both are content; and SoftHSM 2.6.1 may hide from a process
// what another stores at the same time (it counts changes, and takes the
// other's for its own): then both get in, and every later run refuses them.
func TestTwoProcesses(t *testing.T) {
	if task := os.Getenv(childImport); task != "" {
		beImporter(t, task)
		return
	}
	for _, token := range tokens {
		hides, merges := strings.HasPrefix(token.name, "SoftHSM"), strings.HasPrefix(token.name, "NSS")
		if !hides && !merges {
			continue
		}
		t.Run(token.name, func(t *testing.T) {
			cfg, _ := token.open(t, token.packages)
			for _, test := range []struct {
				name   string
				first  importTask
				second importTask
				both   bool // are to be kept
			}{
				{"two keys", importTask{cfg, "contoso-mode2", "contoso"}, importTask{cfg, "contoso-anyone", "fabrikam"}, true},
				{"one key", importTask{cfg, "contoso-mode2", "contoso"}, importTask{cfg, "contoso-mode2", "contoso"}, false},
				{"one key under two labels", importTask{cfg, "contoso-mode2", "contoso"}, importTask{cfg, "contoso-mode2", "fabrikam"}, false},
				{"two keys under one label", importTask{cfg, "contoso-mode2", "contoso"}, importTask{cfg, "contoso-anyone", "contoso"}, false},
			} {
				for round := range 2 {
					t.Run(fmt.Sprint(test.name, " ", round), func(t *testing.T) {
						kept := keepAtOnce(t, test.first, test.second)
						pairs := countPairs(t, test.first, test.both)
						if test.both && (kept != 2 || pairs != 2) || !test.both && !hides && pairs > 1 {
							t.Errorf("%d kept, %d pairs", kept, pairs)
						}
						if pairs != kept && !(merges && kept == 2 && pairs == 1) {
							t.Errorf("%d kept, and there are %d pairs", kept, pairs)
						}
					})
				}
			}
		})
	}
}

// keepAtOnce runs two processes and returns how many of them kept their key;
// the other ones were refused.
func keepAtOnce(t *testing.T, tasks ...importTask) (kept int) {
	var importers []*importer
	for _, task := range tasks {
		i := startImporter(t, task)
		importers = append(importers, i)
		// One after the other: SoftHSM may fail two logins at once.
		if said := i.says(t); said != "ready" {
			rest, err := io.ReadAll(i.out)
			t.Fatalf("%s\n%s%v", said, rest, err)
		}
	}
	for _, answer := range []string{"stored: ", "kept: "} {
		for _, i := range importers {
			i.goOn(t)
		}
		kept = 0
		for _, i := range importers {
			switch said := i.says(t); {
			case said == answer+"<nil>":
				kept++
			case !strings.HasPrefix(said, answer) || !strings.Contains(said, "[KF-HSM-"):
				t.Error(said)
			}
		}
	}
	for _, i := range importers {
		i.goOn(t)
		if err := i.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	return kept
}

// countPairs counts the pairs that are stored, wants each whole, and that a later
// run does not go on where there are two that should be one. Then it removes
// them.
func countPairs(t *testing.T, task importTask, both bool) int {
	token, err := open(task.Choice, testPIN)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if err := token.list(); err != nil {
		t.Fatal(err)
	}
	private := 0
	for _, o := range token.objects {
		if o.Class == pkcs11.CKO_PRIVATE_KEY {
			private++
		}
	}
	if len(token.objects) != 2*private {
		t.Errorf("%d private keys among %d objects", private, len(token.objects))
	}
	if private == 2 && !both {
		refused(t, token.CheckFree(task.Label, &vectorKey(t, task.Vector).PublicKey, true), control.HSMExists)
	}
	for _, o := range token.objects {
		if err := token.ck.DestroyObject(token.session, o.Handle); err != nil {
			t.Error(err)
		}
	}
	return private
}

// A process can have a token of each of two modules, and use them at once.
func TestTwoModules(t *testing.T) {
	configs := make([]module.Choice, 2)
	configs[0], _ = nssToken(t, "libnss3 libnss3-tools")
	configs[1], _ = softHSMToken(t, "")
	key := vectorKey(t, "contoso-mode2")
	var group sync.WaitGroup
	failures := make([]error, len(configs))
	for i, cfg := range configs {
		token, err := open(cfg, testPIN)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		})
		token.trial = vectorTrial(t)
		own := *key // Precompute writes to it
		group.Go(func() {
			for range 3 {
				session, err := token.Import(&own)
				if err != nil {
					failures[i] = err
					return
				}
				proven, err := session.Prove(&own.PublicKey)
				if err != nil {
					failures[i] = err
					return
				}
				kept, err := proven.Keep(KeepOptions{Label: "contoso"})
				if err != nil {
					failures[i] = err
					return
				}
				failures[i] = errors.Join(kept.Remove(), session.Destroy())
			}
		})
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Error(err)
	}
}
