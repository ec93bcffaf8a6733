// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
)

// This file checks signatures by keys in FIDO authenticators, as OpenSSH's
// PROTOCOL.u2f has them. Such a key is
//
//	string(type) [string("nistp256")] string(public key) string(application)
//
// and a signature ends with two fields that the authenticator vouches for: flags
// and counter. It covers
//
//	SHA-256(application) flags uint32(counter) SHA-256(what another key would sign)
//
// Bit 0 of flags says that a person touched the authenticator. That is wanted
// here, since an approval is a person's: a key made with
// `ssh-keygen -O no-touch-required` approves nothing. The counter is covered by
// the signature and means nothing else here: each manifest is approved once.
// What browsers sign (webauthn-sk-…) is another format, and refused.

// hardwareKey is a key in an authenticator.
type hardwareKey struct {
	key         crypto.PublicKey // ed25519.PublicKey or *ecdsa.PublicKey
	application [sha256.Size]byte
}

// hardwareData are the fields that an authenticator adds to a signature.
type hardwareData struct {
	flags   byte
	counter uint32
}

const userPresent = 1

func (r *reader) hardwareData() (d hardwareData) {
	if flags := r.take(1); !r.failed {
		d.flags = flags[0]
	}
	d.counter = r.uint32()
	return d
}

func (k hardwareKey) signedData(d hardwareData, data []byte) []byte {
	digest := sha256.Sum256(data)
	signed := append(bytes.Clone(k.application[:]), d.flags)
	signed = binary.BigEndian.AppendUint32(signed, d.counter)
	return append(signed, digest[:]...)
}
