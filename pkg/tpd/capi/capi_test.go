// SPDX-License-Identifier: Apache-2.0

package capi

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

// members are the numbers of a blob, by the names of RFC 8017.
type members struct{ n, p, q, dP, dQ, qInv, d *big.Int }

// encode writes the blob of a key; change, if any, alters its members first.
func encode(key *rsa.PrivateKey, algorithm Algorithm, change func(*members)) []byte {
	m := &members{
		n: key.N, p: key.Primes[0], q: key.Primes[1],
		dP: key.Precomputed.Dp, dQ: key.Precomputed.Dq, qInv: key.Precomputed.Qinv, d: key.D,
	}
	if change != nil {
		change(m)
	}
	size := key.Size()
	b := []byte{7, 2, 0, 0}
	b = binary.LittleEndian.AppendUint32(b, uint32(algorithm))
	b = append(b, "RSA2"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(8*size))
	b = binary.LittleEndian.AppendUint32(b, uint32(key.E))
	for _, x := range []struct {
		number *big.Int
		length int
	}{{m.n, size}, {m.p, size / 2}, {m.q, size / 2}, {m.dP, size / 2}, {m.dQ, size / 2}, {m.qInv, size / 2}, {m.d, size}} {
		field := x.number.FillBytes(make([]byte, x.length))
		slices.Reverse(field)
		b = append(b, field...)
	}
	return b
}

func testKey(t testing.TB) *rsa.PrivateKey { return vectors.OneTPD(t, "contoso-mode2").Key }

func order(key *rsa.PrivateKey) (phi, lambda *big.Int) {
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(key.Primes[0], one), new(big.Int).Sub(key.Primes[1], one)
	phi = new(big.Int).Mul(p1, q1)
	return phi, new(big.Int).Div(phi, new(big.Int).GCD(nil, nil, p1, q1))
}

func TestParseAccepts(t *testing.T) {
	key := testKey(t)
	phi, lambda := order(key)
	e := big.NewInt(exponent)
	if phi.Cmp(lambda) == 0 {
		t.Fatal("φ and λ of the test key are equal: it tells nothing")
	}
	for name, blob := range map[string][]byte{
		"exchange":           encode(key, KeyExchange, nil),
		"signature":          encode(key, Signature, nil),
		"strong-name prefix": append([]byte{0, 0x24, 0, 0, 4, 0x80, 0, 0, 0x94, 4, 0, 0}, encode(key, KeyExchange, nil)...),
		"D mod φ":            encode(key, KeyExchange, func(m *members) { m.d = new(big.Int).ModInverse(e, phi) }),
		"D mod λ":            encode(key, KeyExchange, func(m *members) { m.d = new(big.Int).ModInverse(e, lambda) }),
	} {
		t.Run(name, func(t *testing.T) {
			got, algorithm, err := Parse(blob)
			if err != nil {
				t.Fatal(err)
			}
			if want := KeyExchange; name != "signature" && algorithm != want || name == "signature" && algorithm != Signature {
				t.Errorf("algorithm %#x", algorithm)
			}
			if !got.PublicKey.Equal(&key.PublicKey) || got.Precomputed.Dp == nil || !IsBlob(blob) {
				t.Error("another key came out, or it is not precomputed")
			}
		})
	}
}

func TestParseAcceptsEverySize(t *testing.T) {
	for _, bits := range []int{1024, 2048, 3072, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := Parse(encode(key, KeyExchange, nil))
		if err != nil || !got.Equal(key) {
			t.Errorf("RSA-%d: %v", bits, err)
		}
	}
}

func TestKeyBlob(t *testing.T) {
	good := encode(testKey(t), KeyExchange, nil)
	set := func(at int, b ...byte) []byte {
		blob := slices.Clone(good)
		copy(blob[at:], b)
		return blob
	}
	for name, blob := range map[string][]byte{
		"empty":               nil,
		"header only":         good[:headerSize],
		"shorter than header": good[:headerSize-1],
		"truncated":           good[:len(good)-16],
		"one byte too many":   append(slices.Clone(good), 0),
		"public key blob":     set(0, 6),
		"other version":       set(1, 1),
		"reserved not zero":   set(2, 1),
		"other algorithm":     set(4, 0, 0x22),
		"public key magic":    set(8, 'R', 'S', 'A', '1'),
		"another bitlen":      set(12, 0, 4),
		"huge bitlen":         set(12, 0xff, 0xff, 0xff, 0xff),
		"bitlen 0":            set(12, 0, 0),
		"exponent 3":          set(16, 3, 0, 0, 0),
		"prefix of 11 bytes":  append(make([]byte, 11), good...),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse(blob)
			if says := map[string]string{"other version": "the version 1", "exponent 3": "public exponent 3"}[name]; !control.Is(err, control.TPDKeyBlob) || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, expected %s", err, control.TPDKeyBlob.ID)
			}
		})
	}
}

