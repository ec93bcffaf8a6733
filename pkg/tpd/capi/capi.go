// SPDX-License-Identifier: Apache-2.0

// Package capi reads the CryptoAPI PRIVATEKEYBLOB of an RSA key, the form in
// which an AD RMS export carries it.
//
// Every number is little-endian (Microsoft, "RSA/Schannel Key BLOBs",
// PUBLICKEYSTRUC and RSAPUBKEY of wincrypt.h); k is the key's size in bytes:
//
//	offset  length  field      value
//	0       1       bType      0x07 PRIVATEKEYBLOB
//	1       1       bVersion   0x02
//	2       2       reserved   0
//	4       4       aiKeyAlg   0x0000A400 key exchange, 0x00002400 signature
//	8       4       magic      "RSA2"
//	12      4       bitlen     8·k, equal to (length − 20) · 16 / 9
//	16      4       pubexp     65537
//	20      k       modulus
//	        k/2     prime1, P
//	        k/2     prime2, Q
//	        k/2     exponent1, D mod P−1
//	        k/2     exponent2, D mod Q−1
//	        k/2     coefficient, Q⁻¹ mod P
//	        k       privateExponent, D
//
// A blob of RSA-2048 has 1172 bytes. The 12 bytes of a .NET strong-name header
// may stand before it; they are not looked at.
package capi

import (
	"crypto"
	"crypto/rsa"
	"encoding/binary"
	"math/big"
	"slices"

	"keyferry/pkg/control"
)

// Algorithm is the ALG_ID of a key: what CryptoAPI thinks that it is for. AD
// RMS signs and decrypts with either.
type Algorithm uint32

const (
	KeyExchange Algorithm = 0x0000A400 // CALG_RSA_KEYX
	Signature   Algorithm = 0x00002400 // CALG_RSA_SIGN
)

// Sizes of a key in bits. Below the smallest, which AD RMS has in its mode 1, crypto/rsa
// does not work.
const (
	MinBits = 1024
	MaxBits = 4096
)

const (
	bType            = 7
	bVersion         = 2
	magic            = "RSA2"
	headerSize       = 20
	strongNamePrefix = 12
	exponent         = 65537
)

// BlobSize returns how many bytes the blob of a key of that many bits has.
func BlobSize(bits int) int { return headerSize + bits*9/16 }

// IsBlob reports whether the bytes begin as the blob of a private key does, a
// strong-name prefix aside: not that the rest holds.
func IsBlob(blob []byte) bool { return withoutPrefix(blob) != nil }

// withoutPrefix returns the blob from its bType on, or nil if there is no blob.
// Either the version or the magic may be another: the rest of the header says
// enough to tell what is wrong.
func withoutPrefix(blob []byte) []byte {
	for _, skip := range []int{0, strongNamePrefix} {
		if len(blob) < skip+headerSize || blob[skip] != bType {
			continue
		}
		if b := blob[skip:]; b[1] == bVersion || string(b[8:12]) == magic {
			return b
		}
	}
	return nil
}

