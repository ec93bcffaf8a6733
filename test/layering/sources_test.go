// SPDX-License-Identifier: Apache-2.0

package layering

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// use is a rule on sources: who is not allowed to use which names of which
// packages. The builtins are of the package "", and C is that of cgo.
type use struct {
	name    string
	in      []string            // folders and files it holds for
	but     []string            // folders and files it does not
	never   map[string][]string // package -> names; a * at the end for any rest
	literal []string            // a first argument with which the call is fine
}

var everywhere = []string{"."}

var uses = []use{
	{
		name: "nothing but pkg/durable creates a file",
		// call.go has two PKCS#11 calls in C that miekg/pkcs11 has no words for, which
		// touch no file; crash_linux.go writes one line to standard error.
		// landlock_linux.go and seccomp_linux.go ask the kernel for the sandbox.
		in: everywhere, but: []string{"pkg/durable", "offline/internal/module/call.go", "offline/internal/module/load_linux.go", "offline/internal/module/crash_linux.go", "offline/internal/module/opens_linux.go", "offline/internal/sandbox/landlock_linux.go", "offline/internal/sandbox/seccomp_linux.go"},
		never: map[string][]string{
			"os":                    {"Create*", "OpenFile", "OpenRoot", "OpenInRoot", "WriteFile", "Mkdir*", "Rename", "Link", "Symlink", "Truncate", "CopyFS", "Root"},
			"io/ioutil":             {"*"},
			"syscall":               {"Open*", "Creat", "Mk*", "Rename*", "Link*", "Symlink*", "Truncate", "RawSyscall*", "Syscall*"},
			"golang.org/x/sys/unix": {"Open*", "Creat", "Mk*", "Rename*", "Link*", "Symlink*", "Truncate", "Memfd*", "RawSyscall*", "Syscall*"},
			"C":                     {"*"},
		},
		// Where a person is asked, and what nobody may write in the sandbox.
		literal: []string{"/dev/tty", "CONIN$", "CONOUT$", "/proc/self/comm"},
	},
	{
		name: "libraries neither print nor log nor exit",
		in:   []string{"pkg", "bundle", "internal", "offline/internal", "online/internal"}, but: []string{"pkg/cli"},
		never: map[string][]string{
			"":         {"print", "println"},
			"fmt":      {"Print*"},
			"log":      {"Print*", "Fatal*", "Panic*", "Output", "Default", "SetOutput", "Writer"},
			"log/slog": {"*"},
			"os":       {"Exit", "Stdout", "Stderr"},
			"syscall":  {"Exit", "Stdout", "Stderr"},
		},
	},
	{
		name: "a binary exits in main.go and nowhere else",
		in:   []string{"offline", "online", "pkg/cli"}, but: []string{"offline/main.go", "online/main.go"},
		never: map[string][]string{
			"os":                    {"Exit"},
			"syscall":               {"Exit", "Kill"},
			"golang.org/x/sys/unix": {"Exit", "Kill"},
			"log":                   {"Fatal*", "Panic*"},
		},
	},
}

// inside reports whether the file is, or is in, one of the places.
func inside(file string, places []string) bool {
	return slices.ContainsFunc(places, func(p string) bool {
		return p == "." || file == p || strings.HasPrefix(file, p+"/")
	})
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, open := strings.CutSuffix(p, "*")
		return name == p || open && strings.HasPrefix(name, prefix)
	})
}

