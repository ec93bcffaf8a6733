// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"crypto/ed25519"
	"math/big"
	"slices"
)

// An Ed25519 key is a point on a curve, and eight points of it have an order of
// 1, 2, 4 or 8: anybody can make signatures that hold for such a key. OpenSSH and
// crypto/ed25519 take them, and other spellings of points (RFC 8032 section 5.1.3
// forbids them), and bytes that are no point.

var (
	one    = big.NewInt(1)
	prime  = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19)) // of the field
	curveD = new(big.Int).Mod(new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), prime)), prime)
)

// soundPoint reports whether key is the one spelling of a point on the curve
// −x² + y² = 1 + d·x²·y² whose order is not small. It works with y alone: the
// curve gives x², and the point doubled has y' = (y² + x²) / (1 − d·x²·y²).
func soundPoint(key []byte) bool {
	if len(key) != ed25519.PublicKeySize {
		return false
	}
	bytes := slices.Clone(key)
	slices.Reverse(bytes)
	bytes[0] &^= 0x80 // the sign of x
	y := new(big.Int).SetBytes(bytes)
	if y.Cmp(prime) >= 0 {
		return false
	}
	for range 3 {
		y2 := field(new(big.Int).Mul(y, y))
		dy2 := field(new(big.Int).Mul(curveD, y2))
		x2 := quotient(new(big.Int).Sub(y2, one), new(big.Int).Add(dy2, one))
		if big.Jacobi(x2, prime) < 0 {
			return false // no x has this square
		}
		dx2y2 := field(new(big.Int).Mul(dy2, x2))
		y = quotient(new(big.Int).Add(y2, x2), new(big.Int).Sub(one, dx2y2))
	}
	return y.Cmp(one) != 0 // eight times the point is not the neutral one
}

func field(n *big.Int) *big.Int { return n.Mod(n, prime) }

// quotient is a/b in the field. No divisor here is zero, since d is no square.
func quotient(a, b *big.Int) *big.Int {
	return field(a.Mul(a, new(big.Int).ModInverse(field(b), prime)))
}
