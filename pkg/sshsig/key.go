// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"keyferry/pkg/fingerprint"
)

// Names of the key types: RFC 8709, RFC 5656, RFC 4253, and PROTOCOL.u2f for
// those of FIDO authenticators.
const (
	typeEd25519 = "ssh-ed25519"
	typeECDSA   = "ecdsa-sha2-nistp256"
	typeRSA     = "ssh-rsa"
	curveP256   = "nistp256"

	typeHardwareEd25519 = "sk-ssh-ed25519@openssh.com"
	typeHardwareECDSA   = "sk-ecdsa-sha2-nistp256@openssh.com"
)

// minRSABits is the smallest RSA modulus that may sign.
const minRSABits = 2048

// ErrKey says that a public key is malformed or of a kind that may not sign
// here: Ed25519 and ECDSA P-256, each also in a FIDO authenticator, and RSA from
// 2048 bits on may.
var ErrKey = errors.New("not an Ed25519, ECDSA P-256 or RSA public key in SSH format")

// ErrWeakKey says that an Ed25519 public key is a point for which anybody can make
// signatures, or no point in its one spelling. It is an [ErrKey].
var ErrWeakKey = fmt.Errorf("%w: its point has a small order or is not in canonical form, so its signatures prove nothing", ErrKey)

// PublicKey is an SSH public key.
type PublicKey struct {
	key  crypto.PublicKey // ed25519.PublicKey, *ecdsa.PublicKey (P-256), *rsa.PublicKey or hardwareKey
	kind string
	wire []byte // RFC 4253 section 6.6; what the fingerprint covers
}

// NewPublicKey wraps a standard library key. Error: [ErrKey].
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	var w wire
	switch k := key.(type) {
	case ed25519.PublicKey:
		w.str(typeEd25519)
		w.bytes(k)
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil || k.Curve != elliptic.P256() {
			return PublicKey{}, ErrKey
		}
		w.str(typeECDSA)
		w.str(curveP256)
		w.bytes(point)
	case *rsa.PublicKey:
		w.str(typeRSA)
		w.mpint(big.NewInt(int64(k.E)))
		w.mpint(k.N)
	default:
		return PublicKey{}, ErrKey
	}
	return parseWire(w.Bytes())
}

// ParsePublicKey reads a line of an authorized_keys or .pub file: kind, base64,
// and an ignored comment. Error: [ErrKey].
func ParsePublicKey(line string) (PublicKey, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return PublicKey{}, ErrKey
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return PublicKey{}, ErrKey
	}
	key, err := parseWire(raw)
	if err != nil {
		return PublicKey{}, err
	}
	if key.kind != fields[0] {
		return PublicKey{}, ErrKey
	}
	return key, nil
}

func parseWire(raw []byte) (PublicKey, error) {
	r := &reader{rest: raw}
	p := PublicKey{kind: r.str(), wire: bytes.Clone(raw)}
	switch p.kind {
	case typeEd25519, typeHardwareEd25519:
		p.key = r.ed25519()
	case typeECDSA, typeHardwareECDSA:
		p.key = r.ecdsa()
	case typeRSA:
		p.key = r.rsa()
	default:
		if r.failed {
			return PublicKey{}, ErrKey
		}
		return PublicKey{}, fmt.Errorf("%w: it is of the kind %.60q", ErrKey, p.kind)
	}
	if p.kind == typeHardwareEd25519 || p.kind == typeHardwareECDSA {
		p.key = hardwareKey{p.key, sha256.Sum256(r.bytes())}
	}
	if !r.done() {
		return PublicKey{}, ErrKey
	}
	if r.reason != nil {
		return PublicKey{}, r.reason
	}
	return p, nil
}

func (r *reader) ed25519() ed25519.PublicKey {
	k := r.bytes()
	r.failed = r.failed || len(k) != ed25519.PublicKeySize
	if !r.failed && !soundPoint(k) {
		r.reason = ErrWeakKey
	}
	return bytes.Clone(k)
}

func (r *reader) ecdsa() *ecdsa.PublicKey {
	curve, point := r.str(), r.bytes()
	k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	r.failed = r.failed || err != nil || curve != curveP256
	return k
}

func (r *reader) rsa() *rsa.PublicKey {
	e, n := r.mpint(), r.mpint()
	r.failed = r.failed || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1
	if !r.failed && n.BitLen() < minRSABits {
		r.reason = fmt.Errorf("%w: it is RSA of %d bits, and %d are the least", ErrKey, n.BitLen(), minRSABits)
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}
}

// String returns the line for an authorized_keys or allowed_signers file: kind
// and base64.
func (p PublicKey) String() string {
	return p.kind + " " + base64.StdEncoding.EncodeToString(p.wire)
}

// Fingerprint is the SHA-256 of the key's wire encoding, as ssh-keygen -l.
func (p PublicKey) Fingerprint() fingerprint.Fingerprint { return fingerprint.Of(p.wire) }

// Equal reports whether both are the same key.
func (p PublicKey) Equal(other PublicKey) bool { return bytes.Equal(p.wire, other.wire) }

// MarshalText makes the key a JSON string in the form of String.
func (p PublicKey) MarshalText() ([]byte, error) {
	if p.key == nil {
		return nil, errors.New("sshsig: no key")
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads the form of String, and only that.
func (p *PublicKey) UnmarshalText(text []byte) error {
	key, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	if key.String() != string(text) {
		return fmt.Errorf("%w: text follows it", ErrKey)
	}
	*p = key
	return nil
}