func TestIsBlob(t *testing.T) {
	good := encode(testKey(t), KeyExchange, nil)
	other := slices.Clone(good)
	copy(other[8:], "RSA1")
	public := slices.Clone(good)
	public[0] = 6
	version := slices.Clone(good)
	version[1] = 3
	neither := slices.Clone(other)
	neither[1] = 3
	for name, c := range map[string]struct {
		blob []byte
		want bool
	}{
		"good": {good, true}, "magic of a public key": {other, true}, "behind a prefix": {append(make([]byte, 12), other...), true},
		"another version": {version, true}, "neither": {neither, false}, "public": {public, false}, "header alone": {good[:headerSize], true}, "cut": {good[:headerSize-1], false}, "empty": {nil, false},
	} {
		if IsBlob(c.blob) != c.want {
			t.Errorf("%s: expected %v", name, c.want)
		}
	}
}

func TestKeyCRT(t *testing.T) {
	key := testKey(t)
	plus := func(x *big.Int, n int64) *big.Int { return new(big.Int).Add(x, big.NewInt(n)) }
	phi, lambda := order(key)
	for name, change := range map[string]func(*members){
		"modulus":         func(m *members) { m.n = plus(m.n, 2) },
		"short modulus":   func(m *members) { m.n = new(big.Int).Rsh(m.n, 1) },
		"P":               func(m *members) { m.p = plus(m.p, 2) },
		"Q":               func(m *members) { m.q = plus(m.q, 2) },
		"zero primes":     func(m *members) { m.p, m.q = new(big.Int), new(big.Int) },
		"D mod P−1":       func(m *members) { m.dP = plus(m.dP, 1) },
		"D mod Q−1":       func(m *members) { m.dQ = plus(m.dQ, 1) },
		"Q⁻¹ mod P":       func(m *members) { m.qInv = plus(m.qInv, 1) },
		"D":               func(m *members) { m.d = plus(m.d, 2) },
		"D not reduced":   func(m *members) { m.d = new(big.Int).Add(new(big.Int).Mod(m.d, lambda), phi) },
		"members swapped": func(m *members) { m.dP, m.dQ = m.dQ, m.dP },
		"P = Q": func(m *members) {
			m.q = m.p
			m.n = new(big.Int).Mul(m.p, m.p)
		},
		"composite factors": func(m *members) {
			// 3·2^1022+3 is no prime; only a signature can tell.
			m.p = plus(new(big.Int).Lsh(big.NewInt(3), 1022), 3)
			m.n = new(big.Int).Mul(m.p, m.q)
			p1, q1 := plus(m.p, -1), plus(m.q, -1)
			m.d = new(big.Int).ModInverse(big.NewInt(exponent), new(big.Int).Mul(p1, q1))
			m.dP, m.dQ, m.qInv = new(big.Int).Mod(m.d, p1), new(big.Int).Mod(m.d, q1), new(big.Int).ModInverse(m.q, m.p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse(encode(key, KeyExchange, change))
			says := map[string]string{"D not reduced": "not reduced", "composite factors": "not primes"}[name]
			if !control.Is(err, control.TPDKeyCRT) || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, expected %s that says %s", err, control.TPDKeyCRT.ID, says)
			}
		})
	}
}

func TestClearWipesTheKey(t *testing.T) {
	key, _, err := Parse(encode(testKey(t), KeyExchange, nil))
	if err != nil {
		t.Fatal(err)
	}
	d, p, dp := key.D.Bits(), key.Primes[0].Bits(), key.Precomputed.Dp.Bits()
	Clear(key)
	for _, words := range [][]big.Word{d, p, dp} {
		if slices.ContainsFunc(words, func(w big.Word) bool { return w != 0 }) {
			t.Error("a secret number is still in memory")
		}
	}
	if key.D != nil || key.Primes != nil || key.Precomputed.Dp != nil {
		t.Error("the key still refers to secret numbers")
	}
	Clear(nil)
}

func FuzzParse(f *testing.F) {
	key := testKey(f)
	small := vectors.OneTPD(f, "contoso-mode1").Key
	for _, blob := range [][]byte{encode(key, KeyExchange, nil), encode(small, Signature, nil), append(make([]byte, 12), encode(key, KeyExchange, nil)...)} {
		if _, _, err := Parse(blob); err != nil {
			f.Fatalf("a seed is refused: %v", err)
		}
		f.Add(blob)
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		key, algorithm, err := Parse(blob)
		if err != nil {
			if !errors.As(err, new(*control.Refusal)) {
				t.Errorf("no refusal: %v", err)
			}
			return
		}
		if !bytes.HasSuffix(blob, encode(key, algorithm, nil)) {
			t.Error("what was accepted is not what the key is written as")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	blob := encode(testKey(b), KeyExchange, nil)
	b.SetBytes(int64(len(blob)))
	for b.Loop() {
		if _, _, err := Parse(blob); err != nil {
			b.Fatal(err)
		}
	}
}
