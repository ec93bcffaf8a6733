// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

const (
	headFormat    = "keyferry-ledger-head-v1"
	headNamespace = "keyferry-ledger-v1"
	maxHead       = 64 << 10
)

// Mark stands for a ledger as it was at one time.
type Mark struct {
	Records uint64                  `json:"records"` // so many there were
	Head    fingerprint.Fingerprint `json:"head"`    // SHA-256 of the last of them; zero of none
}

// Mark stands for the ledger as it is now.
func (l *Ledger) Mark() Mark { return Mark{uint64(len(l.entries)), l.head} }

// Head is a mark as it is signed.
type Head struct {
	Format string    `json:"format"`
	Ledger Mark      `json:"ledger"`
	Time   time.Time `json:"time"` // of signing
}

// SealHead makes the signed head of the ledger as it is now.
func (l *Ledger) SealHead(signer crypto.Signer, now time.Time) ([]byte, error) {
	line, err := strictjson.MarshalLine(Head{headFormat, l.Mark(), now.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	signature, err := sshsig.Sign(signer, headNamespace, line)
	return append(line, signature...), err
}

// OpenHead reads a signed head, and returns it with the key that signed it: who
// that is, is the caller's question (KF-LEDGER-HEAD).
func OpenHead(file []byte) (*Head, sshsig.PublicKey, error) {
	line, armored, _ := bytes.Cut(file, []byte("\n"))
	line = append(bytes.Clone(line), '\n')
	signature, err := sshsig.Parse(armored)
	if err == nil {
		err = signature.Verify(headNamespace, line)
	}
	var h Head
	if err == nil {
		err = strictjson.UnmarshalLine(line, maxHead, &h)
	}
	switch {
	case err != nil:
		return nil, sshsig.PublicKey{}, control.LedgerHead.Refuse("the ledger's signed head: %w", err)
	case h.Format != headFormat:
		return nil, sshsig.PublicKey{}, control.LedgerHead.Refuse("the ledger's signed head has the format %s, not %s", control.Quote(h.Format), headFormat)
	}
	return &h, signature.Key, nil
}

// Covers refuses a ledger that is not what it was at m, with or without further
// records (KF-LEDGER-HEAD).
func (l *Ledger) Covers(m Mark) error {
	if have := uint64(len(l.entries)); have < m.Records {
		return control.LedgerHead.Refuse("the ledger has %d records, and it had %d: the last ones were cut off, or an old copy was put in its place", have, m.Records)
	}
	if got := l.headAt(m.Records); got != m.Head {
		return control.LedgerHead.Refuse("the ledger's record %d has the digest %s, and it had %s: it was replaced", m.Records, got, m.Head)
	}
	return nil
}

// headAt is the head that the ledger had after its first n records.
func (l *Ledger) headAt(n uint64) fingerprint.Fingerprint {
	if n == uint64(len(l.entries)) {
		return l.head
	}
	return l.entries[n].Previous
}

// Find returns how many records the ledger had when head was its head
// (KF-LEDGER-HEAD: never).
func (l *Ledger) Find(head fingerprint.Fingerprint) (records uint64, err error) {
	for n := range uint64(len(l.entries)) {
		if l.headAt(n+1) == head {
			return n + 1, nil
		}
	}
	return 0, control.LedgerHead.Refuse("the ledger never had the head %s: its last records were cut off, or it was replaced", head)
}
