// SPDX-License-Identifier: Apache-2.0

package words

import (
	"encoding/binary"
	"testing"
)

func TestLoad(t *testing.T) {
	const text = "\x01\x82A\x00\xffzé+more"
	if got, want := Load(text), binary.LittleEndian.Uint64([]byte(text)); got != want {
		t.Errorf("%#x, expected %#x", got, want)
	}
}
