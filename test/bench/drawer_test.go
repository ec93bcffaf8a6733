// SPDX-License-Identifier: Apache-2.0

// Package bench holds the binaries against stock tools that do the same work, in
// one run on one machine: a ratio below 1 is in favour of Keyferry.
package bench

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"keyferry/test/memdir"
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

func TestMain(m *testing.M) { os.Exit(testbin.Main(m)) }

// drawer is how many exports are inspected together.
const drawer = 1000

// BenchmarkDrawer inspects a drawer of exports, and has openssl decrypt and
// xmllint read the same files. It reports the whole time of each, the ratio, and
// the peak memory of `offline inspect`.
func BenchmarkDrawer(b *testing.B) {
	v := vectors.OneTPD(b, "contoso-mode2")
	dir := memdir.New(b)
	password := filepath.Join(dir, "password")
	write(b, password, v.Password)
	base64Text := regexp.MustCompile(`<m_strTrustedDocDomainInfo>([^<]*)<`).FindSubmatch(v.XML)[1]
	encrypted, err := base64.StdEncoding.DecodeString(string(base64Text))
	if err != nil {
		b.Fatal(err)
	}
	ciphertext := filepath.Join(dir, "ciphertext")
	write(b, ciphertext, encrypted)
	var files []string
	for i := range drawer {
		file := filepath.Join(dir, fmt.Sprintf("export-%d.xml", i))
		write(b, file, v.XML)
		files = append(files, file)
	}
	var password16 []byte
	for _, unit := range utf16.Encode([]rune(string(v.Password))) {
		password16 = binary.LittleEndian.AppendUint16(password16, unit)
	}
	key := sha256.Sum256(password16)
	decrypt := []string{"enc", "-d", "-aes-128-cbc", "-K", hex.EncodeToString(key[:16]), "-iv", "0102030405060708090a0b0c0d0e0f10", "-in", ciphertext}

	var ours, theirs time.Duration
	var memory int64
	for b.Loop() {
		start := time.Now()
		inspected := run(b, exec.Command("offline", append([]string{"inspect", "--state", filepath.Join(dir, "none"), "--json", "--protection-password-file", password}, files...)...))
		ours += time.Since(start)
		memory = max(memory, inspected)

		start = time.Now()
		for range files {
			run(b, exec.Command("openssl", decrypt...))
		}
		run(b, exec.Command("xmllint", append([]string{"--stream", "--noout"}, files...)...))
		theirs += time.Since(start)
	}
	n := float64(b.N)
	b.ReportMetric(ours.Seconds()*1000/n, "offline-ms")
	b.ReportMetric(theirs.Seconds()*1000/n, "openssl+xmllint-ms")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
	b.ReportMetric(float64(memory)/(1<<20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCommand is one command that needs neither token nor network, from its
// start to its end.
func BenchmarkCommand(b *testing.B) {
	v := vectors.OneTPD(b, "contoso-mode2")
	dir := memdir.New(b)
	export, password := filepath.Join(dir, "export.xml"), filepath.Join(dir, "password")
	write(b, export, v.XML)
	write(b, password, v.Password)
	for b.Loop() {
		run(b, exec.Command("offline", "inspect", "--state", filepath.Join(dir, "none"), "--protection-password-file", password, export))
	}
	b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms")
	b.ReportMetric(0, "ns/op")
}

// run runs a command that must succeed, and returns its peak memory in bytes.
func run(b *testing.B, cmd *exec.Cmd) int64 {
	b.Helper()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd.Args[:2], err, errs.Bytes())
	}
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss * 1024
}

func write(b *testing.B, path string, data []byte) {
	b.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		b.Fatal(err)
	}
}
