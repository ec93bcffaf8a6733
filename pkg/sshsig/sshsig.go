// SPDX-License-Identifier: Apache-2.0

// Package sshsig makes and checks SSH signatures of files, the format of
// `ssh-keygen -Y sign` and `ssh-keygen -Y verify`, so that an auditor needs no
// tool of ours to check what Keyferry signed.
//
// The format is OpenSSH's PROTOCOL.sshsig, version 1. A signature is
//
//	"SSHSIG" uint32(1) string(public key) string(namespace) string("") string(hash) string(signature)
//
// in base64 between BEGIN and END SSH SIGNATURE lines, and covers
//
//	"SSHSIG" string(namespace) string("") string(hash) string(H(message))
//
// Keys in FIDO authenticators (ssh-keygen -t ed25519-sk, ecdsa-sk) are checked
// too; see hardware.go.
//
// The libraries that do this come with golang.org/x/crypto/ssh, and with it
// the net package; the offline side links no dialling code, so this is ours.
package sshsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

const (
	magic   = "SSHSIG"
	version = 1
	pemType = "SSH SIGNATURE"
	hash    = "sha512"
	rsaAlg  = "rsa-sha2-512"
)

// maxArmored bounds a signature's armored size in bytes; RSA-16384 fits.
const maxArmored = 16 << 10

// Errors of [Parse] and [Signature.Verify].
var (
	ErrFormat    = errors.New("not an armored SSH signature")
	ErrNamespace = errors.New("the signature was made for another purpose (namespace)")
	ErrSignature = errors.New("the signature does not hold")
	ErrPresence  = errors.New("nobody touched the authenticator that signed (its key does not require it)")
)

// Signature is a parsed, not yet verified, signature.
type Signature struct {
	Key       PublicKey // that claims to have signed
	Namespace string
	hash      string
	alg       string
	value     []byte
	hardware  hardwareData
}

// Sign signs message for namespace and returns the armored signature. The
// signer's key is Ed25519, ECDSA P-256 or RSA, in software or in a token.
func Sign(signer crypto.Signer, namespace string, message []byte) ([]byte, error) {
	key, err := NewPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	signature, err := signRaw(signer, key, signedData(namespace, hash, message))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var w wire
	w.WriteString(magic)
	w.Write([]byte{0, 0, 0, version})
	w.bytes(key.wire)
	w.str(namespace)
	w.str("")
	w.str(hash)
	w.bytes(signature)
	return armor(w.Bytes()), nil
}

func signRaw(signer crypto.Signer, key PublicKey, data []byte) ([]byte, error) {
	var w wire
	switch key.kind {
	case typeEd25519:
		value, err := signer.Sign(rand.Reader, data, crypto.Hash(0))
		if err != nil {
			return nil, err
		}
		w.str(typeEd25519)
		w.bytes(value)
	case typeRSA:
		digest := sha512.Sum512(data)
		value, err := signer.Sign(rand.Reader, digest[:], crypto.SHA512)
		if err != nil {
			return nil, err
		}
		w.str(rsaAlg)
		w.bytes(value)
	case typeECDSA:
		digest := sha256.Sum256(data)
		der, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		var pair struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(der, &pair); err != nil || len(rest) != 0 {
			return nil, errors.New("the token returned no DER ECDSA signature")
		}
		var rs wire
		rs.mpint(pair.R)
		rs.mpint(pair.S)
		w.str(typeECDSA)
		w.bytes(rs.Bytes())
	}
	return w.Bytes(), nil
}

// Parse reads an armored signature, to the byte as ssh-keygen would write it.
// Errors: [ErrFormat], [ErrKey].
func Parse(armored []byte) (*Signature, error) {
	if len(armored) > maxArmored {
		return nil, ErrFormat
	}
	block, rest := pem.Decode(armored)
	if block == nil || len(rest) != 0 || !bytes.Equal(armor(block.Bytes), armored) {
		return nil, ErrFormat // one signature has one spelling, ssh-keygen's
	}
	r := reader{rest: block.Bytes}
	if string(r.take(len(magic))) != magic || r.uint32() != version {
		return nil, ErrFormat
	}
	wireKey := r.bytes()
	s := &Signature{Namespace: r.str()}
	reserved := r.str()
	s.hash = r.str()
	inner := reader{rest: r.bytes()}
	s.alg = inner.str()
	s.value = bytes.Clone(inner.bytes())
	if s.alg == typeHardwareEd25519 || s.alg == typeHardwareECDSA {
		s.hardware = inner.hardwareData()
	}
	if !r.done() || !inner.done() || reserved != "" {
		return nil, ErrFormat
	}
	key, err := parseWire(wireKey)
	if err != nil {
		return nil, err
	}
	s.Key = key
	return s, nil
}

// Verify checks that s is a signature of message for namespace by s.Key. Who
// that key belongs to is the caller's question. Errors: [ErrNamespace],
// [ErrSignature], [ErrPresence].
func (s *Signature) Verify(namespace string, message []byte) error {
	if s.Namespace != namespace {
		return ErrNamespace
	}
	if s.hash != "sha512" && s.hash != "sha256" {
		return ErrFormat
	}
	data := signedData(namespace, s.hash, message)
	k, inHardware := s.Key.key.(hardwareKey)
	if !inHardware && s.holds(s.Key.key, s.Key.kind, data) {
		return nil
	}
	if !inHardware || !s.holds(k.key, s.Key.kind, k.signedData(s.hardware, data)) {
		return ErrSignature
	}
	if s.hardware.flags&userPresent == 0 {
		return ErrPresence
	}
	return nil
}

// holds checks s.value with key; kind names the algorithm that an Ed25519 or
// ECDSA signature must have.
func (s *Signature) holds(key crypto.PublicKey, kind string, data []byte) bool {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return s.alg == kind && ed25519.Verify(k, data, s.value)
	case *ecdsa.PublicKey:
		rs := reader{rest: s.value}
		r, t := rs.mpint(), rs.mpint()
		digest := sha256.Sum256(data)
		return s.alg == kind && rs.done() && ecdsa.Verify(k, digest[:], r, t)
	case *rsa.PublicKey:
		switch s.alg {
		case rsaAlg:
			digest := sha512.Sum512(data)
			return rsa.VerifyPKCS1v15(k, crypto.SHA512, digest[:], s.value) == nil
		case "rsa-sha2-256":
			digest := sha256.Sum256(data)
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], s.value) == nil
		}
	}
	return false
}

func signedData(namespace, hash string, message []byte) []byte {
	var w wire
	w.WriteString(magic)
	w.str(namespace)
	w.str("")
	w.str(hash)
	if hash == "sha256" {
		digest := sha256.Sum256(message)
		w.bytes(digest[:])
	} else {
		digest := sha512.Sum512(message)
		w.bytes(digest[:])
	}
	return w.Bytes()
}

// armor is pem.Encode with the form of ssh-keygen: lines of 70 characters.
func armor(raw []byte) []byte {
	const perLine = 70
	text := base64.StdEncoding.EncodeToString(raw)
	var b bytes.Buffer
	b.WriteString("-----BEGIN " + pemType + "-----\n")
	for len(text) > 0 {
		n := min(perLine, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString("-----END " + pemType + "-----\n")
	return b.Bytes()
}
