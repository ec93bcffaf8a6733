// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/sshsig"
)

var made = time.Date(2026, 11, 23, 15, 4, 5, 6, time.FixedZone("", 3600))

func meta() Meta {
	return Meta{Side: Offline, Name: "vault-room", Rehearsal: true, Created: made}
}

func nothing(s *State) error {
	signer, err := s.Signer()
	if err != nil {
		return err
	}
	return s.Begin(signer)
}

// create makes a state directory and returns its path.
func create(t *testing.T, o Options) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "new", "state")
	if err := Create(dir, meta(), o, nothing); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asSigned is a side that believes the signed head.
func asSigned(s *State) (Self, error) { return Self{Key: s.HeadBy}, nil }

// known is a side that knows who it is.
func known(self Self) func(*State) (Self, error) {
	return func(*State) (Self, error) { return self, nil }
}

func public(t *testing.T, signer crypto.Signer) sshsig.PublicKey {
	t.Helper()
	key, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func open(t *testing.T, dir string) *State { return openAs(t, dir, asSigned) }

func openAs(t *testing.T, dir string, self func(*State) (Self, error)) *State {
	t.Helper()
	s, err := Open(dir, Offline, self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestCreateThenOpen(t *testing.T) {
	s := open(t, create(t, Options{}))
	want := meta()
	want.Format, want.Created = "keyferry-state-v2", time.Date(2026, 11, 23, 14, 4, 5, 0, time.UTC)
	if s.Meta != want || s.Kind() != "rehearsal" || KindName(false) != "real" {
		t.Errorf("got %+v, %s", s.Meta, s.Kind())
	}
	entries := s.Ledger.Entries()
	var recorded Meta
	if len(entries) != 1 || entries[0].Event != "init" {
		t.Fatalf("the ledger holds %v", entries)
	}
	if err := entries[0].Read(&recorded); err != nil || recorded != want {
		t.Errorf("the ledger begins with %+v, %v", recorded, err)
	}
	if err := s.Ledger.Append(made, "more", struct{}{}); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheOwnerMayRead(t *testing.T) {
	dir := create(t, Options{})
	s := open(t, dir)
	if err := s.WriteJSON("more.json", struct{}{}); err != nil {
		t.Fatal(err)
	}
	count := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		count++
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil || count != 8 {
		t.Errorf("%d files and directories, %v; want 8", count, err)
	}
}

func TestSignerSigns(t *testing.T) {
	s := open(t, create(t, Options{}))
	signer, err := s.Signer()
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("manifest")
	signature, err := signer.Sign(nil, message, crypto.Hash(0))
	public, ok := signer.Public().(ed25519.PublicKey)
	if err != nil || !ok || !ed25519.Verify(public, message, signature) {
		t.Errorf("the signature does not hold: %v", err)
	}
	other, err := open(t, create(t, Options{})).Signer()
	if err != nil || public.Equal(other.Public()) {
		t.Errorf("two sides have the same key, %v", err)
	}
}

func TestRecipientReachesTheIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		options Options
		prefix  string
		parse   func(string) (age.Recipient, error)
	}{
		"hybrid":  {Options{}, "age1pq1", func(s string) (age.Recipient, error) { return age.ParseHybridRecipient(s) }},
		"classic": {Options{ClassicRecipient: true}, "age1", func(s string) (age.Recipient, error) { return age.ParseX25519Recipient(s) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, create(t, c.options))
			text, err := s.Recipient()
			if err != nil || !strings.HasPrefix(text, c.prefix) {
				t.Fatalf("got %q, %v", text, err)
			}
			recipient, err := c.parse(text)
			if err != nil {
				t.Fatal(err)
			}
			var sealed bytes.Buffer
			w, err := age.Encrypt(&sealed, recipient)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "receipt"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			identity, err := s.AgeIdentity()
			if err != nil {
				t.Fatal(err)
			}
			r, err := age.Decrypt(&sealed, identity)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != "receipt" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestSignerElsewhere(t *testing.T) {
	elsewhere := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	dir := filepath.Join(t.TempDir(), "state")
	if err := Create(dir, meta(), Options{SignerElsewhere: true}, func(*State) error { return nil }); !control.Is(err, control.LedgerHead) {
		t.Errorf("nobody signed the head: %v", err)
	}
	if err := Create(dir, meta(), Options{SignerElsewhere: true}, func(s *State) error { return s.Begin(elsewhere) }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "identity", "sign.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a signing key: %v", err)
	}
	s := openAs(t, dir, known(Self{Key: public(t, elsewhere), SignerElsewhere: true}))
	if _, err := s.Recipient(); err != nil {
		t.Error(err)
	}
	if err := s.Ledger.Append(made, "more", struct{}{}); err != nil {
		t.Fatal(err)
	}
	before := read(t, s.Path(headFile))
	if err := s.SignLedger(); err != nil || !bytes.Equal(read(t, s.Path(headFile)), before) {
		t.Errorf("without the key the head is left as it is: %v", err)
	}
	if err := s.SignHead(stranger); !control.Is(err, control.LedgerHead) || !bytes.Equal(read(t, s.Path(headFile)), before) {
		t.Errorf("signed by another key: %v", err)
	}
	if err := s.SignHead(elsewhere); err != nil || bytes.Equal(read(t, s.Path(headFile)), before) {
		t.Errorf("signed by its key: %v", err)
	}
}

// stranger is a key of no side.
var stranger = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A ledger that somebody else wrote, whole and signed, is refused wherever this
// side's key is.
func TestHeadOfAnother(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		dir := create(t, Options{})
		s, err := Open(dir, Offline, asSigned)
		if err != nil {
			t.Fatal(err)
		}
		self := Self{Key: s.HeadBy, SignerElsewhere: elsewhere}
		forged, err := s.Ledger.SealHead(stranger, made)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Close(), os.WriteFile(s.Path(headFile), forged, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Offline, known(self)); !control.Is(err, control.LedgerHead) {
			t.Errorf("elsewhere %v: got %v, want %s", elsewhere, err, control.LedgerHead.ID)
		}
	}
}

// A key in the state directory that is gone, or not the one that the other side
// pins, is no key in an HSM.
func TestSignerGone(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"gone":    os.Remove,
		"damaged": func(path string) error { return os.Truncate(path, 20) },
		"another": func(path string) error { return errors.Join(os.Remove(path), createSigner(path)) },
	} {
		dir := create(t, Options{})
		s, err := Open(dir, Offline, asSigned)
		if err != nil {
			t.Fatal(err)
		}
		self := Self{Key: s.HeadBy}
		if err := errors.Join(s.Close(), damage(s.Path("identity", "sign.pem"))); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Offline, known(self)); !control.Is(err, control.StateDamaged) {
			t.Errorf("%s: got %v, want %s", name, err, control.StateDamaged.ID)
		}
	}
}

// A side that can't say who it is opens nothing.
func TestSelfFails(t *testing.T) {
	failed := errors.New("no card")
	if _, err := Open(create(t, Options{}), Offline, func(*State) (Self, error) { return Self{}, failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestStateExists(t *testing.T) {
	dir := create(t, Options{})
	before, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/", dir + "/identity", file} {
		if err := Create(path, meta(), Options{}, nothing); !control.Is(err, control.StateExists) {
			t.Errorf("%s: got %v, want %s", path, err, control.StateExists.ID)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, metaFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %s, %v", after, err)
	}
	empty := t.TempDir()
	if err := Create(empty+"/", meta(), Options{}, nothing); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
	if s, err := Open(empty, Offline, asSigned); err != nil {
		t.Error(err)
	} else if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCreateThatFailsLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	failed := errors.New("no token")
	err := Create(filepath.Join(parent, "state"), meta(), Options{}, func(s *State) error {
		if _, err := s.Signer(); err != nil {
			t.Error(err)
		}
		return errors.Join(s.WriteJSON("token.json", struct{}{}), failed)
	})
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	bad := meta()
	bad.Name = "Vault Room"
	if err := Create(filepath.Join(parent, "state"), bad, Options{}, nothing); !control.Is(err, control.CommandLine) {
		t.Errorf("a bad name: got %v, want %s", err, control.CommandLine.ID)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A relative path names the same directory after a change of directory.
func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := Create("state", meta(), Options{}, nothing); err != nil {
		t.Fatal(err)
	}
	s := open(t, "state")
	t.Chdir("/")
	if _, err := s.Signer(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   control.Control
	}{
		"missing":            {os.RemoveAll, control.StateMissing},
		"a file":             {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, control.StateMissing},
		"another directory":  {func(dir string) error { return os.Remove(filepath.Join(dir, metaFile)) }, control.StateForeign},
		"no JSON":            {change(metaFile, "{", "["), control.StateForeign},
		"other side":         {change(metaFile, `"offline"`, `"online"`), control.StateForeign},
		"other format":       {change(metaFile, "state-v2", "state-v1"), control.StateForeign},
		"unknown field":      {change(metaFile, `"name"`, `"Name"`), control.StateForeign},
		"ledger gone":        {func(dir string) error { return os.Remove(filepath.Join(dir, ledgerFile)) }, control.LedgerBroken},
		"ledger empty":       {func(dir string) error { return os.Truncate(filepath.Join(dir, ledgerFile), 0) }, control.LedgerBroken},
		"ledger only a tear": {func(dir string) error { return os.Truncate(filepath.Join(dir, ledgerFile), 20) }, control.LedgerBroken},
		"head gone":          {func(dir string) error { return os.Remove(filepath.Join(dir, headFile)) }, control.LedgerHead},
		"head changed":       {change(headFile, `"records":1`, `"records":2`), control.LedgerHead},
		"last record edited": {change(ledgerFile, `"vault-room"`, `"vault-doom"`), control.LedgerHead},
		"ledger changed":     {change(ledgerFile, `"seq":1`, `"seq":2`), control.LedgerBroken},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t, Options{})
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the refusal lets the lock go
				if _, err := Open(dir, Offline, asSigned); !control.Is(err, c.want) {
					t.Errorf("got %v, want %s", err, c.want.ID)
				}
			}
		})
	}
}

// change returns a damage that replaces text in a file of the state directory.
func change(name, from, to string) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(data, []byte(from)) {
			return errors.New(name + " does not hold " + from)
		}
		return os.WriteFile(path, bytes.Replace(data, []byte(from), []byte(to), 1), 0o600)
	}
}

