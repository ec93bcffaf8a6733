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
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyferry/test/memdir"
)

// writeKeys writes the files of 1,000 keys below dir. A keyless TPD is base64, and
// shrinks by a quarter.
func writeKeys(b *testing.B, dir string) {
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 24<<10)
	for i := range MaxKeys {
		id := fmt.Sprintf("key-%04d", i)
		random.Read(noise)
		writeFile(b, filepath.Join(dir, KeyPath(id, WrappedName)), noise[:1472])
		writeFile(b, filepath.Join(dir, KeyPath(id, KeylessName(id))), []byte(base64.StdEncoding.EncodeToString(noise)))
		writeFile(b, filepath.Join(dir, KeyPath(id, RecordName)), bytes.Repeat([]byte("{}\n"), 700))
	}
}

// sealKeys reads the files of 1,000 keys and seals them.
func sealKeys(b *testing.B, path, dir string) {
	b.Helper()
	l := letter(b)
	l.Keys, l.Files = nil, nil
	for i := range MaxKeys {
		k := keyContent(fmt.Sprintf("key-%04d", i))
		k.Contents = nil
		for _, name := range []string{RecordName, KeylessName(k.ID), WrappedName} {
			data, err := os.ReadFile(filepath.Join(dir, KeyPath(k.ID, name)))
			if err != nil {
				b.Fatal(err)
			}
			k.Contents = append(k.Contents, Content{KeyPath(k.ID, name), data})
		}
		l.Keys = append(l.Keys, k)
	}
	f := create(b, path)
	if _, err := Seal(f, create(b, path+".scratch"), l); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkThousandKeys seals and opens a bundle of 1,000 keys, and has stock
// tools do the same with the same files: tar, zstd, age, sha256sum and ssh-keygen.
// A ratio below 1 is in favour of Keyferry. The tools run side by side, a core
// each, and Keyferry does one thing after the other: so there is a ratio of the
// time that passes and one of the processors' time.
func BenchmarkThousandKeys(b *testing.B) {
	dir := memdir.New(b)
	writeKeys(b, dir)
	stockKeys(b, dir)
	sealed := filepath.Join(dir, "sealed.kfb")
	const (
		stockSeal = `tar c keys | zstd -q | age -r "$(cat recipient)" -o payload.age && sha256sum payload.age >manifest && ssh-keygen -q -Y sign -n bench -f signer <manifest >manifest.sig 2>/dev/null`
		stockOpen = `ssh-keygen -q -Y verify -f allowed -I offline -n bench -s manifest.sig <manifest >/dev/null && sha256sum -c --quiet manifest && mkdir opened && age -d -i identity payload.age | zstd -dq | tar x -C opened && rm -r opened`
	)
	type cost struct{ wall, cpu time.Duration }
	var ours, theirs [2]cost
	timed := func(total *cost, who int, work func()) {
		start, used := time.Now(), cpuTime(b, who)
		work()
		total.wall += time.Since(start)
		total.cpu += cpuTime(b, who) - used
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
		timed(&ours[0], syscall.RUSAGE_SELF, func() { sealKeys(b, sealed, dir) })
		timed(&theirs[0], syscall.RUSAGE_CHILDREN, stock(stockSeal))
		timed(&ours[1], syscall.RUSAGE_SELF, func() { unpack(b, sealed, filepath.Join(dir, "unpacked")) })
		timed(&theirs[1], syscall.RUSAGE_CHILDREN, stock(stockOpen))
	}
	for i, step := range []string{"seal", "open"} {
		b.ReportMetric(float64(ours[i].wall.Milliseconds())/float64(b.N), step+"-ms")
		b.ReportMetric(ours[i].wall.Seconds()/theirs[i].wall.Seconds(), step+"-ratio")
		b.ReportMetric(ours[i].cpu.Seconds()/theirs[i].cpu.Seconds(), step+"-cpu-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkPeakMemory is the peak memory of a process that seals 1,000 keys, or
// of one that opens them, whichever is more: each zone does one of the two.
func BenchmarkPeakMemory(b *testing.B) {
	if step, dir, child := strings.Cut(os.Getenv("KEYFERRY_TEST_PEAK"), " "); child {
		sealed := filepath.Join(dir, "sealed.kfb")
		if step == "seal" {
			sealKeys(b, sealed, dir)
		} else {
			unpack(b, sealed, filepath.Join(dir, "unpacked"))
		}
		b.ReportMetric(peak(b), "MiB")
		return
	}
	dir := memdir.New(b)
	writeKeys(b, dir)
	var most float64
	for b.Loop() {
		for _, step := range []string{"seal", "open"} {
			cmd := exec.Command("/proc/self/exe", "-test.run", "^$", "-test.bench", "^BenchmarkPeakMemory$", "-test.benchtime", "1x")
			cmd.Env = append(os.Environ(), "KEYFERRY_TEST_PEAK="+step+" "+dir)
			out, err := cmd.Output()
			if err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			found := peakMiB.FindSubmatch(out)
			if found == nil {
				b.Fatalf("no figure: %s", out)
			}
			mib, _ := strconv.ParseFloat(string(found[1]), 64)
			most = max(most, mib)
		}
	}
	b.ReportMetric(most, "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process, or its children that have ended, took of the
// processors so far.
func cpuTime(b *testing.B, who int) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

var peakMiB = regexp.MustCompile(`([0-9.]+) MiB`)

// peak is the most memory, in MiB, that this process has had. (What its parent is
// told of it has the parent's own memory in it, from before the exec.)
func peak(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	var kib float64
	if _, err := fmt.Sscanf(string(status[bytes.Index(status, []byte("VmHWM:")):]), "VmHWM: %f kB", &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// unpack verifies a bundle, writes its files below dir, and removes them.
func unpack(b *testing.B, path, dir string) {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	v, err := Open(f, create(b, path+".scratch"), pins(b))
	if err != nil {
		b.Fatal(err)
	}
	for _, k := range v.Index.Keys {
		for _, f := range k.Files {
			data, err := v.File(f.Path)
			if err != nil {
				b.Fatal(err)
			}
			writeFile(b, filepath.Join(dir, f.Path), data)
		}
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
