// SPDX-License-Identifier: Apache-2.0

//go:build !race

// The race detector multiplies the memory that is measured here.

package tpd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	. "keyferry/pkg/tpd"
	"keyferry/test/vectors"
)

const peakFile = "KEYFERRY_TEST_PEAK_FILE"

// Any file, sound or made to hurt, takes no more memory than the package promises:
// each is read in a process of its own, whose peak the system tells.
func TestMemoryPromise(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("NOT MEASURED: this system does not tell the peak of a process")
	}
	v := vectors.OneTPD(t, "contoso-mode2")
	withTemplates := func(n int, template string) []byte {
		d := takeApart(t, v)
		d.document = strings.Replace(d.document, "{TEMPLATES}", strings.Repeat(template, n), 1)
		return d.export()
	}
	fill := func(size int, before, piece, after string) []byte {
		return []byte(before + strings.Repeat(piece, (size-len(before)-len(after))/len(piece)) + after)
	}
	const arrayStart, arrayEnd = `<ArrayOfAnyType><anyType>`, `</anyType></ArrayOfAnyType>`
	for name, file := range map[string][]byte{
		"a sound export":        v.XML,
		"4,300 templates":       withTemplates(4300, "<string/>"),
		"100,000 templates":     withTemplates(100_000, "<string/>"),
		"1,000,000 templates":   withTemplates(1_000_000, "<string/>"),
		"2,000,000 elements":    []byte(arrayStart + strings.Repeat("<a/>", 2_000_000) + arrayEnd),
		"64 MiB of templates":   withTemplates(3900, "<string>"+strings.Repeat("&lt;a/&gt;", 1250)+"</string>"),
		"a field of 64 MiB":     fill(MaxSize, arrayStart+"<m_strTrustedDocDomainInfo>", "ABCD", "</m_strTrustedDocDomainInfo>"+arrayEnd),
		"a field of references": fill(MaxSize/4, arrayStart+"<m_strTrustedDocDomainInfo>", "&#65;", "</m_strTrustedDocDomainInfo>"+arrayEnd),
		"attributes":            fill(MaxSize/4, arrayStart+"<a ", `a="" `, "/>"+arrayEnd),
		"carriage returns":      fill(MaxSize/4, arrayStart+"<a>", "a\r", "</a>"+arrayEnd),
	} {
		path := filepath.Join(t.TempDir(), "tpd.xml")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestPeakChild$")
		cmd.Env = append(os.Environ(), peakFile+"="+path)
		out, err := cmd.CombinedOutput()
		kilobytes := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(out)
		if err != nil || kilobytes == nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
		n, err := strconv.Atoi(string(kilobytes[1]))
		if err != nil {
			t.Fatal(err)
		}
		peak, promise := n<<10, MemoryPerByte*len(file)+32<<20
		t.Logf("%s: %d MiB for a file of %.1f MiB", name, peak>>20, float64(len(file))/(1<<20))
		if peak > promise {
			t.Errorf("%s: %d MiB, promised are %d MiB for a file of %d bytes", name, peak>>20, promise>>20, len(file))
		}
	}
}

// TestPeakChild is what TestMemoryPromise starts.
func TestPeakChild(t *testing.T) {
	path := os.Getenv(peakFile)
	if path == "" {
		t.Skip("no file to read: TestMemoryPromise starts this one")
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Parse(file)
	if err == nil {
		var d *Domain
		if d, err = e.Decrypt([]byte("Passw0rd!")); err == nil {
			err = d.Check(terms).Err()
		}
	}
	fmt.Println("ends in", err)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(status))
}
