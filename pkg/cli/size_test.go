// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestSizeFlag(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "4096": 4096, "3K": 3 << 10, "500M": 500 << 20, "2G": 2 << 30, "9223372036854775807": 1<<63 - 1,
		"": 0, "0": 0, "-1": 0, "G": 0, "1GG": 0, "1KG": 0, "1T": 0, "1 G": 0, "1.5G": 0, "0x10": 0, "9223372036854775807K": 0, "9223372036854775808": 0,
	} {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		size := AddSizeFlag(flags, "max-size", 7)
		err := flags.Parse([]string{"--max-size", text})
		if want == 0 && (err == nil || *size != 7) || want != 0 && (err != nil || *size != want) {
			t.Errorf("%q: %d, %v", text, *size, err)
		}
	}
}
