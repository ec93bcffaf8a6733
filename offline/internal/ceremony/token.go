// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/probe"
	"keyferry/offline/internal/signer"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

// Where the key that signs bundles lives.
const (
	SignerFile = "file"
	SignerHSM  = "hsm"
)

// SignerLabel is the label of the signing key in the token.
const SignerLabel = "keyferry-bundle-signer"

// TokenFile keeps the TokenSettings in the state directory. A rehearsal's
// token is beside it:
//
//	token/softhsm2.conf    where SoftHSM finds the token
//	token/tokens/          the token
//	token/pin              its PIN, random: it guards a rehearsal
const TokenFile = "token.json"

// TokenSettings say which token this side uses: what of Label, Serial and URI
// is not empty must all fit. The PIN of a real one is never kept.
type TokenSettings struct {
	Module     string `json:"module"`
	Label      string `json:"label"`
	Serial     string `json:"serial"`
	URI        string `json:"uri"`        // PKCS#11 URI
	Parameters string `json:"parameters"` // of C_Initialize
	PINPad     bool   `json:"pin_pad"`    // the PIN is entered there
	Signer     string `json:"signer"`     // file or hsm
	Practice   bool   `json:"practice"`   // a rehearsal's own, made beside it

	Sandbox SandboxNeeds `json:"sandbox"`
}

