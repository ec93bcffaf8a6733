// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/base64"
	"io"
	"math/rand/v2"
	"testing"
)

const benchSize = 64 << 20

// payloads are the two kinds of content: wrapped keys, which don't shrink, and
// TPD exports, which are base64.
func payloads() map[string][]byte {
	noise := make([]byte, benchSize)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	return map[string][]byte{
		"incompressible": noise,
		"base64":         []byte(base64.StdEncoding.EncodeToString(noise[:benchSize/4*3])),
	}
}

func BenchmarkSeal(b *testing.B) {
	for name, data := range payloads() {
		b.Run(name, func(b *testing.B) {
			l, file := letter(b), scratch(b)
			l.Files = []Content{Bytes("data", data)}
			b.SetBytes(benchSize)
			for b.Loop() {
				if _, err := file.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				if _, err := Seal(io.Discard, file, l); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen verifies all, and unpacks all.
func BenchmarkOpen(b *testing.B) {
	for name, data := range payloads() {
		b.Run(name, func(b *testing.B) {
			l, file, p := letter(b), scratch(b), pins(b)
			l.Files = []Content{Bytes("data", data)}
			sealed := seal(b, l)
			b.SetBytes(benchSize)
			for b.Loop() {
				if _, err := reopen(b, file, sealed, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