func TestOnlineDoesNotOpenOffline(t *testing.T) {
	if _, err := Open(create(t, Options{}), Online, asSigned); !control.Is(err, control.StateForeign) {
		t.Errorf("got %v, want %s", err, control.StateForeign.ID)
	}
}

func TestDamagedIdentities(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"gone": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "identity")) },
		"no key": func(dir string) error {
			return errors.Join(
				os.WriteFile(filepath.Join(dir, "identity", "sign.pem"), []byte("x"), 0o600),
				os.WriteFile(filepath.Join(dir, "identity", "age.txt"), []byte("# x\n"), 0o600))
		},
		"cut": func(dir string) error {
			return errors.Join(change("identity/sign.pem", "MC4", "AC4")(dir), change("identity/age.txt", "AGE-SECRET-KEY-", "AGE-")(dir))
		},
		"two": func(dir string) error {
			id, err := age.GenerateX25519Identity()
			if err != nil {
				return err
			}
			return errors.Join(change("identity/age.txt", "#", id.String()+"\n#")(dir), change("identity/sign.pem", "PRIVATE", "PUBLIC")(dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t, Options{})
			s := open(t, dir)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Signer(); !control.Is(err, control.StateDamaged) {
				t.Errorf("signer: got %v, want %s", err, control.StateDamaged.ID)
			}
			if _, err := s.AgeIdentity(); !control.Is(err, control.StateDamaged) {
				t.Errorf("identity: got %v, want %s", err, control.StateDamaged.ID)
			}
			if _, err := s.Recipient(); !control.Is(err, control.StateDamaged) {
				t.Errorf("recipient: got %v, want %s", err, control.StateDamaged.ID)
			}
		})
	}
}

