// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// Whatever is changed in a text, it is decoded as encoding/base64 (Strict)
// decodes it without its white space, and refused where that refuses.
func TestBase64IsStrict(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	accepted, refused := 0, 0
	for range 20000 {
		plain := make([]byte, r.IntN(80))
		for i := range plain {
			plain[i] = byte(r.Uint32())
		}
		text := []byte(base64.StdEncoding.EncodeToString(plain))
		for range r.IntN(3) {
			at := r.IntN(len(text) + 1)
			piece := pick(r, " ", "\r\n", "\n", "\t", "=", "A", "*", "-", "é", "\x00", "")
			text = append(text[:at:at], piece+string(text[min(len(text), at+r.IntN(2)):])...)
		}
		got, err := decodeBase64(string(text))
		want, wantErr := base64.StdEncoding.Strict().DecodeString(strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(string(text)))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, expected %v", text, err, wantErr)
		}
		if err != nil {
			refused++
			continue
		}
		if accepted++; !bytes.Equal(got, want) {
			t.Fatalf("%q: % x, expected % x", text, got, want)
		}
	}
	if accepted < 1000 || refused < 1000 {
		t.Errorf("%d accepted, %d refused: the test tells too little", accepted, refused)
	}
}

// White space costs no memory: what is allocated is bounded by the text alone.
func TestBase64MemoryIsBounded(t *testing.T) {
	for name, text := range map[string]string{
		"no white space":    strings.Repeat("A", 1<<20),
		"one blank":         " " + strings.Repeat("A", 1<<20),
		"every second one":  strings.Repeat("A ", 1<<20),
		"every second tab":  strings.Repeat("A\t", 1<<20),
		"every second line": strings.Repeat("A\n", 1<<20),
		"white space only":  strings.Repeat(" \t\r\n", 1<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeBase64(text)
		runtime.ReadMemStats(&after)
		if used := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(text)); err != nil || used > 1.8 {
			t.Errorf("%s: %.2f bytes are allocated for each character, %v", name, used, err)
		}
	}
}
