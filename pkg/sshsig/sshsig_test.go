// SPDX-License-Identifier: Apache-2.0

package sshsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const namespace = "keyferry-test-v1"

// signers returns one key of each kind that may sign.
func signers(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"ed25519": ed, "ecdsa": ec, "rsa": r}
}

func mustSign(t testing.TB, s crypto.Signer, message []byte) []byte {
	t.Helper()
	armored, err := Sign(s, namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	return armored
}

func verify(armored []byte, namespace string, message []byte) error {
	s, err := Parse(armored)
	if err != nil {
		return err
	}
	return s.Verify(namespace, message)
}

func TestSignVerify(t *testing.T) {
	message := []byte("what is signed is these bytes")
	for name, signer := range signers(t) {
		t.Run(name, func(t *testing.T) {
			armored := mustSign(t, signer, message)
			if err := verify(armored, namespace, message); err != nil {
				t.Fatal(err)
			}
			if err := verify(armored, "another", message); !errors.Is(err, ErrNamespace) {
				t.Errorf("another namespace: %v", err)
			}
			if err := verify(armored, namespace, append(message, 'x')); !errors.Is(err, ErrSignature) {
				t.Errorf("another message: %v", err)
			}
		})
	}
}

// Each byte of the decoded signature matters: no flip is accepted.
func TestEveryFlipIsRefused(t *testing.T) {
	message := []byte("message")
	everyFlip(t, mustSign(t, signers(t)["ed25519"], message), message)
}

// The independent judge, both ways.
func TestSSHKeygen(t *testing.T) {
	dir := t.TempDir()
	message := []byte("a message for the judge\n")
	for name, signer := range signers(t) {
		t.Run("verifies ours/"+name, func(t *testing.T) {
			key, err := NewPublicKey(signer.Public())
			if err != nil {
				t.Fatal(err)
			}
			sig, allowed := filepath.Join(dir, name+".sig"), filepath.Join(dir, name+".allowed")
			write(t, sig, mustSign(t, signer, message))
			write(t, allowed, []byte("tester "+key.String()+"\n"))
			keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "tester", "-n", namespace, "-s", sig)
		})
	}
	for _, kind := range [][]string{{"ed25519"}, {"ecdsa", "-b", "256"}, {"rsa", "-b", "3072"}} {
		t.Run("ours verifies/"+kind[0], func(t *testing.T) {
			file := filepath.Join(dir, "id_"+kind[0])
			keygen(t, nil, append([]string{"-q", "-N", "", "-f", file, "-t"}, kind...)...)
			armored := keygen(t, message, "-Y", "sign", "-f", file, "-n", namespace)
			s, err := Parse(armored)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(namespace, message); err != nil {
				t.Error(err)
			}
			line, err := os.ReadFile(file + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParsePublicKey(string(line))
			if err != nil || !key.Equal(s.Key) {
				t.Errorf("the .pub file's key is not the signature's (%v)", err)
			}
			if out := keygen(t, nil, "-l", "-f", file+".pub"); !bytes.Contains(out, []byte(key.Fingerprint().SSH())) {
				t.Errorf("fingerprint %s, ssh-keygen says %s", key.Fingerprint().SSH(), out)
			}
		})
	}
}

func TestWeakOrForeignKeysAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.PublicKey{"RSA-1024": small.Public(), "P-384": p384.Public(), "nil": nil} {
		if _, err := NewPublicKey(key); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func keygen(t *testing.T, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh-keygen %v: %v %s", args, err, out)
	}
	return out
}

func FuzzParse(f *testing.F) {
	seeds := 0
	for _, signer := range signers(f) {
		f.Add(mustSign(f, signer, []byte("m")))
		seeds++
	}
	for _, name := range []string{"ed25519-sk", "ecdsa-sk", "ed25519-sk-untouched", "ecdsa-sk-untouched"} {
		f.Add(read(f, "testdata/"+name+".sig"))
		seeds++
	}
	if seeds != 7 {
		f.Fatalf("%d seeds, want 7", seeds)
	}
	f.Fuzz(func(t *testing.T, armored []byte) {
		if s, err := Parse(armored); err == nil {
			if s.Verify(namespace, []byte("never signed by anyone")) == nil {
				t.Error("a forged signature holds")
			}
		}
	})
}