// Parse reads a blob. The key has passed every check: the lengths agree, the
// primes give the modulus, the private exponent and the CRT members are those that
// follow from them, and what it signs is verified by its public key.
//
// It refuses with KF-TPD-KEY-BLOB what is no such blob and with KF-TPD-KEY-CRT
// a key that is not consistent. The caller clears the blob, and the key with
// [Clear].
func Parse(blob []byte) (*rsa.PrivateKey, Algorithm, error) {
	b := withoutPrefix(blob)
	if b == nil {
		return nil, 0, control.TPDKeyBlob.Refuse("the key field does not hold a CryptoAPI private key blob")
	}
	switch {
	case b[1] != bVersion:
		return nil, 0, control.TPDKeyBlob.Refuse("the key blob has the version %d, expected %d", b[1], bVersion)
	case b[2] != 0 || b[3] != 0 || string(b[8:12]) != magic:
		return nil, 0, control.TPDKeyBlob.Refuse("the header of the key blob is not that of a private RSA key")
	}
	algorithm := Algorithm(binary.LittleEndian.Uint32(b[4:]))
	if algorithm != KeyExchange && algorithm != Signature {
		return nil, 0, control.TPDKeyBlob.Refuse("the key blob names the algorithm 0x%08x, expected RSA key exchange (0xa400) or RSA signature (0x2400)", uint32(algorithm))
	}
	bits := int(binary.LittleEndian.Uint32(b[12:]))
	if bits < MinBits || bits > MaxBits || bits%16 != 0 {
		return nil, 0, control.TPDKeyBlob.Refuse("the key blob names a key of %d bits, expected %d to %d", bits, MinBits, MaxBits)
	}
	if want := BlobSize(bits); len(b) != want {
		return nil, 0, control.TPDKeyBlob.Refuse("the key blob has %d bytes, expected %d for a key of %d bits", len(b), want, bits)
	}
	if bits == MinBits && len(b) < len(blob) {
		return nil, 0, control.TPDKeyBlob.Refuse("a strong-name header stands before the key blob: a key of %d bits travels in its TPD, and no service reads it so", bits)
	}
	if e := binary.LittleEndian.Uint32(b[16:]); e != exponent {
		return nil, 0, control.TPDKeyBlob.Refuse("the key has the public exponent %d: AD RMS makes keys with %d only", e, exponent).
			WithHint("find out how this key was made: it is not one that AD RMS made")
	}
	key, err := readKey(b[headerSize:], bits)
	if err != nil {
		return nil, 0, err
	}
	return key, algorithm, nil
}

// readKey reads the numbers of a key, body having the right length, and checks that
// they belong together.
func readKey(body []byte, bits int) (*rsa.PrivateKey, error) {
	next := func(bits int) *big.Int {
		b := slices.Clone(body[:bits/8])
		defer clear(b)
		body = body[bits/8:]
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: next(bits), E: exponent}}
	key.Primes = []*big.Int{next(bits / 2), next(bits / 2)}
	key.Precomputed = rsa.PrecomputedValues{Dp: next(bits / 2), Dq: next(bits / 2), Qinv: next(bits / 2)}
	key.D = next(bits)

	phi := new(big.Int).Sub(key.N, key.Primes[0])
	phi.Sub(phi, key.Primes[1]).Add(phi, big.NewInt(1))
	defer wipe(phi)
	var refusal *control.Refusal
	key.Precompute()
	switch err := key.Validate(); { // the members above, against each other
	case key.N.BitLen() != bits:
		refusal = control.TPDKeyCRT.Refuse("the modulus has %d bits, the key blob says %d", key.N.BitLen(), bits)
	case key.D.Cmp(phi) >= 0:
		refusal = control.TPDKeyCRT.Refuse("the private exponent is larger than any that a key maker writes: it is not reduced modulo φ(n)")
	case err != nil:
		refusal = control.TPDKeyCRT.Refuse("the numbers of the private key do not belong together: %w", err)
	case !works(key):
		refusal = control.TPDKeyCRT.Refuse("the private key does not sign what its public key verifies: the factors of its modulus are not primes")
	default:
		return key, nil
	}
	Clear(key)
	return nil, refusal
}

// works reports whether the key signs: with factors that are not primes it does not,
// however well its numbers belong together. crypto/rsa verifies what it signs.
func works(key *rsa.PrivateKey) bool {
	_, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, make([]byte, 32))
	return err == nil
}

// Clear wipes a private key, as far as can be: its own numbers and the CRT
// members; what crypto/rsa computed for itself is only let go.
func Clear(key *rsa.PrivateKey) {
	if key == nil {
		return
	}
	wipe(key.D, key.Precomputed.Dp, key.Precomputed.Dq, key.Precomputed.Qinv)
	wipe(key.Primes...)
	key.D, key.Primes, key.Precomputed = nil, nil, rsa.PrecomputedValues{}
}

func wipe(numbers ...*big.Int) {
	for _, x := range numbers {
		if x != nil {
			words := x.Bits()
			clear(words[:cap(words)])
			x.SetInt64(0)
		}
	}
}
