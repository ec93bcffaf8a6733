// SPDX-License-Identifier: Apache-2.0

package xrml

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha1" // mode 1 certificates
	_ "crypto/sha256"
	"errors"
	"fmt"

	"keyferry/pkg/control"
	"keyferry/pkg/tpd/utf16le"
	"keyferry/pkg/tpd/xmltree"
)

// Why a certificate does not verify.
var (
	ErrDigest    = errors.New("its digest is not the digest of its body")
	ErrSignature = errors.New("its signature is not of its issuer's key")
)

var digestAlgorithms = map[string]crypto.Hash{"SHA1": crypto.SHA1, "SHA256": crypto.SHA256}

func (c *Certificate) readSignature(n *xmltree.Node) (err error) {
	if n == nil {
		return errors.New("the certificate does not have one SIGNATURE")
	}
	if algorithm := n.TextOf("ALGORITHM"); algorithm != "RSA PKCS#1-V1.5" {
		return fmt.Errorf("the signature's algorithm is %s, expected RSA PKCS#1-V1.5", control.Quote(algorithm))
	}
	digest := n.One("DIGEST")
	coding := digest.One("PARAMETER")
	if coding.Attr("name") != "codingtype" || coding.TextOf("VALUE") != "surface-coding" {
		return errors.New("the digest's codingtype is not surface-coding")
	}
	algorithm := digest.TextOf("ALGORITHM")
	if c.DigestAlgorithm = digestAlgorithms[algorithm]; c.DigestAlgorithm == 0 {
		return fmt.Errorf("the digest's algorithm is %s, expected SHA1 or SHA256", control.Quote(algorithm))
	}
	if c.digest, err = readValue(digest.One("VALUE")); err != nil {
		return fmt.Errorf("the digest: %w", err)
	}
	if c.signature, err = readValue(n.One("VALUE")); err != nil {
		return fmt.Errorf("the signature: %w", err)
	}
	return nil
}

// Verify checks the digest and, with the key, the signature. The error is, or
// wraps, [ErrDigest] or [ErrSignature].
func (c *Certificate) Verify(key *rsa.PublicKey) error {
	if err := c.VerifyDigest(); err != nil {
		return err
	}
	if err := rsa.VerifyPKCS1v15(key, c.DigestAlgorithm, c.digest, c.signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// VerifyDigest checks that the digest is the hash of the body, which proves
// nothing without the signature. The error is [ErrDigest].
func (c *Certificate) VerifyDigest() error {
	h := c.DigestAlgorithm.New()
	h.Write(utf16le.Encode([]byte(c.body)))
	if !bytes.Equal(h.Sum(nil), c.digest) {
		return ErrDigest
	}
	return nil
}

// Link is a place where a chain does not hold.
type Link struct {
	At  int   // index of the certificate, 0 is the leaf
	Err error // [ErrLink], [ErrDigest] or [ErrSignature]
}

// ErrLink is a certificate whose issuer is not the next one's principal.
var ErrLink = errors.New("its issuer is not the principal of the next certificate")

// VerifyChain checks a chain, leaf first: that each issuer is the next
// certificate's only principal, and that each certificate is signed by the
// issuer that it names. It returns every place where that does not hold. Nil
// stands for a certificate that can't be read: the others are checked all the
// same, but for a link to it. A name that differs is none: MS-RMPR says only that
// it SHOULD be copied.
//
// Nothing is said of the last certificate's issuer, the root: Microsoft does
// not publish its key. A person compares its fingerprint instead.
func VerifyChain(chain []*Certificate) []Link {
	var broken []Link
	for i, c := range chain {
		if c == nil {
			continue
		}
		if i+1 < len(chain) && chain[i+1] != nil {
			if next := chain[i+1].Principals; len(next) != 1 || !c.Issuer.Same(next[0]) {
				broken = append(broken, Link{i, ErrLink})
			}
		}
		if err := c.Verify(c.Issuer.Key); err != nil {
			broken = append(broken, Link{i, err})
		}
	}
	return broken
}
