// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"

	"keyferry/test/vectors"
)

// maxMemory is how many bytes may be taken for each byte of a file, the file
// itself in memory included.
const maxMemory = 4

// All that is ever allocated to read and check an export, garbage too, is
// bounded, and so what is needed at once is.
func TestMemoryIsBounded(t *testing.T) {
	v := writeBig(300)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, d := open(t, v)
	r := d.Check(now)
	runtime.ReadMemStats(&after)
	if r.Verdict != VerdictHSM || len(r.Templates) != 300 {
		t.Fatal(r.Err())
	}
	if used := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(v.XML)); used+1 > maxMemory {
		t.Errorf("%.2f bytes are allocated for each byte of the file, beside the file", used)
	}
}

const peakFile = "KEYFERRY_TEST_PEAK_FILE"

// BenchmarkPeakMemory reads and checks the big export in a process of its own
// and reports the peak of its resident memory (VmHWM).
func BenchmarkPeakMemory(b *testing.B) {
	v := bigExport()
	path := filepath.Join(b.TempDir(), "big.xml")
	if err := os.WriteFile(path, v.XML, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPeakChild$")
		cmd.Env = append(os.Environ(), peakFile+"="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		kilobytes := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(out)
		if kilobytes == nil {
			b.Skipf("NOT MEASURED: the system does not tell: %s", out)
		}
		n, err := strconv.Atoi(string(kilobytes[1]))
		if err != nil {
			b.Fatal(err)
		}
		peak := float64(n) * 1024 / float64(len(v.XML))
		b.ReportMetric(peak, "peak/file")
		if peak > maxMemory {
			b.Errorf("%.2f bytes of memory for each byte of the file", peak)
		}
	}
}

// TestPeakChild is what BenchmarkPeakMemory starts, on a file of its own.
func TestPeakChild(t *testing.T) {
	file := vectors.OneTPD(t, "contoso-60-templates").XML
	if path := os.Getenv(peakFile); path != "" {
		var err error
		if file, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	_, d := open(t, vectorOf(file))
	if r := d.Check(now); r.Verdict != VerdictHSM {
		t.Fatal(r.Err())
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	fmt.Println(string(status))
}
