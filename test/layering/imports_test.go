// SPDX-License-Identifier: Apache-2.0

// Package layering holds the rules of the project's layout: which package may
// reach which, who creates files, who prints and exits. Each rule is shown to
// fail on a planted breach as well. What is linked into the binaries is held by
// scripts/audit.
package layering

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the module's directory.
const root = "../.."

// Names of packages and, with /..., of whole trees. That one zone reaches
// nothing of the other is the compiler's rule for internal; see
// TestCompilerKeepsZones.
var (
	cloud    = []string{"github.com/Azure/...", "net/http/..."}
	hsm      = []string{"github.com/miekg/pkcs11/...", "github.com/ThalesIgnite/..."}
	binaries = []string{"keyferry/offline/...", "keyferry/online/..."}
	tests    = []string{"testing/...", "keyferry/test/..."} // a package that imports testing is a helper of tests
)

// reach is a rule: what the packages depend on, directly or not, is none of
// never.
type reach struct {
	name     string
	packages []string
	env      []string
	never    []string
	must     string // a dependency that shows that the list is the right one
}

var reaches = []reach{
	{"offline reaches no cloud client and no net/http", []string{"./offline"}, []string{"CGO_ENABLED=1"},
		slices.Concat(cloud, tests), "keyferry/offline/internal/hsm"},
	{"online reaches neither PKCS#11 nor cgo", []string{"./online"}, []string{"CGO_ENABLED=0"},
		slices.Concat(hsm, tests, []string{"runtime/cgo"}), "keyferry/online/internal/vault"},
	{"libraries reach no binary and no helper of tests", []string{"./pkg/...", "./bundle/..."}, []string{"CGO_ENABLED=1"},
		slices.Concat(binaries, tests), "keyferry/pkg/control"},
	{"bundle knows no HSM and no cloud", []string{"./bundle/..."}, []string{"CGO_ENABLED=1"},
		slices.Concat(cloud, hsm), "filippo.io/age"},
}

// breaches returns the dependencies that match one of never.
func breaches(deps, never []string) []string {
	var found []string
	for _, dep := range deps {
		for _, pattern := range never {
			tree, isTree := strings.CutSuffix(pattern, "/...")
			if dep == tree || isTree && strings.HasPrefix(dep, tree+"/") {
				found = append(found, dep)
			}
		}
	}
	return found
}

// goTool runs the go command in dir.
func goTool(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func dependencies(t *testing.T, dir string, r reach) []string {
	t.Helper()
	return strings.Fields(goTool(t, dir, r.env, append([]string{"list", "-deps"}, r.packages...)...))
}

func TestReach(t *testing.T) {
	for _, r := range reaches {
		t.Run(r.name, func(t *testing.T) {
			deps := dependencies(t, root, r)
			for _, dep := range breaches(deps, r.never) {
				t.Errorf("%s reaches %s", r.packages, dep)
			}
			if !slices.Contains(deps, r.must) {
				t.Errorf("%s does not reach %s: this looks at the wrong packages", r.packages, r.must)
			}
			t.Logf("%d packages", len(deps))
		})
	}
}

// Each name that a rule forbids is found where it occurs: in a list for all of
// them, in a real module for one of the standard library.
func TestReachFindsBreaches(t *testing.T) {
	for _, r := range reaches {
		for _, pattern := range r.never {
			name, isTree := strings.CutSuffix(pattern, "/...")
			planted := []string{"fmt", name, name + "x"}
			want := []string{name}
			if isTree {
				planted, want = append(planted, name+"/below"), append(want, name+"/below")
			}
			if got := breaches(planted, r.never); !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", r.name, got, want)
			}
		}
	}
	dir := plant(t, map[string]string{
		"go.mod":       "module planted\n\ngo 1.26\n",
		"main.go":      "package main\n\nimport _ \"planted/deep\"\n\nfunc main() {}\n",
		"deep/deep.go": "package deep\n\nimport _ \"net/http/httptest\"\n",
	})
	deps := dependencies(t, dir, reach{packages: []string{"."}})
	if got := breaches(deps, cloud); !slices.Contains(got, "net/http") || !slices.Contains(got, "net/http/httptest") {
		t.Errorf("got %q", got)
	}
}

// The compiler refuses a file of one zone that imports what is internal to the
// other, and one of pkg that imports either.
func TestCompilerKeepsZones(t *testing.T) {
	for _, planted := range []struct{ dir, imports string }{
		{"online", "keyferry/offline/internal/hsm"},
		{"online/internal/tenant", "keyferry/offline/internal/sandbox"},
		{"offline", "keyferry/online/internal/vault"},
		{"pkg/trust", "keyferry/offline/internal/hsm"},
		{"bundle", "keyferry/online/internal/practice"},
	} {
		t.Run(planted.dir+" imports "+planted.imports, func(t *testing.T) {
			name := filepath.Join(planted.dir, "planted", "planted.go")
			source := plant(t, map[string]string{"planted.go": "package planted\n\nimport _ \"" + planted.imports + "\"\n"})
			overlay := plant(t, map[string]string{"overlay.json": fmt.Sprintf(`{"Replace":{%q:%q}}`, absolute(t, name), filepath.Join(source, "planted.go"))})
			cmd := exec.Command("go", "build", "-overlay", filepath.Join(overlay, "overlay.json"), "./"+planted.dir+"/planted")
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatal("it compiles")
			}
			if want := "use of internal package " + planted.imports + " not allowed"; !strings.Contains(string(out), want) {
				t.Errorf("got %s, want %q", out, want)
			}
		})
	}
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// plant writes a source tree with a breach.
func plant(t *testing.T, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
