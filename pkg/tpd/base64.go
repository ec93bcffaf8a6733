// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"sync"

	"keyferry/internal/cores"
	"keyferry/internal/words"
)

// pairs gives, for two base64 characters as a number, the first one lowest, the
// 12 bits that they stand for; noPair for any other bytes. A field has 100 MB of
// them at times: this is some three times as fast as encoding/base64.
var pairs = sync.OnceValue(func() *[1 << 16]uint16 {
	const characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	table := new([1 << 16]uint16)
	for i := range table {
		table[i] = noPair
	}
	for i, first := range []byte(characters) {
		for j, second := range []byte(characters) {
			table[int(first)|int(second)<<8] = uint16(i<<6 | j)
		}
	}
	return table
})

const noPair = 1 << 15

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
	n := done / 4 * 3
	last, err := base64.StdEncoding.Strict().Decode(dst[n:], withoutBlanks(text[done:]))
	if at := base64.CorruptInputError(0); errors.As(err, &at) {
		err = at + base64.CorruptInputError(done)
	}
	return dst[:n+last], err
}

// withoutBlanks copies a text less its spaces and tabs; line ends the decoder
// skips itself. It may be as large as a file, and be blank but for every second
// character.
func withoutBlanks(text string) []byte {
	kept := make([]byte, 0, len(text))
	for i := range len(text) {
		if b := text[i]; b != ' ' && b != '\t' {
			kept = append(kept, b)
		}
	}
	return kept
}

// decodeRegular decodes sixteen characters at once, up to the first that is none
// of base64, and returns how many it has done. It writes nothing beyond.
func decodeRegular(dst []byte, text string) (done int) {
	table := pairs()
	for ; len(text) >= 16 && len(dst) >= 12; text, dst = text[16:], dst[12:] {
		high, flaw := decodeEight(table, words.Load(text))
		low, flaw2 := decodeEight(table, words.Load(text[8:]))
		if flaw|flaw2 != 0 {
			break
		}
		binary.BigEndian.PutUint64(dst, high<<16|low>>32)
		binary.BigEndian.PutUint32(dst[8:], uint32(low))
		done += 16
	}
	return done
}

// decodeEight decodes eight characters to 48 bits. The flaw is 0 if they are all
// of base64.
func decodeEight(table *[1 << 16]uint16, x uint64) (bits uint64, flaw uint16) {
	a, b, c, d := table[uint16(x)], table[uint16(x>>16)], table[uint16(x>>32)], table[x>>48]
	return uint64(a)<<36 | uint64(b)<<24 | uint64(c)<<12 | uint64(d), (a | b | c | d) & noPair
}
