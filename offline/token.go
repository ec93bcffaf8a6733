// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

// Where the key that signs bundles lives.
const (
	signerFile = "file"
	signerHSM  = "hsm"
)

// signerLabel is the label of the signing key in the token.
const signerLabel = "keyferry-bundle-signer"

// tokenFile keeps the tokenSettings in the state directory. A rehearsal's
// token is beside it:
//
//	token/softhsm2.conf    where SoftHSM finds the token
//	token/tokens/          the token
//	token/pin              its PIN, random: it guards a rehearsal
const tokenFile = "token.json"

// tokenSettings say which token this side uses: what of Label, Serial and URI
// is not empty must all fit. The PIN of a real one is never kept.
type tokenSettings struct {
	Module     string `json:"module"`
	Label      string `json:"label"`
	Serial     string `json:"serial"`
	URI        string `json:"uri"`        // PKCS#11 URI
	Parameters string `json:"parameters"` // of C_Initialize
	PINPad     bool   `json:"pin_pad"`    // the PIN is entered there
	Signer     string `json:"signer"`     // file or hsm
	Practice   bool   `json:"practice"`   // a rehearsal's own, made beside it

	Sandbox sandboxNeeds `json:"sandbox"`
}

// settleToken finds the token, in a rehearsal makes it, makes the signing key
// in it where it is to live there, and returns the settings to keep, the signing key
// and the function that lets it go. It opens the token once: its PIN is asked once.
func (r *initRun) settleToken(ctx context.Context, s *state.State) (settings tokenSettings, signer crypto.Signer, release func() error, err error) {
	settings = r.token.chosen
	settings.Signer, settings.Sandbox = r.signer, process.needs
	if settings.Module, err = module.Find(settings.Module); err != nil {
		return settings, nil, nil, err
	}
	if settings.Practice = r.practice(); settings.Practice {
		settings.Label = "keyferry-rehearsal"
		if err := createRehearsalToken(s, settings); err != nil {
			return settings, nil, nil, err
		}
	}
	token, err := settings.open(ctx, r.io, s, r.token.tokenSecrets)
	if err != nil {
		return settings, nil, nil, err
	}
	settings.Label, settings.Serial = token.Info().Label, token.Info().Serial
	release = token.Close
	if !utf8.ValidString(settings.Label) {
		return settings, nil, nil, errors.Join(control.HSMTokenLabel.Refuse("the label of the token %s is not UTF-8, so that it can't be kept", control.Quote(settings.Label)).
			WithHint("give the token a label of letters and digits with the HSM's own tools"), release())
	}
	if settings.Signer == signerHSM && !settings.Practice {
		r.hsm, release = token, func() error { return nil } // where the key outlives a run that fails
	}
	id, err := r.begin(token, settings)
	if err != nil {
		return settings, nil, nil, errors.Join(err, release())
	}
	if settings.Signer == signerHSM {
		signer, err = token.CreateSigner(signerLabel, id, hsm.ECDSAP256)
	} else {
		signer, err = s.Signer()
	}
	if err != nil {
		return settings, nil, nil, errors.Join(err, release())
	}
	return settings, signer, release, nil
}

func createRehearsalToken(s *state.State, settings tokenSettings) error {
	if err := durable.MkdirAll(s.Path("token", "tokens"), 0o700); err != nil {
		return err
	}
	pin := []byte(rand.Text())
	defer clear(pin)
	if err := durable.Create(s.Path("token", "pin"), pin, 0o600); err != nil {
		return err
	}
	if err := useSoftHSMConf(s); err != nil {
		return err
	}
	return module.MakeSoftHSMToken(settings.Module, settings.Label, pin, pin)
}

// softHSMConf is the path of SoftHSM's configuration, below the state directory.
var softHSMConf = filepath.Join("token", "softhsm2.conf")

// writeSoftHSMConf writes, into the state directory at dir, the configuration
// for a state directory at final, if it is not there yet: SoftHSM wants absolute
// paths, and a state directory may be moved.
func writeSoftHSMConf(dir, final string) error {
	path := filepath.Join(dir, softHSMConf)
	conf := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", cPath(filepath.Join(final, "token", "tokens")))
	if is, err := os.ReadFile(path); err == nil && string(is) == conf {
		return nil
	}
	return durable.Replace(path, []byte(conf), 0o600)
}

// useSoftHSMConf tells the module, which reads the environment, where its
// configuration is.
func useSoftHSMConf(s *state.State) error {
	if err := writeSoftHSMConf(s.Dir, s.Dir); err != nil {
		return err
	}
	return os.Setenv("SOFTHSM2_CONF", s.Path(softHSMConf))
}

func readTokenSettings(s *state.State) (tokenSettings, error) {
	var settings tokenSettings
	if err := s.ReadJSON(tokenFile, &settings); err != nil {
		return settings, control.StateDamaged.Refuse("%s can't be read: %w", s.Path(tokenFile), err)
	}
	return settings, nil
}

// tokenSecrets are the PIN, and the secret of the second role, which some HSMs want
// for making and destroying keys.
type tokenSecrets struct{ pin, officer *cli.SecretFlags }