func TestMovedDirectoryOpens(t *testing.T) {
	dir := create(t, Options{})
	moved := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	s := open(t, moved)
	if _, err := s.Signer(); err != nil {
		t.Error(err)
	}
	if _, err := s.AgeIdentity(); err != nil {
		t.Error(err)
	}
	if err := s.Ledger.Append(made, "more", struct{}{}); err != nil {
		t.Error(err)
	}
}

func TestLockedTwice(t *testing.T) {
	dir := create(t, Options{})
	s, err := Open(dir, Offline, asSigned)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Offline, asSigned); !control.Is(err, control.StateBusy) {
		t.Errorf("got %v, want %s", err, control.StateBusy.ID)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestJSONFiles(t *testing.T) {
	s := open(t, create(t, Options{}))
	type document struct {
		N int `json:"n"`
	}
	if err := s.WriteJSON("d.json", document{1}); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteJSON("d.json", document{2}); !control.Is(err, control.OutputExists) {
		t.Errorf("got %v, want %s", err, control.OutputExists.ID)
	}
	var got document
	if err := s.ReadJSON("d.json", &got); err != nil || got.N != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := s.ReadJSON("none.json", &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := change("d.json", `"n"`, `"m"`)(s.Dir); err != nil {
		t.Fatal(err)
	}
	if err := s.ReadJSON("d.json", &got); err == nil {
		t.Error("an unknown field was read")
	}
}
