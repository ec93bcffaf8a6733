// SPDX-License-Identifier: Apache-2.0

// Package byok makes and opens the ciphertext in which an RSA key goes into a key vault,
// by the "Bring your own key specification" of Azure Key Vault (CKM_RSA_AES_KEY_WRAP):
//
//   - RSA-OAEP (SHA-1, MGF1-SHA-1) of a fresh AES-256 key under the vault's key exchange
//     key (KEK), as long as the KEK's modulus; then
//   - AES-KWP (RFC 5649) under that AES key of the RSA key as PKCS#8 DER with all CRT
//     members.
package byok

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/pkg/secret"
)

// KeyBits are the sizes of RSA keys that a vault takes and makes, KEKs among them.
var KeyBits = []int{2048, 3072, 4096}

// aesKeySize is the size in bytes of the ephemeral AES key. The service's
// specification asks for AES-256; shorter keys are untried, so refused.
const aesKeySize = 32

// Errors of Unwrap, one for each rule of the ciphertext's layout. They are
// values, not refusals: the caller knows whether a ciphertext came from a token
// on trial, from a bundle, or from a client of the practice vault.
var (
	ErrShort   = errors.New("the ciphertext is shorter than the KEK's modulus and one wrapped block")
	ErrOAEP    = errors.New("the first part does not open with RSA-OAEP (SHA-1, MGF1-SHA-1) under the KEK")
	ErrAESSize = errors.New("the key inside the first part is not an AES-256 key")
	ErrKWP     = errors.New("the second part does not open with AES-KWP (RFC 5649) under that AES key")
	ErrPKCS8   = errors.New("the second part is not the PKCS#8 of a sound RSA private key of two primes")
	ErrStray   = errors.New("bytes follow the PKCS#8 document")
	ErrCRT     = errors.New("the PKCS#8 document is not the plain DER of the key with all CRT members")
)

// Wrap makes the ciphertext in software. Its length is the KEK's modulus length plus the
// PKCS#8 length rounded up to 8, plus 8.
func Wrap(rand io.Reader, key *rsa.PrivateKey, kek *rsa.PublicKey) (ciphertext []byte, err error) {
	secret.Do(func() { ciphertext, err = wrap(rand, key, kek) })
	return ciphertext, err
}

func wrap(rand io.Reader, key *rsa.PrivateKey, kek *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the key as PKCS#8: %w", err)
	}
	defer clear(der)
	aesKey := make([]byte, aesKeySize)
	defer clear(aesKey)
	if _, err := io.ReadFull(rand, aesKey); err != nil {
		return nil, fmt.Errorf("draw an AES key: %w", err)
	}
	sealed, err := rsa.EncryptOAEP(sha1.New(), rand, kek, aesKey, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt the AES key under the KEK: %w", err)
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, err
	}
	wrapped, err := kwp.Wrap(der)
	if err != nil {
		return nil, err
	}
	return append(sealed, wrapped...), nil
}

// Unwrap opens a ciphertext of the layout that [Wrap] makes, as strictly as
// the service's specification reads, and returns the key in it. It accepts no
// byte that Wrap would not have written: x509.ParsePKCS8PrivateKey alone would
// ignore stray bytes and recompute absent CRT members.
func Unwrap(ciphertext []byte, kek *rsa.PrivateKey) (*rsa.PrivateKey, error) {
	head := kek.Size()
	if len(ciphertext) < head+16 {
		return nil, ErrShort
	}
	aesKey, err := rsa.DecryptOAEP(sha1.New(), nil, kek, ciphertext[:head], nil)
	if err != nil {
		return nil, ErrOAEP
	}
	defer clear(aesKey)
	if len(aesKey) != aesKeySize {
		return nil, ErrAESSize
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		return nil, err
	}
	der, err := kwp.Unwrap(ciphertext[head:])
	if err != nil {
		return nil, ErrKWP
	}
	defer clear(der)
	return ParsePKCS8(der)
}

// ParsePKCS8 reads a PKCS#8 RSA private key and accepts only the canonical DER
// of a consistent key of two primes with all CRT members and nothing behind it.
// Errors: ErrPKCS8 (also for CRT members that do not fit the key), ErrStray,
// ErrCRT (CRT members left out, attributes, another spelling).
func ParsePKCS8(der []byte) (*rsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, ErrPKCS8
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok || len(key.Primes) != 2 {
		return nil, ErrPKCS8
	}
	again, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, ErrPKCS8
	}
	defer clear(again)
	switch {
	case len(der) > len(again) && bytes.Equal(der[:len(again)], again):
		kind := "stray"
		if len(bytes.Trim(der[len(again):], "\x00")) == 0 {
			kind = "zero"
		}
		return nil, fmt.Errorf("%d %s %w of %d bytes", len(der)-len(again), kind, ErrStray, len(again))
	case !bytes.Equal(der, again):
		return nil, ErrCRT
	}
	return key, nil
}