func addTokenSecrets(flags *pflag.FlagSet) tokenSecrets {
	return tokenSecrets{
		pin:     cli.AddSecretFlags(flags, "hsm-pin", "PIN", false),
		officer: cli.AddSecretFlags(flags, "hsm-so-pin", "secret of the HSM's administrator or security officer", false),
	}
}

// isPractice reports whether a side has a rehearsal's own token. A rehearsal in dress,
// with a real token, asks and refuses as the real ceremony does.
func isPractice(s *state.State) bool {
	settings, err := readTokenSettings(s)
	return err == nil && settings.Practice
}

// open logs in to the token of a state directory. The PIN of a rehearsal's own is
// there too, unless another is given.
func (t tokenSettings) open(ctx context.Context, io *cli.IO, s *state.State, secrets tokenSecrets) (*hsm.Token, error) {
	if t.Practice {
		if err := useSoftHSMConf(s); err != nil {
			return nil, err
		}
		if !secrets.pin.Given() {
			secrets.pin = cli.SecretFile(s.Path("token", "pin"), "PIN")
		}
	}
	return t.login(ctx, io, secrets)
}

// login logs in to the token. What the token tells of the tries that are left
// is shown before its PIN is asked for.
func (t tokenSettings) login(ctx context.Context, io *cli.IO, secrets tokenSecrets) (token *hsm.Token, err error) {
	pins := secrets.pin
	cfg := hsm.Config{
		Module: t.Module, TokenLabel: t.Label, TokenSerial: t.Serial, Parameters: t.Parameters,
		Officer: func() ([]byte, error) {
			io.Note("the HSM wants its administrator or security officer for this")
			return secrets.officer.ReadOne(ctx, io)
		},
		Tell: io.Note, Step: watch(ctx, io), Context: ctx,
	}
	if err := module.Surroundings(t.Module, io.Warn); err != nil {
		return nil, err
	}
	defer func() { err = sandboxInTheWay(err) }()
	if t.URI != "" {
		if cfg.TokenURI, err = module.ParseURI(t.URI); err != nil {
			return nil, err
		}
	}
	slot, err := hsm.Find(cfg, t.Signer == signerHSM)
	if err != nil {
		return nil, err
	}
	if slot.PIN != hsm.TriesUntold {
		io.Warn("the token %s tells: %s", control.Quote(slot.Label), slot.PIN)
	}
	switch {
	case !pins.Given() && t.PINPad:
		io.Note("enter the PIN at the PIN pad of the token %s", control.Quote(slot.Label))
	case !pins.Given() && !slot.NeedPIN:
		io.Detail("the token %s asks for no PIN", control.Quote(slot.Label))
	default:
		if cfg.PIN, err = pins.ReadOne(ctx, io); err != nil {
			slot.Close()
			return nil, err
		}
		defer clear(cfg.PIN)
	}
	if token, err = slot.Open(cfg.PIN); err != nil {
		return nil, err
	}
	swept, err := token.Sweep()
	if swept > 0 {
		io.Note("removed %d objects of throw-away keys that an earlier run had left in the token", swept)
	}
	if err != nil {
		return nil, errors.Join(err, token.Close())
	}
	return token, nil
}

// sandboxInTheWay adds to the hint of an HSM that can't be reached that the sandbox
// may be why: the modules of most HSMs talk to a service or over a network.
func sandboxInTheWay(err error) error {
	var refusal *control.Refusal
	if process.needs.Network || process.held.Open() || !errors.As(err, &refusal) {
		return err
	}
	switch refusal.Control.ID {
	case control.HSMModule.ID, control.HSMNoToken.ID, control.HSMCall.ID:
		refusal.Hint += "; or the sandbox stands in the way: --unsafe-hsm-network lets the module reach an HSM in a network or behind a local service or USB, --hsm-writes DIR lets it write its files (docs/hsm.md, for each vendor)"
	}
	return err
}

// signer returns what signs bundles, and the function that lets it go. token is
// one that is open already, or nil.
func (t tokenSettings) signer(ctx context.Context, io *cli.IO, s *state.State, secrets tokenSecrets, token *hsm.Token) (crypto.Signer, func() error, error) {
	nothing := func() error { return nil }
	if t.Signer == signerFile {
		signer, err := s.Signer()
		return signer, nothing, err
	}
	if token != nil {
		signer, err := token.Signer(signerLabel)
		return signer, nothing, err
	}
	token, err := t.open(ctx, io, s, secrets)
	if err != nil {
		return nil, nil, err
	}
	signer, err := token.Signer(signerLabel)
	if err != nil {
		return nil, nil, errors.Join(err, token.Close())
	}
	return signer, token.Close, nil
}

// signHead signs what the ledger has learnt, where the key that does is in the
// token, which is open now. As at the end of any run, a failure stops nothing.
func signHead(io *cli.IO, s *state.State, token *hsm.Token) {
	if !s.SignerElsewhere || s.Ledger.Mark() == s.Signed.Ledger {
		return
	}
	signer, err := token.Signer(signerLabel)
	if err == nil {
		err = s.SignHead(signer)
	}
	if err != nil {
		io.Warn("the ledger's head is not signed: %v", err)
	}
}
