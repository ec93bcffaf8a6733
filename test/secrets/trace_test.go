// SPDX-License-Identifier: Apache-2.0

package secrets

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyferry/test/vectors"
)

// TestNoTraceOnDisk records every byte that the disconnected side writes in a
// ceremony, from init to receipt, to whatever file, pipe or terminal. The PIN of
// a rehearsal is kept beside its token: it is searched for after init.
func TestNoTraceOnDisk(t *testing.T) {
	needStrace(t)
	s := newSide(t)
	written := s.trace("write", importLine+" --wrap software")
	written = append(written, s.trace("write", "offline seal --state S --out stick")...)
	s.run("online upload --state T stick/keyferry-offline-1.kfb --active key --protection-password-file pw")
	s.run("online receipt --state T stick/keyferry-offline-1.kfb --out stick")
	written = append(written, s.trace("write", "offline receipt --state S stick/keyferry-online-1.kfb")...)
	if !bytes.Contains(written, []byte(`"event":"receipt"`)) || !bytes.Contains(written, []byte("keyferry-key-v2")) {
		t.Fatalf("the ceremony is not in the %d bytes that were recorded", len(written))
	}
	for _, name := range found(written, needles(s.v, s.pin())) {
		t.Errorf("written: %s", name)
	}
	for _, place := range []string{"S", "stick"} {
		s.searchFiles(place)
	}
}

// searchFiles looks through the files that are there after all, the PIN's own
// aside: what a mapped file, which no call writes, would show too.
func (s *side) searchFiles(place string) {
	s.t.Helper()
	err := filepath.WalkDir(filepath.Join(s.dir, place), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "/token/pin") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, name := range found(data, needles(s.v, s.pin())) {
			s.t.Errorf("%s holds: %s", path, name)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestDiskIsSearched records a program that writes a secret.
func TestDiskIsSearched(t *testing.T) {
	needStrace(t)
	v := vectors.OneTPD(t, sample)
	s := &side{t, t.TempDir(), v}
	secret := string(v.Password) + "\x00" + string(v.Key.D.Bytes())
	if err := os.WriteFile(filepath.Join(s.dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	got := found(s.trace("write", "dd if=secret of=copy status=none"), needles(v, []byte("no such PIN")))
	if !slices.Contains(got, "password, UTF-8") || !slices.Contains(got, "D, big-endian") {
		t.Errorf("found %q", got)
	}
}

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace (Debian package strace)")
	}
}

// calls are the system calls that a trace is about.
var calls = map[string]string{
	"write":   "write,pwrite64,writev,pwritev,pwritev2,sendto,sendmsg,sendfile,splice,vmsplice,copy_file_range",
	"network": "network",
}

// trace runs a command under strace. Of writes it returns the bytes, of other
// calls the lines.
func (s *side) trace(kind, line string) []byte {
	s.t.Helper()
	text, err := s.record(kind, line)
	if err != nil {
		s.t.Fatalf("%s: %v", line, err)
	}
	if kind != "write" {
		return text
	}
	return unquote(s.t, text)
}

// record returns the trace of a command, which may fail.
func (s *side) record(kind, line string) ([]byte, error) {
	s.t.Helper()
	log := filepath.Join(s.dir, "trace")
	out, failed := s.command("strace -f -qq -xx -s 100000000 -o " + log + " -e trace=" + calls[kind] + " " + line).CombinedOutput()
	text, err := os.ReadFile(log)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return text, failed
}

var quoted = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?`)

// unquote joins the strings of a trace, in which every byte is \xHH.
func unquote(t *testing.T, trace []byte) []byte {
	t.Helper()
	var all []byte
	for _, m := range quoted.FindAllSubmatch(trace, -1) {
		if len(m[2]) > 0 {
			t.Fatal("strace cut a string")
		}
		b, err := hex.DecodeString(strings.ReplaceAll(string(m[1]), `\x`, ""))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// Calls about sockets other than unix ones.
var otherSocket = regexp.MustCompile(`(socket|socketpair)\((?:AF|PF)_(?:[^UL]|UNSPEC)|AF_INET|AF_NETLINK|AF_PACKET|AF_VSOCK`)

// TestNoNetworkCalls wants unix sockets at most in an import, and in what comes
// before and after.
func TestNoNetworkCalls(t *testing.T) {
	needStrace(t)
	s := newSide(t)
	for _, line := range []string{importLine + " --wrap software", "offline seal --state S --out stick", "offline selftest"} {
		if found := otherSocket.Find(s.trace("network", line)); found != nil {
			t.Errorf("%s: %s", line, found)
		}
	}
}

// TestNetworkCallsAreFound traces a program that opens a socket.
func TestNetworkCallsAreFound(t *testing.T) {
	needStrace(t)
	s := &side{t: t, dir: t.TempDir()}
	trace, err := s.record("network", "openssl s_client -connect 127.0.0.1:9")
	if err == nil {
		t.Fatal("there is a server at port 9")
	}
	if !otherSocket.Match(trace) {
		t.Errorf("the trace shows no socket:\n%s", trace)
	}
}