// helpsTests reports whether the file's package is a helper of tests, by its
// import of testing: the rules on sources are not for it, and the rules on
// imports keep it out of what is shipped.
func helpsTests(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"testing"` })
}

// sources parses each Go file below dir that is no test, of no helper of tests,
// and of no other module.
func sources(t *testing.T, dir string) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	set := token.NewFileSet()
	files := map[string]*ast.File{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." {
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if err == nil || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "_") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files[filepath.ToSlash(name)], err = parser.ParseFile(set, p, nil, parser.SkipObjectResolution)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	helpers := map[string]bool{}
	for name, f := range files {
		helpers[path.Dir(name)] = helpers[path.Dir(name)] || helpsTests(f)
	}
	maps.DeleteFunc(files, func(name string, _ *ast.File) bool { return helpers[path.Dir(name)] })
	return set, files
}

// check returns what in the file breaks the rule, as LINE: PACKAGE.NAME.
func (u use) check(set *token.FileSet, f *ast.File) []string {
	var found []string
	report := func(n ast.Node, pkg, name string) {
		if matches(name, u.never[pkg]) {
			found = append(found, fmt.Sprintf("%d: %s.%s", set.Position(n.Pos()).Line, pkg, name))
		}
	}
	imported := map[string]string{}
	for _, spec := range f.Imports {
		pkg, _ := strconv.Unquote(spec.Path.Value) // the parser took it
		name := path.Base(pkg)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = pkg
		if _, watched := u.never[pkg]; watched && (name == "." || pkg == "C") {
			found = append(found, fmt.Sprintf("%d: %s, imported so that its names can't be seen", set.Position(spec.Pos()).Line, pkg))
		}
	}
	fine := map[ast.Node]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok {
				report(n, "", id.Name)
			}
			fine[n.Fun] = u.literalArgument(n)
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && imported[id.Name] != "" && !fine[n] {
				report(n, imported[id.Name], n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// literalArgument reports whether the call's first argument is a literal that
// the rule allows.
func (u use) literalArgument(call *ast.CallExpr) bool {
	if len(call.Args) == 0 {
		return false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return false
	}
	value, err := strconv.Unquote(literal.Value)
	return err == nil && slices.Contains(u.literal, value)
}

// breaches returns what below dir breaks the rule, and how many files it
// looked at.
func (u use) breaches(t *testing.T, dir string) (found []string, looked int) {
	t.Helper()
	set, files := sources(t, dir)
	for name, f := range files {
		if !inside(name, u.in) || inside(name, u.but) {
			continue
		}
		looked++
		for _, what := range u.check(set, f) {
			found = append(found, name+":"+what)
		}
	}
	slices.Sort(found)
	return found, looked
}

func TestUses(t *testing.T) {
	for _, u := range uses {
		t.Run(u.name, func(t *testing.T) {
			found, looked := u.breaches(t, root)
			for _, what := range found {
				t.Error(what)
			}
			if looked < 10 {
				t.Errorf("only %d files were looked at", looked)
			}
			t.Logf("%d files", looked)
		})
	}
}

// One planted file a rule; a line that ends in "// bad" is a breach, and no
// other is.
func TestUsesFindsBreaches(t *testing.T) {
	for i, planted := range []string{
		`package planted

import (
	"io"
	files "os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

var write = files.WriteFile // bad

type disk struct{ *files.Root } // bad

func f(path string) {
	files.Open(path)
	files.ReadFile(path)
	files.Remove(path)
	files.Create(path) // bad
	files.CreateTemp("", "x") // bad
	files.OpenFile(path, files.O_RDONLY, 0) // bad
	files.OpenFile("/dev/tty", files.O_RDWR, 0)
	files.OpenFile("/dev/"+"tty", files.O_RDWR, 0) // bad
	files.OpenFile("/dev/sda", files.O_RDWR, 0) // bad
	defer files.Mkdir(path, 0) // bad
	go files.MkdirAll(path, 0) // bad
	files.MkdirTemp("", "") // bad
	files.Rename(path, path) // bad
	files.Link(path, path) // bad
	files.Symlink(path, path) // bad
	syscall.Open(path, 0, 0) // bad
	syscall.Mkfifo(path, 0) // bad
	syscall.Close(0)
	unix.Openat2(0, path, nil) // bad
	unix.Renameat2(0, path, 0, path, 0) // bad
	unix.MemfdCreate(path, 0) // bad
	exec.Command(path)
	io.Discard.Write(nil)
}
`,
		`package planted

import (
	"fmt"
	"log"
	"log/slog"
	"os"
)

func f() {
	println() // bad
	print() // bad
	fmt.Println() // bad
	fmt.Printf("") // bad
	fmt.Sprint()
	fmt.Fprintln(os.Stdout) // bad
	fmt.Fprintln(os.Stderr) // bad
	log.Print() // bad
	log.Fatalf("") // bad
	log.New(nil, "", 0)
	slog.Info("") // bad
	os.Exit(1) // bad
}
`,
		`package planted

import (
	"log"
	"os"
	"syscall"
)

var exit = os.Exit // bad

func f() {
	defer os.Exit(1) // bad
	syscall.Exit(1) // bad
	log.Fatal() // bad
	os.Getpid()
}
`,
	} {
		u := uses[i]
		place := u.in[0] // one where the rule holds
		if place == "." {
			place = "offline"
		}
		dir := plant(t, map[string]string{
			place + "/planted.go":          planted,
			place + "/planted_test.go":     planted,
			place + "/testdata/planted.go": planted,
			u.but[0] + "/planted.go":       planted,
			place + "/helper/helper.go":    "package helper\n\nimport _ \"testing\"\n",
			place + "/helper/planted.go":   planted,
			"elsewhere/go.mod":             "module elsewhere\n",
			"elsewhere/planted.go":         planted,
		})
		if strings.HasSuffix(u.but[0], ".go") { // the exception is a file
			dir = plant(t, map[string]string{place + "/planted.go": planted, u.but[0]: planted})
		}
		want := map[string]bool{}
		line := 0
		for text := range strings.Lines(planted) {
			line++
			if strings.HasSuffix(text, "// bad\n") {
				want[fmt.Sprintf("%s/planted.go:%d", place, line)] = true
			}
		}
		found, _ := u.breaches(t, dir)
		got := map[string]bool{}
		for _, what := range found {
			at, _, _ := strings.Cut(what, ": ")
			got[at] = true
			if !want[at] {
				t.Errorf("%s: %s is no breach", u.name, what)
			}
		}
		for at := range want {
			if !got[at] {
				t.Errorf("%s: %s was not found", u.name, at)
			}
		}
	}
}

// Imports that hide their names, or leave Go, are breaches by themselves.
func TestUsesFindsHiddenNames(t *testing.T) {
	for _, planted := range []string{"import . \"os\"\n", "import \"C\"\n", "import . \"io/ioutil\"\n"} {
		dir := plant(t, map[string]string{"offline/planted.go": "package planted\n\n" + planted})
		if found, _ := uses[0].breaches(t, dir); len(found) == 0 {
			t.Errorf("not found: %s", planted)
		}
	}
}
