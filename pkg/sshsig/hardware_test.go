// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

// hardwareVectors is how many signatures testdata has. Stock ssh-keygen 9.2 made
// them with OpenSSH's software authenticator, sk-dummy.so of Debian's package
// openssh-tests:
//
//	export SSH_SK_PROVIDER=/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so
//	ssh-keygen -t ed25519-sk -N '' -f id          (ecdsa-sk; untouched: -O no-touch-required)
//	ssh-keygen -Y sign -f id -n keyferry-test-v1 <message >id.sig
const hardwareVectors = 4

func TestHardwareVectors(t *testing.T) {
	found, err := filepath.Glob("testdata/*.sig")
	if err != nil || len(found) != hardwareVectors {
		t.Fatalf("%d signatures, %v; want %d", len(found), err, hardwareVectors)
	}
	message := read(t, "testdata/message")
	for name, want := range map[string]error{
		"ed25519-sk": nil, "ecdsa-sk": nil, "ed25519-sk-untouched": ErrPresence, "ecdsa-sk-untouched": ErrPresence,
	} {
		s, err := Parse(read(t, "testdata/"+name+".sig"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		key, err := ParsePublicKey(string(read(t, "testdata/"+name+".pub")))
		if err != nil || !key.Equal(s.Key) {
			t.Errorf("%s: the .pub file's key is not the signature's (%v)", name, err)
		}
		if err := s.Verify(namespace, message); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		if err := s.Verify(namespace, append(message, 'x')); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, another message: %v", name, err)
		}
	}
}

// authenticator signs as PROTOCOL.u2f says, by code of the test's own. Its
// fields may be false.
type authenticator struct {
	kind, algorithm, application string
	flags                        byte
	signs                        func(data []byte) []byte
}

func (a authenticator) sign(t *testing.T, message []byte, key []byte) []byte {
	t.Helper()
	application, digest := sha256.Sum256([]byte(a.application)), sha256.Sum256(signedData(namespace, hash, message))
	signed := append(application[:], a.flags, 0, 0, 1, 2)
	var inner, w wire
	inner.str(a.algorithm)
	inner.bytes(a.signs(append(signed, digest[:]...)))
	inner.Write([]byte{a.flags, 0, 0, 1, 2})
	w.WriteString(magic)
	w.Write([]byte{0, 0, 0, version})
	w.bytes(key)
	w.str(namespace)
	w.str("")
	w.str(hash)
	w.bytes(inner.Bytes())
	return armor(w.Bytes())
}

// authenticators returns one of each kind with its public key in wire format.
func authenticators(t *testing.T) map[*authenticator][]byte {
	t.Helper()
	keys := signers(t)
	edKey, ecKey := keys["ed25519"].(ed25519.PrivateKey), keys["ecdsa"].(*ecdsa.PrivateKey)
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var edWire, ecWire wire
	edWire.str(typeHardwareEd25519)
	edWire.bytes(edKey.Public().(ed25519.PublicKey))
	edWire.str("ssh:keyferry")
	ecWire.str(typeHardwareECDSA)
	ecWire.str(curveP256)
	ecWire.bytes(point)
	ecWire.str("ssh:keyferry")
	return map[*authenticator][]byte{
		{typeHardwareEd25519, typeHardwareEd25519, "ssh:keyferry", 1, func(data []byte) []byte {
			return ed25519.Sign(edKey, data)
		}}: edWire.Bytes(),
		{typeHardwareECDSA, typeHardwareECDSA, "ssh:keyferry", 5, func(data []byte) []byte {
			digest := sha256.Sum256(data)
			der, err := ecKey.Sign(rand.Reader, digest[:], nil)
			var pair struct{ R, S *big.Int }
			if _, parse := asn1.Unmarshal(der, &pair); errors.Join(err, parse) != nil {
				t.Fatal(err, parse)
			}
			var rs wire
			rs.mpint(pair.R)
			rs.mpint(pair.S)
			return rs.Bytes()
		}}: ecWire.Bytes(),
	}
}

// What the test's authenticator signs holds for ssh-keygen and for us, with flags
// that we don't interpret, too.
func TestAuthenticator(t *testing.T) {
	dir, message := t.TempDir(), []byte("a manifest\n")
	for a, raw := range authenticators(t) {
		t.Run(a.kind, func(t *testing.T) {
			armored := a.sign(t, message, raw)
			if err := verify(armored, namespace, message); err != nil {
				t.Fatal(err)
			}
			key, err := parseWire(raw)
			if err != nil {
				t.Fatal(err)
			}
			sig, allowed := filepath.Join(dir, a.kind+".sig"), filepath.Join(dir, a.kind+".allowed")
			write(t, sig, armored)
			write(t, allowed, []byte("tester "+key.String()+"\n"))
			keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "tester", "-n", namespace, "-s", sig)
			for change, f := range map[string]func(*authenticator){
				"another application": func(a *authenticator) { a.application = "ssh:other" },
				"another algorithm": func(a *authenticator) {
					a.algorithm = typeHardwareEd25519[3 : len(typeHardwareEd25519)-len("@openssh.com")]
				},
			} {
				bad := *a
				f(&bad)
				if err := verify(bad.sign(t, message, raw), namespace, message); err == nil {
					t.Errorf("%s: it holds", change)
				}
			}
			untouched := *a
			untouched.flags = 4
			if err := verify(untouched.sign(t, message, raw), namespace, message); !errors.Is(err, ErrPresence) {
				t.Errorf("untouched: %v", err)
			}
			everyFlip(t, armored, message)
		})
	}
}

// everyFlip wants each flip in an armored signature refused.
func everyFlip(t *testing.T, armored, message []byte) {
	t.Helper()
	good, err := Parse(armored)
	if err != nil {
		t.Fatal(err)
	}
	flips := 0
	for i := range armored {
		for _, bit := range []byte{1, 4, 32} {
			bad := bytes.Clone(armored)
			bad[i] ^= bit
			s, err := Parse(bad)
			if err == nil && s.Key.Equal(good.Key) && s.Verify(namespace, message) == nil {
				t.Fatalf("flip of bit %d in byte %d is accepted: %q", bit, i, bad)
			}
			flips++
		}
	}
	t.Logf("count: %d flips refused", flips)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
