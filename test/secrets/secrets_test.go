// SPDX-License-Identifier: Apache-2.0

// Package secrets looks for what the disconnected side leaves of its secrets,
// and for what it says to a network, with the real binaries: in the memory of
// the running process, in every byte that a whole ceremony writes, and among its
// system calls. Each search is shown to find what is there.
package secrets

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyferry/pkg/tpd/utf16le"
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }

// sample is a TPD whose key and password no test vector in the binaries has.
const sample = "contoso-unicode-password"

// needle is a part of a secret in one of its forms.
type needle struct {
	name  string
	bytes []byte
}

// needles are the secrets of an import in all forms that they may take. Of a
// number, 32 bytes from its middle stand for it: no chance brings those forth.
func needles(v vectors.TPD, pin []byte) []needle {
	wide := utf16le.Encode(v.Password)
	derived := sha256.Sum256(wide)
	all := []needle{
		{"password, UTF-8", v.Password}, {"password, UTF-16", wide}, {"AES key", derived[:16]}, {"PIN", pin},
		{"password, base64", []byte(base64.StdEncoding.EncodeToString(v.Password))[:len(v.Password)]},
	}
	p := v.Key.Precomputed
	for name, n := range map[string]*big.Int{
		"P": v.Key.Primes[0], "Q": v.Key.Primes[1], "D": v.Key.D, "D mod P-1": p.Dp, "D mod Q-1": p.Dq, "1/Q mod P": p.Qinv,
	} {
		big := n.Bytes()
		little := slices.Clone(big)
		slices.Reverse(little)
		for order, b := range map[string][]byte{"big-endian": big, "little-endian": little} {
			middle := b[len(b)/2-16:][:32]
			all = append(all, needle{name + ", " + order, middle})
			all = append(all, needle{name + ", " + order + ", hex", []byte(hex.EncodeToString(middle))})
			for shift := range 3 { // base64 of three bytes depends on where they begin
				text := base64.StdEncoding.EncodeToString(b[len(b)/2-16+shift:][:30])
				all = append(all, needle{fmt.Sprintf("%s, %s, base64 at %d", name, order, shift), []byte(text)})
			}
		}
	}
	return all
}

// found names the needles in the haystack.
func found(haystack []byte, needles []needle) []string {
	var names []string
	for _, n := range needles {
		if bytes.Contains(haystack, n.bytes) {
			names = append(names, n.name)
		}
	}
	return names
}

// side is a rehearsal with both sides' state directories, up to the import.
type side struct {
	t   *testing.T
	dir string
	v   vectors.TPD
}

func newSide(t *testing.T) *side {
	t.Helper()
	s := &side{t, t.TempDir(), vectors.OneTPD(t, sample)}
	for name, data := range map[string][]byte{"tpd.xml": s.v.XML, "pw": s.v.Password} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.dir, "stick"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.run("offline init --rehearsal --state S --out stick")
	s.run("online init --rehearsal --state T")
	s.run("online kek create --state T --size 2048 --out stick")
	s.run("online trust --state T --yes stick/offline-card-offline.json")
	s.run("offline trust --state S --yes stick/BYOK-SecurityWorld-pkg-NA-1")
	return s
}

const (
	importLine  = "offline import --state S --tpd-file-path tpd.xml --key-identifier key --protection-password-file pw --exchange-key-package stick/BYOK-KEK-pkg-NA-1"
	inspectLine = "offline inspect tpd.xml --state S --protection-password-file pw"
)

func (s *side) command(line string) *exec.Cmd {
	words := strings.Fields(line)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = s.dir
	return cmd
}

