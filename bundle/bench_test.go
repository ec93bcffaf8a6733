// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"keyferry/test/memdir"
)

// thousandKeys writes the files of 1,000 keys below dir, and returns the letter
// that carries them. A keyless TPD is base64, and shrinks by a quarter.
func thousandKeys(b *testing.B, dir string) Letter {
	l := letter(b)
	l.Keys, l.Files = nil, nil
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 24<<10)
	for i := range MaxKeys {
		k := keyContent(fmt.Sprintf("key-%04d", i))
		k.Contents = nil
		random.Read(noise)
		for name, data := range map[string][]byte{
			WrappedName: noise[:1472], KeylessName(k.ID): []byte(base64.StdEncoding.EncodeToString(noise)), RecordName: bytes.Repeat([]byte("{}\n"), 700),
		} {
			path := filepath.Join(dir, KeyPath(k.ID, name))
			writeFile(b, path, data)
			k.Contents = append(k.Contents, FromFile(KeyPath(k.ID, name), path))
		}
		slices.SortFunc(k.Contents, func(x, y Content) int { return bytes.Compare([]byte(x.Path), []byte(y.Path)) })
		l.Keys = append(l.Keys, k)
	}
	return l
}

// BenchmarkThousandKeys seals and opens a bundle of 1,000 keys, and has stock
// tools do the same with the same files: tar, zstd, age, sha256sum and ssh-keygen.
// A ratio below 1 is in favour of Keyferry. Memory is that of a process that only
// seals and opens.
func BenchmarkThousandKeys(b *testing.B) {
	dir := memdir.New(b)
	l := thousandKeys(b, dir)
	stockKeys(b, dir)
	sealed := filepath.Join(dir, "sealed.kfb")
	const (
		stockSeal = `tar c keys | zstd -q | age -r "$(cat recipient)" -o payload.age && sha256sum payload.age >manifest && ssh-keygen -q -Y sign -n bench -f signer <manifest >manifest.sig 2>/dev/null`
		stockOpen = `ssh-keygen -q -Y verify -f allowed -I offline -n bench -s manifest.sig <manifest >/dev/null && sha256sum -c --quiet manifest && mkdir opened && age -d -i identity payload.age | zstd -dq | tar x -C opened && rm -r opened`
	)
	var ours, theirs [2]time.Duration
	timed := func(total *time.Duration, work func()) {
		start := time.Now()
		work()
		*total += time.Since(start)
	}
	stock := func(script string) func() {
		return func() {
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	}
	for b.Loop() {
		timed(&ours[0], func() { sealTo(b, sealed, l) })
		timed(&theirs[0], stock(stockSeal))
		timed(&ours[1], func() { unpack(b, sealed, filepath.Join(dir, "unpacked")) })
		timed(&theirs[1], stock(stockOpen))
	}
	for i, step := range []string{"seal", "open"} {
		b.ReportMetric(float64(ours[i].Milliseconds())/float64(b.N), step+"-ms")
		b.ReportMetric(ours[i].Seconds()/theirs[i].Seconds(), step+"-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPeakMemory is the peak memory of a process that seals and opens 1,000
// keys.
func BenchmarkPeakMemory(b *testing.B) {
	if os.Getenv("KEYFERRY_TEST_PEAK") != "" {
		dir := memdir.New(b)
		sealed := filepath.Join(dir, "sealed.kfb")
		sealTo(b, sealed, thousandKeys(b, dir))
		unpack(b, sealed, filepath.Join(dir, "unpacked"))
		return
	}
	var peak int64
	for b.Loop() {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^$", "-test.bench", "^BenchmarkPeakMemory$", "-test.benchtime", "1x")
		cmd.Env = append(os.Environ(), "KEYFERRY_TEST_PEAK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	}
	b.ReportMetric(float64(peak)/1024, "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

func sealTo(b *testing.B, path string, l Letter) {
	b.Helper()
	f := create(b, path)
	if _, err := Seal(f, scratch(b), l); err != nil {
		b.Fatal(err)
	}
}

// unpack verifies a bundle, writes its files below dir, and removes them.
func unpack(b *testing.B, path, dir string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	v, err := Open(f, scratch(b), pins(b))
	if err != nil {
		b.Fatal(err)
	}
	var paths []string
	for _, k := range v.Index.Keys {
		for _, f := range k.Files {
			paths = append(paths, f.Path)
		}
	}
	files, err := v.ReadFiles(paths...)
	if err != nil {
		b.Fatal(err)
	}
	for path, data := range files {
		writeFile(b, filepath.Join(dir, path), data)
	}
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
}

// stockKeys writes the keys of the letter as age and ssh-keygen read them.
func stockKeys(b *testing.B, dir string) {
	b.Helper()
	signer := filepath.Join(dir, "signer")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", signer).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(signer + ".pub")
	if err != nil {
		b.Fatal(err)
	}
	writeFile(b, filepath.Join(dir, "identity"), []byte(testIdentity+"\n"))
	writeFile(b, filepath.Join(dir, "recipient"), []byte(identity(b).Recipient().String()))
	writeFile(b, filepath.Join(dir, "allowed"), append([]byte("offline "), public...))
}

func writeFile(b *testing.B, path string, data []byte) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
}
