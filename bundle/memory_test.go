// SPDX-License-Identifier: Apache-2.0

//go:build linux && !race

package bundle

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyferry/test/memdir"
)

// A bundle of any size is sealed and opened in less memory than this.
const (
	maxMemory   = 64 << 20
	memorySize  = 4 * maxMemory
	memoryCores = "32" // each of which might want buffers of its own
	memoryEnv   = "KEYFERRY_TEST_MEMORY"
)

// TestMemory seals and opens a bundle larger than the bound, each in a process
// of its own, as if there were many cores.
func TestMemory(t *testing.T) {
	for _, content := range []string{"noise", "base64"} {
		dir := memdir.New(t)
		for _, step := range []string{"seal", "open"} {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestInLittleMemory$")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), memoryEnv+"="+step+" "+content, "GOMAXPROCS="+memoryCores)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s %s: %v", step, content, err)
			}
			t.Logf("%s %s: %s", step, content, out)
		}
	}
}

// TestInLittleMemory is what TestMemory runs. It looks at its own peak: what the
// kernel tells a parent may be the parent's own.
func TestInLittleMemory(t *testing.T) {
	step, content, given := strings.Cut(os.Getenv(memoryEnv), " ")
	if !given {
		return
	}
	l := letter(t)
	l.Keys, l.Files = nil, []Content{{"data", func() (io.ReadCloser, error) { return io.NopCloser(made(content)), nil }}}
	if step == "seal" {
		if _, err := Seal(create(t, "bundle"), l); err != nil {
			t.Fatal(err)
		}
	} else {
		f, err := os.Open("bundle")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		v, err := Open(f, create(t, "scratch"), pins(t))
		if err != nil || v.Index.Files[0].Size != memorySize {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var peak int
	if _, err := fmt.Sscanf(after, "%d kB", &peak); err != nil || peak >= maxMemory>>10 {
		t.Errorf("it took %d KiB of memory, %v", peak, err)
	}
	fmt.Printf("%d KiB\n", peak)
}

// made is content of memorySize bytes.
func made(content string) io.Reader {
	noise := rand.NewChaCha8([32]byte{})
	if content == "noise" {
		return io.LimitReader(noise, memorySize)
	}
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(base64.NewEncoder(base64.StdEncoding, w), noise)
		w.CloseWithError(err)
	}()
	return io.LimitReader(r, memorySize)
}
