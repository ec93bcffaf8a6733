// SPDX-License-Identifier: Apache-2.0

// Package state keeps one side's state directory: who it is, its identities,
// and its ledger.
//
//	state.json           side, name, rehearsal or real, when it was made
//	identity/sign.pem    private key that signs (PKCS#8)
//	identity/age.txt     age identity that opens what the other side sends
//	ledger.jsonl         what happened, hash-chained; see package ledger
//	ledger.head          its signed head
//
// Each side adds files of its own. The ledger is the truth about them: the record
// "init" pins all that the directory begins with, a later record each file that
// [State.Keep] adds or replaces, and each opening compares them. So state.json can't
// be made that of a rehearsal, nor a pin be swapped, without a record that says so.
//
// A state directory is made whole or not at
// all, is locked while a command runs, and must exist for every command but
// init, so that a typo can't begin an empty history.
package state

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/strictjson"
)

const format = "keyferry-state-v2"

// Side is the security zone that a state directory belongs to.
type Side string

const (
	Offline Side = "offline"
	Online  Side = "online"
)

// Meta says whose state directory it is.
type Meta struct {
	Format    string    `json:"format"`
	Side      Side      `json:"side"`
	Name      string    `json:"name"` // heads the side's bundles
	Rehearsal bool      `json:"rehearsal"`
	Created   time.Time `json:"created"`
}

// State is an open, locked state directory.
type State struct {
	Dir string // absolute
	Meta
	Ledger *ledger.Ledger
	Signed *ledger.Head     // the ledger's head that was signed last
	HeadBy sshsig.PublicKey // that signed it: this side's key

	SignerElsewhere bool // as in [Self]
	unlock          func() error
}

// Self is how a side is known: by the key that signs for it. Its program finds
// that in the files that it adds to the state directory.
type Self struct {
	Key             sshsig.PublicKey // as the other side pins it
	SignerElsewhere bool             // no identity/sign.pem: the key is in an HSM
}

const (
	metaFile   = "state.json"
	ledgerFile = "ledger.jsonl"
	headFile   = "ledger.head"
)

// Options say how a state directory is made.
type Options struct {
	ClassicRecipient bool // an X25519 age identity, not the hybrid
	SignerElsewhere  bool // as in [Self]
}

// Create makes the state directory dir, which must not exist or be empty, with what fill
// puts into it beside the identities. fill learns the directory it writes to, whose
// final place is dir, and ends with [State.Begin].
func Create(dir string, meta Meta, o Options, fill func(s *State) error) error {
	if err := keyid.Check("name", meta.Name); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return control.StateExists.Refuse("%s exists already", dir)
	}
	if err := durable.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	meta.Format = format
	meta.Created = meta.Created.UTC().Truncate(time.Second)
	return durable.NewDir(dir, 0o700, func(part string) error {
		if err := durable.CheckPrivate(part); err != nil {
			return err
		}
		s := &State{Dir: part, Meta: meta, SignerElsewhere: o.SignerElsewhere}
		if err := s.WriteJSON(metaFile, meta); err != nil {
			return err
		}
		if err := s.createIdentities(o); err != nil {
			return err
		}
		var err error
		if s.Ledger, err = ledger.Open(s.Path(ledgerFile)); err != nil {
			return err
		}
		if err := fill(s); err != nil {
			return err
		}
		if err := s.checkHead(); err != nil {
			return err
		}
		return s.checkFiles()
	})
}

// EventInit is the event of the first record, whose data is [Meta].
const EventInit = "init"

// Fact is a record that follows the first one.
type Fact struct {
	Event string
	Data  any
}

// Begin writes the first records, which pin the files that are there, and signs them
// by this side's key.
func (s *State) Begin(signer crypto.Signer, facts ...Fact) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	files := ledger.Files{}
	for _, e := range entries {
		if e.IsDir() {
			continue // identities are checked by what they are, see checkSelf; a token and a practice cloud change
		}
		data, err := os.ReadFile(s.Path(e.Name()))
		if err != nil {
			return err
		}
		files[e.Name()] = fingerprint.Of(data)
	}
	if err := s.Ledger.Pin(s.Created, EventInit, s.Meta, files); err != nil {
		return err
	}
	for _, f := range facts {
		if err := s.Ledger.Append(s.Created, f.Event, f.Data); err != nil {
			return err
		}
	}
	return s.SignHead(signer)
}

