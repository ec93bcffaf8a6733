// SPDX-License-Identifier: Apache-2.0

// Command throughput seals and opens a large bundle of files of 64 MiB, and does
// the same with stock tools, one after the other on the same machine:
//
//	seal   tar | zstd -3 -T0 | age; ssh-keygen -Y sign
//	open   ssh-keygen -Y verify; age -d | zstd -d | tar x
//
// It prints wall time, CPU time and the peak memory of the largest process, the
// best of three runs in turn; a ratio above 1 is in favour of Keyferry. Both read
// and write files in a directory, which had better be in memory, and throw away
// what they unpack. Keyferry does more: it reads what it seals twice, hashes each
// file and the payload, and copies what it opens. Last comes what the format asks
// of a core that opens, by itself: no way to open is faster.
//
// Its arguments are the size in MiB, a multiple of 64, and the directory, which
// whoever made it removes.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"keyferry/bundle"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "throughput:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "seal":
		return seal(args[1])
	case len(args) == 2 && args[0] == "open":
		return open(args[1])
	case len(args) != 2:
		return errors.New("usage: throughput MIB DIR")
	}
	size, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	dir := args[1]
	fmt.Printf("%d MiB                      wall        CPU      peak\n", size)
	for _, content := range []string{"noise", "base64"} {
		if err := writeAll(filepath.Join(dir, "data"), content, size); err != nil {
			return err
		}
		if err := compare(dir, content); err != nil {
			return err
		}
	}
	return bound()
}

// bound prints how fast one core can be that does for each byte what opening what
// does not shrink can't do without: SHA-256 of the payload, that of the file, and
// decryption.
func bound() error {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		return err
	}
	nonce := make([]byte, chacha20poly1305.NonceSize)
	plain := make([]byte, 64<<10) // a chunk of age
	sealed := aead.Seal(nil, nonce, plain, nil)
	hash := rate(len(plain), func() { sha256.Sum256(plain) })
	decrypt := rate(len(plain), func() {
		_, err = aead.Open(plain[:0], nonce, sealed, nil)
	})
	fmt.Printf("one core: SHA-256 %.0f MB/s, ChaCha20-Poly1305 %.0f MB/s; twice the one and once the other %.0f MB/s\n",
		hash/1e6, decrypt/1e6, 1/(2/hash+1/decrypt)/1e6)
	return err
}

// rate is in bytes per second.
func rate(size int, f func()) float64 {
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			f()
		}
	})
	return float64(size) * float64(r.N) / r.T.Seconds()
}

const fileSize = 64 // MiB

// writeAll writes what wrapped keys are like, or what TPD exports are like.
func writeAll(dir, content string, mib int) error {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{1})
	for i := range mib / fileSize {
		err := durable.ReplaceFrom(filepath.Join(dir, fmt.Sprintf("%04d", i)), 0o600, func(f *os.File) error {
			return write(f, noise, content)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func write(w io.Writer, noise *rand.ChaCha8, content string) error {
	piece := make([]byte, 1<<20)
	for range fileSize {
		if content == "noise" {
			noise.Read(piece)
		} else {
			raw := make([]byte, len(piece)/4*3)
			noise.Read(raw)
			base64.StdEncoding.Encode(piece, raw)
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// The two ways to do each step. Keys are made where they are missing.
const (
	stockSeal = `set -o pipefail; [[ -e key ]] || { ssh-keygen -q -t ed25519 -N '' -f key; age-keygen -o id.txt 2>/dev/null; echo "x $(cat key.pub)" > signers; }
rm -f p.sig; tar --format=ustar -cf - data | zstd -q -3 -T0 | age -r "$(age-keygen -y id.txt)" > p && ssh-keygen -q -Y sign -n x -f key p 2>/dev/null`
	stockOpen = `set -o pipefail; ssh-keygen -q -Y verify -n x -I x -f signers -s p.sig < p && age -d -i id.txt p | zstd -q -d | tar -xO > /dev/null`
)

func compare(dir, content string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, step := range []struct{ name, stock string }{{"seal", stockSeal}, {"open", stockOpen}} {
		var ours, theirs cost
		for range 3 {
			if err := ours.measure(dir, self, step.name, dir); err != nil {
				return err
			}
			if err := theirs.measure(dir, "bash", "-c", step.stock); err != nil {
				return err
			}
		}
		fmt.Printf("%s %-7s keyferry     %v\n", step.name, content, ours)
		fmt.Printf("%s %-7s stock tools  %v\n", step.name, content, theirs)
		fmt.Printf("%s %-7s ratio      %6.2f     %6.2f     %6.2f\n", step.name, content, theirs.wall/ours.wall, theirs.cpu/ours.cpu, theirs.peak/ours.peak)
	}
	return nil
}

// cost is in seconds and in MiB.
type cost struct{ wall, cpu, peak float64 }

func (c cost) String() string {
	return fmt.Sprintf("%6.2f s   %6.2f s   %6.1f MiB", c.wall, c.cpu, c.peak)
}

// measure runs a command and its children, of which the largest counts as the
// peak, and keeps the best of this run and those before.
func (c *cost) measure(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	now := cost{
		wall: time.Since(start).Seconds(),
		cpu:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		peak: float64(usage.Maxrss) / 1024,
	}
	if *c == (cost{}) {
		*c = now
	}
	*c = cost{min(c.wall, now.wall), min(c.cpu, now.cpu), max(c.peak, now.peak)}
	return nil
}

// Both sides' identities; anybody's will do.
var (
	signer      = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	identity, _ = age.ParseX25519Identity("AGE-SECRET-KEY-18RXAN72N6J0YWHWKM7PFFCESXDS2Y5DUZ5GWL6Q664JFDKGUNU6SSCFKP3")
)

func seal(dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	var files []bundle.Content
	for _, e := range entries {
		files = append(files, bundle.FromFile(e.Name(), filepath.Join(dir, "data", e.Name())))
	}
	return durable.ReplaceFrom(filepath.Join(dir, "bundle"), 0o600, func(f *os.File) error {
		_, err := bundle.Seal(f, bundle.Letter{
			Purpose: bundle.KeyTransfer, Sender: "bench", Signer: signer, Receiver: fingerprint.Of(nil), Recipient: identity.Recipient(),
			Sequence: 1, Created: time.Now(), Files: files,
		})
		return err
	})
}

func open(dir string) error {
	scratch, err := durable.Scratch(dir)
	if err != nil {
		return err
	}
	defer scratch.Close()
	in, err := os.Open(filepath.Join(dir, "bundle"))
	if err != nil {
		return err
	}
	defer in.Close()
	sender, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		return err
	}
	_, err = bundle.Open(in, scratch, bundle.Pins{
		Purpose: bundle.KeyTransfer, SenderName: "bench", Sender: sender, Receiver: fingerprint.Of(nil), Identity: identity,
	})
	return err
}
