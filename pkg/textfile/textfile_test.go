// SPDX-License-Identifier: Apache-2.0

package textfile

import "testing"

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"UTF-8":                {"Büro €𝄞\r\n", "Büro €𝄞\r\n"},
		"with a mark":          {"\xEF\xBB\xBFa", "a"},
		"UTF-16, PowerShell's": {"\xFF\xFEa\x00\xFC\x00\r\x00\n\x00", "aü\r\n"},
		"UTF-16, big-endian":   {"\xFE\xFF\x00a\x00\xFC", "aü"},
		"a surrogate pair":     {"\xFF\xFE\x34\xD8\x1E\xDD", "𝄞"},
		"nothing":              {"", ""},
		"a mark alone":         {"\xFF\xFE", ""},
	} {
		if got, err := Decode([]byte(c.data)); err != nil || string(got) != c.want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, data := range map[string]string{
		"Latin-1":               "B\xFCro",
		"UTF-16 without a mark": "a\x00b\x00",
		"NUL":                   "a\x00",
		"NUL in UTF-16":         "\xFF\xFE\x00\x00",
		"an odd byte":           "\xFF\xFEa",
		"half a pair":           "\xFF\xFE\x34\xD8",
		"half a pair, and more": "\xFF\xFE\x34\xD8a\x00",
		"the other half":        "\xFF\xFE\x1E\xDDa\x00",
	} {
		if got, err := Decode([]byte(data)); err == nil || got != nil {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// What held a secret is cleared where it was converted or refused.
func TestClears(t *testing.T) {
	for _, data := range [][]byte{[]byte("\xFF\xFEa\x00"), []byte("\xFF\xFEa"), []byte("a\x00")} {
		Decode(data)
		for _, b := range data {
			if b != 0 {
				t.Errorf("left: %q", data)
				break
			}
		}
	}
}
