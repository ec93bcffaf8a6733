// SPDX-License-Identifier: Apache-2.0

package capi

import (
	"math/big"

	"keyferry/pkg/control"
)

// check recomputes what follows from the primes and compares. The primes fill
// half of the modulus each, since the blob has no room for a longer one.
func (m *members) check(bits int) error {
	if m.n.BitLen() != bits {
		return control.TPDKeyCRT.Refuse("the modulus has %d bits, the key blob says %d", m.n.BitLen(), bits)
	}
	product := new(big.Int).Mul(m.p, m.q)
	defer wipe(product)
	if product.Cmp(m.n) != 0 {
		return control.TPDKeyCRT.Refuse("the product of the primes is not the modulus of the key")
	}
	// Baillie-PSW alone, no further rounds: no composite is known to pass it, and
	// whoever could plant one made the key and knows it anyway.
	if m.p.Cmp(m.q) == 0 || !m.p.ProbablyPrime(0) || !m.q.ProbablyPrime(0) {
		return control.TPDKeyCRT.Refuse("the factors of the modulus are not two different primes")
	}
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(m.p, one), new(big.Int).Sub(m.q, one)
	defer wipe(p1, q1)
	if err := m.checkExponent(p1, q1); err != nil {
		return err
	}
	return m.checkCRT(p1, q1)
}

// checkExponent checks that D is the inverse of the public exponent, mod φ(n) or
// mod λ(n): CryptoAPI providers write either.
func (m *members) checkExponent(p1, q1 *big.Int) error {
	phi := new(big.Int).Mul(p1, q1)
	gcd := new(big.Int).GCD(nil, nil, p1, q1)
	lambda := new(big.Int).Div(phi, gcd)
	byPhi, byLambda, rest := new(big.Int), new(big.Int), new(big.Int)
	defer wipe(phi, gcd, lambda, byPhi, byLambda, rest)
	e := big.NewInt(exponent)
	switch {
	case byPhi.ModInverse(e, phi) == nil || byLambda.ModInverse(e, lambda) == nil || rest.Mod(m.d, lambda).Cmp(byLambda) != 0:
		return control.TPDKeyCRT.Refuse("the private exponent does not belong to the primes and the exponent %d", exponent)
	case m.d.Cmp(byLambda) != 0 && m.d.Cmp(byPhi) != 0:
		return control.TPDKeyCRT.Refuse("the private exponent fits the primes but is larger than any that a key maker writes: it is reduced neither modulo φ(n) nor modulo λ(n)")
	}
	return nil
}

func (m *members) checkCRT(p1, q1 *big.Int) error {
	dP, dQ, qInv := new(big.Int).Mod(m.d, p1), new(big.Int).Mod(m.d, q1), new(big.Int).ModInverse(m.q, m.p)
	defer wipe(dP, dQ, qInv)
	for _, c := range []struct {
		name        string
		found, want *big.Int
	}{
		{"D mod P−1", m.dP, dP}, {"D mod Q−1", m.dQ, dQ}, {"Q⁻¹ mod P", m.qInv, qInv},
	} {
		if c.found.Cmp(c.want) != 0 {
			return control.TPDKeyCRT.Refuse("the CRT member %s of the key is not what follows from its primes", c.name)
		}
	}
	return nil
}
