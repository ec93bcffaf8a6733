// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"keyferry/pkg/fingerprint"
)

// The worked example in the package comment is the bundle in testdata, to the
// byte. With -update it is written anew.
func TestExampleInComment(t *testing.T) {
	want := exampleOf(t, golden(t))
	if *update {
		if err := os.WriteFile("example.go", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFile(t, ".", "example.go"); string(got) != want {
		t.Error("example.go is stale: go test ./bundle -run 'TestGolden|TestExample' -update")
	}
	if exampleOf(t, seal(t, letter(t))) == want {
		t.Error("another bundle has the same example: it tells nothing")
	}
}

// exampleOf is the file with the worked example. It takes the bundle apart
// without what is under test.
func exampleOf(t *testing.T, data []byte) string {
	t.Helper()
	outer := split(t, data)
	inner := split(t, plain(t, outer[2].data))
	var b strings.Builder
	b.WriteString(`# Worked example

testdata/golden.kfb was sealed by the Ed25519 key whose seed is 32 bytes 01, for
a receiver whose signing key has the seed of 32 bytes 02 and whose age identity
is ` + testIdentity + `.
Each member's header, the size of its content, and below that its SHA-256:

`)
	listing(&b, outer)
	fmt.Fprintf(&b, "manifest.json:\n\n%s\nIts signature:\n\n%s\n", indented(string(outer[0].data)), indented(string(outer[1].data)))
	b.WriteString("The payload, decrypted and decompressed:\n\n")
	listing(&b, inner)
	fmt.Fprintf(&b, "index.json:\n\n%s", indented(string(inner[0].data)))
	comment := strings.ReplaceAll("// "+strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\n", "\n// "), "// \n", "//\n")
	return "// SPDX-License-Identifier: Apache-2.0\n\n" + strings.ReplaceAll(comment, "// \t", "//\t") + "\npackage bundle\n"
}

func listing(b *strings.Builder, members []member) {
	at := 0
	for _, m := range members {
		fmt.Fprintf(b, "\tat %5d, %4d bytes, %s\n\t         %s\n", at, len(m.data), m.name, strings.TrimPrefix(fingerprint.Of(m.data).String(), "SHA256:"))
		at += block + len(m.data) + int(padding(int64(len(m.data))))
	}
	fmt.Fprintf(b, "\tat %5d, %4d bytes of zeros\n\n", at, trailer)
}

func indented(text string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n\t") + "\n"
}
