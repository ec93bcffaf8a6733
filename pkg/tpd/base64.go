// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
)

// sextets gives, for the first to fourth of four base64 characters, the bits
// that it stands for where they go; noSextet for any other byte. A field has
// 100 MB of them at times: this is twice as fast as encoding/base64.
var sextets = func() (tables [4][256]uint32) {
	for place := range tables {
		for b := range tables[place] {
			tables[place][b] = noSextet
		}
		for value, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
			tables[place][b] = uint32(value) << (18 - 6*place)
		}
	}
	return tables
}()

const noSextet = 1 << 31

// decodeBase64 decodes standard base64 with padding, in which there may be
// white space. It decodes what is regular itself, eight characters at once, and
// leaves the rest and every judgement to encoding/base64.
func decodeBase64(text string) ([]byte, error) {
	// Eight bytes are written for six: room for two more.
	dst, done, n := make([]byte, len(text)/4*3+8), 0, 0
	t0, t1, t2, t3 := &sextets[0], &sextets[1], &sextets[2], &sextets[3]
	for s := text; len(s) >= 8; s = s[8:] {
		a := t0[s[0]] | t1[s[1]] | t2[s[2]] | t3[s[3]]
		b := t0[s[4]] | t1[s[5]] | t2[s[6]] | t3[s[7]]
		if (a|b)&noSextet != 0 {
			break
		}
		binary.BigEndian.PutUint64(dst[n:], uint64(a)<<40|uint64(b)<<16)
		done, n = done+8, n+6
	}
	rest := text[done:]
	if strings.ContainsAny(rest, " \t") { // line ends are for the decoder to skip
		rest = strings.Join(strings.Fields(rest), "")
	}
	last, err := base64.StdEncoding.Strict().Decode(dst[n:], []byte(rest))
	if at := base64.CorruptInputError(0); errors.As(err, &at) {
		err = at + base64.CorruptInputError(done)
	}
	return dst[:n+last], err
}
