// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

var signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func sealHead(t testing.TB, l *Ledger) []byte {
	t.Helper()
	file, err := l.SealHead(signer, start)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestHead(t *testing.T) {
	path, lines := written(t, 3)
	file := sealHead(t, mustOpen(t, path))
	h, by, err := OpenHead(file)
	key, _ := sshsig.NewPublicKey(signer.Public())
	if err != nil || h.Ledger != (Mark{3, mustOpen(t, path).Head()}) || !h.Time.Equal(start.Truncate(1e9)) || !by.Equal(key) {
		t.Fatalf("%+v by %v, %v", h, by, err)
	}
	more, _ := written(t, 5)
	for name, c := range map[string]struct {
		data []byte
		want control.Control // none: it covers
	}{
		"as it was":          {slices.Concat(lines...), control.Control{}},
		"longer by now":      {read(t, more), control.Control{}},
		"cut by one":         {slices.Concat(lines[:2]...), control.LedgerHead},
		"cut to nothing":     {nil, control.LedgerHead},
		"last record edited": {bytes.Replace(slices.Concat(lines...), []byte("key-2"), []byte("key-9"), 1), control.LedgerHead},
	} {
		write(t, path, c.data)
		err := mustOpen(t, path).Covers(h.Ledger)
		if c.want.ID == "" && err != nil || c.want.ID != "" && !control.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	path, lines := written(t, 3)
	l := mustOpen(t, path)
	for i, line := range lines {
		if n, err := l.Find(fingerprint.Of(bytes.TrimSuffix(line, []byte("\n")))); err != nil || n != uint64(i+1) {
			t.Errorf("record %d: %d, %v", i+1, n, err)
		}
	}
	for _, head := range []fingerprint.Fingerprint{{}, fingerprint.Of(nil)} {
		if _, err := l.Find(head); !control.Is(err, control.LedgerHead) {
			t.Errorf("%s: %v", head, err)
		}
	}
}

// No byte of a signed head can be changed.
func TestHeadFlips(t *testing.T) {
	path, _ := written(t, 1)
	file := sealHead(t, mustOpen(t, path))
	for i := range file {
		for _, pattern := range []byte{0x01, 0x20, 0x80} {
			file[i] ^= pattern
			if h, _, err := OpenHead(file); !control.Is(err, control.LedgerHead) || h != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			file[i] ^= pattern
		}
	}
	for n := range file {
		if _, _, err := OpenHead(file[:n]); !control.Is(err, control.LedgerHead) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	t.Logf("count: %d flips and %d cuts, all refused", 3*len(file), len(file))
}

// The independent judge, by the commands of the package comment.
func TestHeadBySSHKeygen(t *testing.T) {
	path, _ := written(t, 2)
	dir := filepath.Dir(path)
	write(t, filepath.Join(dir, "ledger.head"), sealHead(t, mustOpen(t, path)))
	key, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "allowed_signers"), []byte("offline "+key.String()+"\n"))
	cmd := exec.Command("sh", "-c", `head -n 1 ledger.head >head.json && tail -n +2 ledger.head >head.sig &&
		ssh-keygen -Y verify -f allowed_signers -I offline -n keyferry-ledger-v1 -s head.sig <head.json`)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	if out, err := cmd.Output(); err != nil {
		t.Errorf("%v %s", err, out)
	}
}

func TestReadCopy(t *testing.T) {
	_, lines := written(t, 2)
	all := slices.Concat(lines...)
	l, err := ReadCopy(all)
	if err != nil || len(l.Entries()) != 2 || l.Head() != fingerprint.Of(bytes.TrimSuffix(lines[1], []byte("\n"))) {
		t.Errorf("%v, %v", l, err)
	}
	if _, err := ReadCopy(all[:len(all)-1]); !control.Is(err, control.LedgerBroken) {
		t.Errorf("torn: %v", err)
	}
	if _, err := ReadCopy(lines[1]); !control.Is(err, control.LedgerBroken) {
		t.Errorf("the first record cut out: %v", err)
	}
}
