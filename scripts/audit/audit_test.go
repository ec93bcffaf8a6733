// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const thePage = "../../docs/linked.md"

// build builds a side as a release is built, with a file planted in its
// package, more flags (-…) and more of the environment, and returns the binary's
// path. go build has the file by an overlay: the tree is not touched.
func build(t *testing.T, side, planted string, more ...string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary, file, overlay := filepath.Join(dir, side), filepath.Join(dir, "planted.go"), filepath.Join(dir, "overlay.json")
	args := []string{"build", "-trimpath", "-overlay", overlay, "-o", binary}
	replace := map[string]string{}
	if planted != "" {
		replace[filepath.Join(root, side, "planted.go")] = file
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{file: planted, overlay: string(text)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cgo := "CGO_ENABLED=0"
	if side == "offline" {
		cgo = "CGO_ENABLED=1"
		args = append(args, "-tags", "netgo,osusergo")
	}
	env := append(os.Environ(), cgo)
	for _, m := range more {
		if strings.HasPrefix(m, "-") {
			args = append(args, m)
		} else {
			env = append(env, m)
		}
	}
	cmd := exec.Command("go", append(args, "./"+side)...)
	cmd.Dir, cmd.Env = root, env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func TestBinaries(t *testing.T) {
	for _, side := range []string{"offline", "online"} {
		breaches, err := audit(io.Discard, thePage, []string{build(t, side, "")}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, breach := range breaches {
			t.Error(breach)
		}
	}
}

// plant is a file of a binary's package that makes the call reachable.
func plant(imports, call string) string {
	return "package main\n\nimport (\n\t\"os\"\n\t" + imports + "\n)\n\nfunc init() {\n\tif len(os.Args) > 1000 {\n\t\t" + call + "\n\t}\n}\n"
}

// What is planted in the real binary is found, by the sentence that names it.
func TestPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		side, imports, call string
		settings            []string
		finds               string
	}{
		"a dial":             {"offline", `"net"`, `_, _ = net.Dial("tcp", "localhost:1")`, nil, "net.(*Dialer).DialContext is linked"},
		"a listener":         {"offline", `"net"`, `_, _ = net.Listen("tcp", "localhost:1")`, nil, "net.(*ListenConfig).Listen is linked"},
		"a look-up":          {"offline", `"net"`, `_, _ = net.LookupHost("localhost")`, nil, "net.(*Resolver).lookupIPAddr is linked"},
		"the C resolver":     {"offline", `"net"`, `_, _ = net.LookupHost("localhost")`, []string{"-tags=netcgo"}, "the system's function getaddrinfo is asked for: it reaches a network"},
		"a TLS client":       {"offline", `"crypto/tls"`, `_, _ = tls.Dial("tcp", "localhost:1", nil)`, nil, "crypto/tls.(*Conn).clientHandshake is linked"},
		"an HTTP client":     {"offline", `"net/http"`, `_, _ = http.Get("http://localhost:1")`, nil, "net/http.(*Client).do is linked"},
		"a socket":           {"offline", `"syscall"`, `_, _ = syscall.Socket(2, 1, 0)`, nil, "syscall.socket is linked"},
		"a socket by x/sys":  {"offline", `"golang.org/x/sys/unix"`, `_, _ = unix.Socket(2, 1, 0)`, nil, "golang.org/x/sys/unix.socket is linked"},
		"another program":    {"offline", `"os/exec"`, `_ = exec.Command("curl").Run()`, nil, "os/exec.(*Cmd).Start is linked"},
		"a socket in C":      {"offline", "// #include <sys/socket.h>\n\t\"C\"", `C.socket(2, 1, 0)`, nil, "the system's function socket is asked for: it reaches a network"},
		"another C function": {"offline", "// #include <stdlib.h>\n\t\"C\"", `println(C.rand())`, nil, "the system's function rand is asked for and not on the page"},
		"another module":     {"offline", `"golang.org/x/text/unicode/norm"`, `println(norm.NFC.String(os.Args[0]))`, nil, "the module golang.org/x/text is linked and not on the page"},
		"cgo in online":      {"online", `"os/user"`, `_, _ = user.Current()`, []string{"CGO_ENABLED=1"}, "it was built with cgo"},
		"PKCS#11 in online":  {"online", `"github.com/miekg/pkcs11"`, `pkcs11.New("")`, []string{"CGO_ENABLED=1"}, "github.com/miekg/pkcs11.New is linked: online holds neither C nor PKCS#11"},
	} {
		t.Run(name, func(t *testing.T) {
			breaches, err := audit(io.Discard, thePage, []string{build(t, c.side, plant(c.imports, c.call), c.settings...)}, false)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, c.finds) }) {
				t.Errorf("not found: %s, among %q", c.finds, breaches[:min(5, len(breaches))])
			}
		})
	}
}

func TestStripped(t *testing.T) {
	_, err := audit(io.Discard, thePage, []string{build(t, "offline", "", "-ldflags=-s")}, false)
	if err == nil || !strings.Contains(err.Error(), "must not be stripped") {
		t.Errorf("got %v", err)
	}
}

// A page that says less, or more, than is linked does not hold.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(thePage)
	if err != nil {
		t.Fatal(err)
	}
	page, binary := string(text), build(t, "offline", "")
	for name, c := range map[string]struct{ from, to, finds string }{
		"a module less":     {"| `filippo.io/age` | offline online |", "| `filippo.io/age` | online |", "the module filippo.io/age is linked and not on the page"},
		"a symbol less":     {" `net.parseIP` ", " `net.parseIPx` ", "net.parseIP is linked and not on the page"},
		"a library less":    {"`libc.so.6`", "`libm.so.6`", "the library libc.so.6 is asked for"},
		"a symbol too many": {"`net.IPv4zero`", "`net.IPv4zero` `net.Dial`", "the page lists the symbol net.Dial, which no binary has"},
		"a row without why": {"| age's post-quantum recipients |", "| |", "gives no reason"},
		"no table":          {modulesTable, "## Something", "has no table"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(page, c.from) {
				t.Fatalf("the page does not say %q", c.from)
			}
			path := filepath.Join(t.TempDir(), "linked.md")
			if err := os.WriteFile(path, []byte(strings.Replace(page, c.from, c.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			breaches, err := audit(io.Discard, path, []string{binary}, true)
			if err != nil {
				breaches = append(breaches, err.Error())
			}
			if !slices.ContainsFunc(breaches, func(b string) bool { return strings.Contains(b, c.finds) }) {
				t.Errorf("not found: %s, among %q", c.finds, breaches[:min(5, len(breaches))])
			}
		})
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"net..stmp_64":                      "net..stmp_N",
		"net.init.func6":                    "net.init.funcN",
		"net.init.0":                        "net.init.N",
		"net.(*Dialer).Dial":                "net.(*Dialer).Dial",
		"net.IPv4zero":                      "net.IPv4zero",
		"sync.OnceFunc[go.shape.int].func1": "sync.OnceFunc",
		"net/netip.z4":                      "net/netip.z4",
	} {
		if got := plain(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