func (s *side) run(line string) {
	s.t.Helper()
	if out, err := s.command(line).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func (s *side) pin() []byte {
	s.t.Helper()
	pin, err := os.ReadFile(filepath.Join(s.dir, "S", "token", "pin"))
	if err != nil {
		s.t.Fatal(err)
	}
	return pin
}

// TestMemory holds a command where it prints its result, the last thing that it
// does, and searches all of its memory. The token (SoftHSM) is in the same
// process and still open: what it keeps of key and PIN is masked by itself.
func TestMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of a process that forbids it")
	}
	s := newSide(t)
	for _, line := range []string{inspectLine, importLine + " --wrap software --dry-run", importLine} {
		memory := s.memoryAtEnd(line)
		if !bytes.Contains(memory, []byte("contoso")) {
			t.Fatalf("%s: nothing of the TPD is in %d bytes: this is not its memory", line, len(memory))
		}
		for _, name := range found(memory, needles(s.v, s.pin())) {
			t.Errorf("%s leaves in memory: %s", line, name)
		}
	}
}

// TestFreedMemory: what C code frees is overwritten. In another program it is
// found.
func TestFreedMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of a process that forbids it")
	}
	s := newSide(t)
	library := filepath.Join(s.dir, "careless.so")
	if out, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", library, "testdata/careless.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("LD_PRELOAD", library)
	for _, size := range []int{200, 30000} {
		needle := make([]byte, 100)
		for i := range needle { // not the beginning, which glibc uses itself
			needle[i] = byte((size-110+i)*37 ^ size)
		}
		if !bytes.Contains(s.memoryAtEnd("dd if=/dev/zero bs=1 count=1 status=none"), needle) {
			t.Errorf("%d bytes that were freed are not found in another program either", size)
		}
		if bytes.Contains(s.memoryAtEnd(inspectLine), needle) {
			t.Errorf("%d bytes that were freed are in memory as they were", size)
		}
	}
}

// memoryAtEnd runs a command, and reads its memory when it prints its result.
func (s *side) memoryAtEnd(line string) (memory []byte) {
	s.t.Helper()
	atEnd(s.t, s.command(line), func(pid int) { memory = readMemory(s.t, pid) })
	return memory
}

// atEnd runs a command whose standard output is a pipe that is full, and calls look
// when it waits there.
func atEnd(t *testing.T, cmd *exec.Cmd, look func(pid int)) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pipe, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	fillPipe(t, w)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for late := time.After(time.Minute); !waitsToPrint(cmd.Process.Pid, pipe); {
		select {
		case err := <-ended:
			t.Fatalf("%s ended before it printed: %v\n%s", cmd, err, stderr.String())
		case <-late:
			t.Fatalf("%s has not printed\n%s", cmd, stderr.String())
		case <-time.After(time.Millisecond):
		}
	}
	look(cmd.Process.Pid)
	r.Close() // ends its wait
	<-ended
}

func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	fd := int(w.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		var err error
		for err == nil {
			_, err = unix.Write(fd, make([]byte, size))
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

// waitsToPrint reports whether a thread of the process writes to the pipe, by
// whatever descriptor: the kernel shows the call's number and its arguments.
func waitsToPrint(pid int, pipe string) bool {
	calls, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, path := range calls {
		call, _ := os.ReadFile(path) // a thread may have ended
		var number, fd int
		if _, err := fmt.Sscanf(string(call), "%d %v", &number, &fd); err != nil || number != unix.SYS_WRITE {
			continue
		}
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil && to == pipe {
			return true
		}
	}
	return false
}

// readMemory reads all of a process's memory that it can read itself.
func readMemory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var all bytes.Buffer
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatal(err)
		}
		if mode[0] != 'r' || strings.Contains(line, "[v") { // the kernel's own pages
			continue
		}
		if _, err := io.Copy(&all, io.NewSectionReader(mem, int64(from), int64(to-from))); err != nil {
			t.Logf("%s: %v", strings.TrimSpace(line), err) // pages that are not backed
		}
	}
	return all.Bytes()
}

// TestMemoryIsSearched holds a program that has all needles in its memory.
func TestMemoryIsSearched(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may read the memory of a process that forbids it")
	}
	s := &side{t, t.TempDir(), vectors.OneTPD(t, sample)}
	all := needles(s.v, []byte("a PIN to be found"))
	var planted []byte
	for _, n := range all {
		planted = append(planted, n.bytes...)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "planted"), planted, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := found(s.memoryAtEnd("dd if=planted bs=64k status=none"), all); len(got) != len(all) {
		t.Errorf("found %d of %d", len(got), len(all))
	}
}
