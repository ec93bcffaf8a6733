// SPDX-License-Identifier: Apache-2.0

// Package selftest has this very binary, on this very machine, answer questions
// whose answers are known, before it is trusted with a key: a damaged file, a
// damaged memory or a processor that computes wrongly shows here and not in a
// key that nobody can use.
//
// The answers come from elsewhere:
//
//	SHA-1, SHA-256   FIPS 180-4, the message "abc"
//	AES-CBC          NIST SP 800-38A, F.2.2, first block
//	AES-KWP          OpenSSL 3, enc -id-aes256-wrap-pad
//	TPD              a sample export, which .NET's algorithms made; its key is
//	                 known by the fingerprint that OpenSSL gives it
//	RSA-OAEP         OpenSSL 3, encrypted to the key of that export
//	XrML             the certificates of that export
//	age              age 1.1 (X25519), and the age library (hybrid)
//	SSHSIG           OpenSSH's ssh-keygen -Y sign
//
// The keys in testdata are no secrets: they are published, and serve for
// nothing else.
package selftest

import (
	"crypto/subtle"

	"keyferry/pkg/control"
)

// question is one test. compute returns the answer.
type question struct {
	name    string
	answer  []byte
	compute func() ([]byte, error)
}

// Run asks everything. A wrong answer is refused (KF-SELFTEST-ANSWER), and so
// are all questions after it. It returns the names of what was asked.
func Run() ([]string, error) { return ask(questions()) }

func ask(questions []question) ([]string, error) {
	var names []string
	for _, q := range questions {
		got, err := q.compute()
		if err != nil {
			return nil, control.SelfTest.Refuse("the self-test of %s failed: %w", q.name, err)
		}
		if subtle.ConstantTimeCompare(got, q.answer) != 1 {
			return nil, control.SelfTest.Refuse("the self-test of %s gave a wrong answer", q.name)
		}
		names = append(names, q.name)
	}
	return names, nil
}