// Open opens and locks the state directory dir of the given side. Its ledger's
// head must be signed by the key that self tells.
func Open(dir string, side Side, self func(*State) (Self, error)) (*State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, control.StateMissing.Refuse("there is no state directory %s", dir)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(filepath.Join(dir, metaFile)); !errors.Is(err, fs.ErrNotExist) { // else it is no state directory
		if err := checkPrivate(dir); err != nil {
			return nil, err
		}
	}
	unlock, err := durable.Lock(dir)
	if err != nil {
		return nil, err
	}
	s := &State{Dir: dir, unlock: unlock}
	if err := s.load(side, self); err != nil {
		return nil, errors.Join(err, unlock())
	}
	return s, nil
}

func (s *State) load(side Side, self func(*State) (Self, error)) error {
	if err := s.ReadJSON(metaFile, &s.Meta); err != nil {
		return control.StateForeign.Refuse("%s is not a state directory: %w", s.Dir, err)
	}
	if s.Format != format || s.Side != side {
		return control.StateForeign.Refuse("%s is a state directory of %s (%s)", s.Dir, control.Quote(string(s.Side)), control.Quote(s.Format))
	}
	var err error
	if s.Ledger, err = ledger.Open(s.Path(ledgerFile)); err != nil {
		return err
	}
	if len(s.Ledger.Entries()) == 0 { // init wrote one
		return control.LedgerBroken.Refuse("the ledger of %s is gone", s.Dir)
	}
	if err := s.checkHead(); err != nil {
		return err
	}
	if err := s.checkFiles(); err != nil {
		return err
	}
	who, err := self(s)
	if err != nil {
		return err
	}
	return s.checkSelf(who)
}

// Close unlocks the state directory.
func (s *State) Close() error { return s.unlock() }

// Kind is "rehearsal" or "real".
func (s *State) Kind() string { return KindName(s.Rehearsal) }

// SameKind refuses what is for a ceremony of the other kind (KF-TRUST-REHEARSAL).
func (s *State) SameKind(what string, rehearsal bool) error {
	if rehearsal != s.Rehearsal {
		return control.TrustRehearsal.Refuse("the %s is for a %s ceremony, this state directory for a %s one", what, KindName(rehearsal), s.Kind())
	}
	return nil
}

// KindName is "rehearsal" or "real".
func KindName(rehearsal bool) string {
	if rehearsal {
		return "rehearsal"
	}
	return "real"
}

// Path is the path of a file in the state directory.
func (s *State) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// WriteJSON creates a file of the state directory, readable by its owner.
func (s *State) WriteJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.Create(s.Path(name), append(data, '\n'), 0o600)
}

// ReadJSON reads what WriteJSON wrote.
func (s *State) ReadJSON(name string, v any) error {
	data, err := os.ReadFile(s.Path(name))
	if err != nil {
		return err
	}
	return strictjson.Unmarshal(data, 1<<20, v)
}

// Signer returns the private key that signs for this side.
func (s *State) Signer() (crypto.Signer, error) {
	data, err := s.readIdentity("sign.pem")
	if err != nil {
		return nil, err
	}
	defer clear(data)
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, control.StateDamaged.Refuse("%s holds no key", s.Path("identity", "sign.pem"))
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, control.StateDamaged.Refuse("%s holds no key: %w", s.Path("identity", "sign.pem"), err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, control.StateDamaged.Refuse("the key in %s can't sign", s.Path("identity", "sign.pem"))
	}
	return signer, nil
}

func (s *State) readIdentity(name string) ([]byte, error) {
	data, err := os.ReadFile(s.Path("identity", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, control.StateDamaged.Refuse("an identity is gone: %w", err)
	}
	return data, err
}

func (s *State) createIdentities(o Options) error {
	if err := durable.MkdirAll(s.Path("identity"), 0o700); err != nil {
		return err
	}
	if !o.SignerElsewhere {
		if err := createSigner(s.Path("identity", "sign.pem")); err != nil {
			return err
		}
	}
	return createAge(s.Path("identity", "age.txt"), o.ClassicRecipient)
}

func createSigner(path string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	defer clear(private)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	defer clear(der)
	encoded := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(encoded)
	return durable.Create(path, encoded, 0o600)
}
