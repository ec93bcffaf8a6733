// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

const kid = "https://contoso.vault.azure.net/keys/kek/0123456789abcdef0123456789abcdef"

// goldenBlob is the specification's JSON, as Keyferry writes it.
const goldenBlob = `{
  "schema_version": "1.0.0",
  "header": {
    "kid": "` + kid + `",
    "alg": "dir",
    "enc": "CKM_RSA_AES_KEY_WRAP"
  },
  "ciphertext": "-_8AAQ",
  "generator": "keyferry; test"
}
`

func TestBlob(t *testing.T) {
	ciphertext := []byte{0xfb, 0xff, 0, 1} // of which base64 and base64url differ
	data, err := Marshal(kid, ciphertext, "keyferry; test")
	if err != nil || string(data) != goldenBlob {
		t.Fatalf("%s (%v)", data, err)
	}
	b, got, err := Parse(data)
	if err != nil || !bytes.Equal(got, ciphertext) || b.Header.KID != kid || b.Generator != "keyferry; test" {
		t.Fatalf("%+v, %x, %v", b, got, err)
	}
}

func TestBlobRefused(t *testing.T) {
	for _, test := range []struct{ name, old, new string }{
		{"another schema", `"1.0.0"`, `"1.0.1"`},
		{"no schema", `"schema_version": "1.0.0",`, ``},
		{"another alg", `"dir"`, `"RSA-OAEP"`},
		{"no alg", `"alg": "dir",`, ``},
		{"another enc", `"CKM_RSA_AES_KEY_WRAP"`, `"CKM_RSA_AES_KEY_WRAP_256"`},
		{"an empty kid", kid, ``},
		{"no kid", `"kid": "` + kid + `",`, ``},
		{"no header", `"header"`, `"x"`},
		{"a field more", `"generator"`, `"x": 1, "generator"`},
		{"a field more in the header", `"alg"`, `"x": 1, "alg"`},
		{"a field twice", `"ciphertext"`, `"ciphertext": "", "ciphertext"`},
		{"a kid twice", `"kid"`, `"kid": "x", "kid"`},
		{"a field in another case", `"ciphertext"`, `"Ciphertext"`},
		{"padded", `-_8AAQ`, `-_8AAQ==`},
		{"base64, not base64url", `-_8AAQ`, `+/8AAQ`},
		{"a line end in the ciphertext", `-_8AAQ`, `-_8A\nAQ`},
		{"a blank in the ciphertext", `-_8AAQ`, `-_8A AQ`},
		{"stray bits in the ciphertext", `-_8AAQ`, `-_8AAR`},
		{"a ciphertext of an odd length", `-_8AAQ`, `-_8AA`},
		{"a ciphertext that is no text", `"-_8AAQ"`, `1`},
		{"something behind it", "}\n", "}{}"},
		{"cut", "}\n", ""},
		{"too large", `test`, strings.Repeat("t", maxSize)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(goldenBlob, test.old) {
				t.Fatalf("%q is not in the blob", test.old)
			}
			i := strings.LastIndex(goldenBlob, test.old)
			bad := goldenBlob[:i] + test.new + goldenBlob[i+len(test.old):]
			b, ciphertext, err := Parse([]byte(bad))
			if !control.Is(err, control.BlobFormat) || b != nil || ciphertext != nil {
				t.Errorf("%v, want %s", err, control.BlobFormat.ID)
			}
		})
	}
	if _, _, err := Parse(nil); !control.Is(err, control.BlobFormat) {
		t.Errorf("empty: %v", err)
	}
}