func createRehearsalToken(s *state.State, settings TokenSettings) error {
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

// SoftHSMConf is the path of SoftHSM's configuration, below the state directory.
var SoftHSMConf = filepath.Join("token", "softhsm2.conf")

// writeSoftHSMConf writes, into the state directory at dir, the configuration
// for a state directory at final, if it is not there yet: SoftHSM wants absolute
// paths, and a state directory may be moved.
func writeSoftHSMConf(dir, final string) error {
	path := filepath.Join(dir, SoftHSMConf)
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
	return os.Setenv("SOFTHSM2_CONF", s.Path(SoftHSMConf))
}

// ReadTokenSettings reads what init kept.
func ReadTokenSettings(s *state.State) (TokenSettings, error) {
	var settings TokenSettings
	if err := s.ReadJSON(TokenFile, &settings); err != nil {
		return settings, control.StateDamaged.Refuse("%s can't be read: %w", s.Path(TokenFile), err)
	}
	return settings, nil
}

// Access is how a run gets at the token: the PIN, the secret of the second role, which
// some HSMs want for making and destroying keys, and what the process leaves open.
type Access struct {
	PIN, Officer *cli.SecretFlags
	*Process
}

// IsPractice reports whether a side has a rehearsal's own token. A rehearsal in dress,
// with a real token, asks and refuses as the real ceremony does.
func IsPractice(s *state.State) bool {
	settings, err := ReadTokenSettings(s)
	return err == nil && settings.Practice
}

// openToken logs in to the token that init settled.
func openToken(ctx context.Context, io *cli.IO, s *state.State, access Access) (*hsm.Token, error) {
	settings, err := ReadTokenSettings(s)
	if err != nil {
		return nil, err
	}
	return settings.Open(ctx, io, s, access)
}

// Open logs in to the token of a state directory. The PIN of a rehearsal's own is
// there too, unless another is given.
func (t TokenSettings) Open(ctx context.Context, io *cli.IO, s *state.State, access Access) (*hsm.Token, error) {
	if t.Practice {
		if err := useSoftHSMConf(s); err != nil {
			return nil, err
		}
		if !access.PIN.Given() {
			access.PIN = cli.SecretFile(s.Path("token", "pin"), "PIN")
		}
	}
	return t.Login(ctx, io, access)
}

// Login logs in to the token. What the token tells of the tries that are left
// is shown before its PIN is asked for.
func (t TokenSettings) Login(ctx context.Context, io *cli.IO, access Access) (token *hsm.Token, err error) {
	pins := access.PIN
	choice := module.Choice{Module: t.Module, TokenLabel: t.Label, TokenSerial: t.Serial, Parameters: t.Parameters, Signs: t.Signer == SignerHSM, Tell: io.Note}
	cfg := hsm.Config{
		Officer: func() ([]byte, error) {
			io.Note("the HSM wants its administrator or security officer for this")
			return access.Officer.ReadOne(ctx, io)
		},
		Tell: io.Note, Step: watch(ctx, io), Context: ctx,
	}
	if err := module.Surroundings(t.Module, t.Parameters, io.Warn); err != nil {
		return nil, err
	}
	if t.URI != "" {
		if choice.TokenURI, err = module.ParseURI(t.URI); err != nil {
			return nil, err
		}
	}
	chosen, err := module.Choose(choice)
	if err != nil {
		return nil, err
	}
	if chosen.PIN != module.TriesUntold {
		io.Warn("the token %s tells: %s", control.Quote(chosen.Label), chosen.PIN)
	}
	var pin []byte
	switch {
	case !pins.Given() && t.PINPad:
		io.Note("enter the PIN at the PIN pad of the token %s", control.Quote(chosen.Label))
	case !pins.Given() && !chosen.NeedPIN:
		io.Detail("the token %s asks for no PIN", control.Quote(chosen.Label))
	default:
		if pin, err = pins.ReadOne(ctx, io); err != nil {
			chosen.Close()
			return nil, err
		}
		defer clear(pin)
	}
	if token, err = hsm.Open(chosen, cfg, pin); err != nil {
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

// chooseWrap settles where keys are wrapped: in the token, if that is proven; in
// software (nil) only by the person's word, or where a rehearsal's own token can't.
func chooseWrap(io *cli.IO, token *hsm.Token, asked string, practice bool) (*hsm.ProvenWrap, []hsm.Verdict, error) {
	if asked == WrapSoftware {
		io.Warn("the keys are wrapped in software, as asked with --wrap software; this is recorded")
		return nil, nil, nil
	}
	wrap, verdicts, err := token.ProveWrap()
	if control.Is(err, control.HSMWrapUnproven) && practice && asked == "" {
		for _, v := range verdicts {
			io.Detail("wrap mechanism %s: %s, %s", v.Mechanism, v.Result, v.Reason)
		}
		io.Warn("the rehearsal's token does not wrap exactly as the vault asks, so the keys are wrapped in software; a real ceremony would stop here [%s]", control.HSMWrapUnproven.ID)
		return nil, verdicts, nil
	}
	return wrap, verdicts, err
}

// tryStored proves, by leave, that a key can be stored and removed, which nothing else can
// prove on a token that keeps all it is given; without leave it says so.
func tryStored(io *cli.IO, token *hsm.Token, leave bool) error {
	if !leave {
		io.Warn("this token keeps all it is given, so that nothing was stored and this is not proven: that a key comes in, is named and protected, signs and decrypts, and can be removed; --hsm-try-store proves it with one throw-away key")
		return nil
	}
	io.Note("one throw-away key is stored in the token, and removed again; a run that is killed leaves it, and the next run removes it")
	err := probe.TryStore(token)
	if err == nil {
		io.Note("the throw-away key came in, was named, signed, decrypted, and is gone")
	}
	return err
}

// signer returns what signs bundles, and the function that lets it go. token is
// one that is open already, or nil.
func (t TokenSettings) signer(ctx context.Context, io *cli.IO, s *state.State, access Access, token *hsm.Token) (crypto.Signer, func() error, error) {
	nothing := func() error { return nil }
	if t.Signer == SignerFile {
		signer, err := s.Signer()
		return signer, nothing, err
	}
	if token != nil {
		key, err := signer.Find(token, SignerLabel)
		return key, nothing, err
	}
	token, err := t.Open(ctx, io, s, access)
	if err != nil {
		return nil, nil, err
	}
	key, err := signer.Find(token, SignerLabel)
	if err != nil {
		return nil, nil, errors.Join(err, token.Close())
	}
	return key, token.Close, nil
}

// SignHead signs what the ledger has learnt, where the key that does is in the
// token, which is open now. As at the end of any run, a failure stops nothing.
func SignHead(io *cli.IO, s *state.State, token *hsm.Token) {
	if !s.SignerElsewhere || s.Ledger.Mark() == s.Signed.Ledger {
		return
	}
	key, err := signer.Find(token, SignerLabel)
	if err == nil {
		err = s.SignHead(key)
	}
	if err != nil {
		io.Warn("the ledger's head is not signed: %v", err)
	}
}
