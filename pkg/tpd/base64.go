// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"

	"keyferry/internal/cores"
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
// white space. It decodes what is regular itself, on all cores, and leaves the
// rest and every judgement to encoding/base64.
func decodeBase64(text string) ([]byte, error) {
	dst := make([]byte, (len(text)+3)/4*3)
	const piece = 1 << 20
	regular := make([]int, (len(text)+piece-1)/piece) // characters done, of each piece
	cores.Each(len(regular), func() func(int) {
		return func(i int) {
			at := i * piece
			regular[i] = decodeRegular(dst[at/4*3:], text[at:min(at+piece, len(text))])
		}
	})
	done := 0
	for i, n := range regular {
		if done = i*piece + n; n < piece {
			break
		}
	}
	n, rest := done/4*3, text[done:]
	if strings.ContainsAny(rest, " \t") { // line ends are for the decoder to skip
		rest = strings.Join(strings.Fields(rest), "")
	}
	last, err := base64.StdEncoding.Strict().Decode(dst[n:], []byte(rest))
	if at := base64.CorruptInputError(0); errors.As(err, &at) {
		err = at + base64.CorruptInputError(done)
	}
	return dst[:n+last], err
}

// decodeRegular decodes eight characters at once, up to the first that is none
// of base64, and returns how many it has done. It writes nothing beyond.
func decodeRegular(dst []byte, text string) (done int) {
	t0, t1, t2, t3 := &sextets[0], &sextets[1], &sextets[2], &sextets[3]
	for ; len(text) >= 8; text = text[8:] {
		a := t0[text[0]] | t1[text[1]] | t2[text[2]] | t3[text[3]]
		b := t0[text[4]] | t1[text[5]] | t2[text[6]] | t3[text[7]]
		if (a|b)&noSextet != 0 {
			break
		}
		binary.BigEndian.PutUint32(dst, a<<8|b>>16)
		binary.BigEndian.PutUint16(dst[4:], uint16(b))
		dst = dst[6:]
		done += 8
	}
	return done
}
