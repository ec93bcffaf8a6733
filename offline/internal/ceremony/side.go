// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"time"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// This file reads from the state directory who this side is and whom it has pinned,
// and holds packages against that.

// Self is who this side is, as its card and its token's settings have it.
func Self(s *state.State) (state.Self, error) {
	key, err := OwnKey(s)
	if err != nil {
		return state.Self{}, err
	}
	settings, err := ReadTokenSettings(s)
	return state.Self{Key: key, SignerElsewhere: settings.Signer == SignerHSM}, err
}

// OwnKey is this side's public signing key, as its card has it: a receipt can
// be taken without the HSM.
func OwnKey(s *state.State) (sshsig.PublicKey, error) {
	card, _, err := OwnCard(s)
	if err != nil {
		return sshsig.PublicKey{}, err
	}
	return card.Signer, nil
}

// OwnCard is this side's card, and its file.
func OwnCard(s *state.State) (*trust.Card, []byte, error) {
	file, err := s.Kept(trust.CardName(s.Name))
	if err != nil {
		return nil, nil, err
	}
	card, err := trust.OpenCard(file)
	if err != nil {
		return nil, nil, control.StateDamaged.Refuse("this side's card: %w", err)
	}
	return card, file, nil
}

// WorldFile is where the pinned security world's package is kept.
const WorldFile = "security-world"

// PinnedWorld returns the pinned security world and its fingerprint.
func PinnedWorld(s *state.State) (*trust.World, fingerprint.Fingerprint, error) {
	file, err := s.Kept(WorldFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fingerprint.Fingerprint{}, control.TrustNone.Refuse("no security world is pinned")
	}
	if err != nil {
		return nil, fingerprint.Fingerprint{}, err
	}
	w, err := trust.OpenWorld(file)
	if err == nil {
		err = s.SameKind("pinned security world", w.Rehearsal)
	}
	return w, fingerprint.Of(file), err
}

// kekPackageName is the form that a KEK package's file name has.
var kekPackageName = regexp.MustCompile(`^BYOK-KEK-pkg-[A-Z]+-[0-9]+$`)

// VerifyPackages holds a KEK package against the pinned security world, and its number
// against the ledger. The world's package need not be given again; one that is must be
// the pinned one. known tells that the KEK was taken before.
func VerifyPackages(io *cli.IO, s *state.State, j *Journal, kekPath, worldPath string) (kek *trust.VerifiedKEK, known bool, err error) {
	w, pin, err := PinnedWorld(s)
	if err != nil {
		return nil, false, err
	}
	if worldPath != "" {
		file, err := cli.ReadInput(worldPath)
		if err != nil {
			return nil, false, err
		}
		if _, err := trust.OpenWorld(file); err != nil {
			return nil, false, err
		}
		if got := fingerprint.Of(file); got != pin {
			return nil, false, control.TrustFingerprint.Refuse("the security world's fingerprint is %s, the pinned one's %s", got, pin)
		}
	}
	file, err := cli.ReadInput(kekPath)
	if err != nil {
		return nil, false, err
	}
	if kek, err = w.OpenKEK(file, pin, time.Now()); err != nil {
		return nil, false, err
	}
	if err := io.CheckClock(s, kek.Created(), "the KEK package was made"); err != nil {
		return nil, false, err
	}
	if name, want := filepath.Base(kekPath), trust.KEKName(w.Region, kek.Number()); kekPackageName.MatchString(name) && name != want {
		return nil, false, control.PackageNumber.Refuse("the file %s is the package %s under another name", name, want)
	}
	known, err = j.HasKEK(kek)
	return kek, known, err
}

// compareKEK has a person compare the KEK's fingerprint, unless they have done so before.
// A rehearsal shows it, and compares what is given; so does a dry run, which is for
// nobody's key.
func compareKEK(io *cli.IO, s *state.State, kek *trust.VerifiedKEK, known bool, given string, dryRun bool) error {
	if given == "" && (known || IsPractice(s) || dryRun) {
		io.Speak("KEK "+kek.KID(), kek.Fingerprint())
		return nil
	}
	io.Note("%s", cli.ClockLine())
	return io.Compare(cli.Compared{
		What: "KEK " + kek.KID(), Heard: "as a second person reads them from the vault", Is: kek.Fingerprint(), Flag: "kek-fingerprint", Given: given,
	})
}
