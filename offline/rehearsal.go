// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/signer"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
)

func rehearsalCommand(p *process) cli.Command {
	return cli.Command{
		Name:      "rehearsal clean",
		Summary:   "list and remove what a dress rehearsal stored in the HSM",
		Rehearsal: true,
		Usage: `
Usage: offline rehearsal clean [flags]

Lists what a dress rehearsal ("offline init --rehearsal" with a token of an HSM)
stored there: the imported keys, and the key that signs bundles. After an exact
Yes they are removed; any other answer, or --keep, leaves them. Of the token
nothing else is touched: a key is the rehearsal's by its label and its public
key.

A rehearsal with a token of its own stored nothing elsewhere: to remove its
state directory is enough.

  --keep                   list, and remove nothing
  --hsm-pin-file PATH      the HSM's PIN (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH   the secret of its administrator, of an HSM that wants
                           it to destroy keys (or --hsm-so-pin-fd N)

Example: offline rehearsal clean --hsm-pin-file pin
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			access := addAccess(flags, p)
			keep := flags.Bool("keep", false, "")
			return func(ctx context.Context, io *cli.IO, args []string) error {
				if err := io.NoArguments(args); err != nil {
					return err
				}
				return withState(io, func(s *state.State) error { return cleanRehearsal(ctx, io, s, access, *keep) })
			}
		},
	}
}

func cleanRehearsal(ctx context.Context, io *cli.IO, s *state.State, access ceremony.Access, keep bool) (err error) {
	if !s.Rehearsal {
		return control.TrustRehearsal.Refuse("%s is the state directory of a real ceremony: nothing of it is cleaned away", s.Dir)
	}
	settings, err := ceremony.ReadTokenSettings(s)
	if err != nil {
		return err
	}
	if settings.Practice {
		return afterRehearsal(io, []string{}, false, "This rehearsal has a token of its own: nothing of it is in an HSM. To end it, remove "+s.Dir)
	}
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	token, err := settings.Open(ctx, io, s, access)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	stored, err := ofRehearsal(s, j, token)
	if err != nil {
		return err
	}
	texts := []string{}
	for _, o := range stored {
		texts = append(texts, o.String())
	}
	list := "In the token " + control.Quote(token.Info().Label) + " there is nothing of this rehearsal"
	if len(texts) > 0 {
		list = fmt.Sprintf("In the token %s there are of this rehearsal:\n  %s", control.Quote(token.Info().Label), strings.Join(texts, "\n  "))
	}
	switch {
	case len(texts) == 0:
		return afterRehearsal(io, texts, false, list+". To end the rehearsal, remove "+s.Dir)
	case keep:
		stand := &cli.Standing{}
		stand.Next("removes them, once the rehearsal is over", "offline", "rehearsal", "clean")
		return io.ResultNext(map[string]any{"objects": texts, "removed": false}, list, stand)
	}
	if err := io.Confirm(list + "\nRemove them? The rehearsal can't be gone on with then."); err != nil {
		return err
	}
	if err := s.Ledger.Append(time.Now(), ceremony.EventCleaned, ceremony.Cleaned{Objects: texts}); err != nil {
		return err
	}
	ceremony.SignHead(io, s, token) // with the key that goes
	if err := token.Destroy(stored); err != nil {
		return err
	}
	token.Relist()
	if left, err := ofRehearsal(s, j, token); err != nil || len(left) > 0 {
		return cmp.Or(err, error(control.HSMLeftover.Refuse("the token keeps %v, though it says that it was removed", left)))
	}
	return afterRehearsal(io, texts, true, fmt.Sprintf("Removed: %s\nTo end the rehearsal, remove %s", strings.Join(texts, "\n         "), s.Dir))
}

// afterRehearsal prints the end of a rehearsal, after which the real ceremony begins.
func afterRehearsal(io *cli.IO, objects []string, removed bool, text string) error {
	io.Rehearsal = false // nor is what comes next
	stand := &cli.Standing{}
	stand.Next("the real ceremony", "offline", beginning...)
	return io.ResultNext(map[string]any{"objects": objects, "removed": removed}, text, stand)
}

// ofRehearsal finds what the rehearsal has stored: the journal's keys, and its own
// signing key. Of a half that does not show its public key, the other half speaks.
func ofRehearsal(s *state.State, j *ceremony.Journal, token *hsm.Token) (stored []hsm.Object, err error) {
	own, err := ceremony.OwnKey(s)
	if err != nil {
		return nil, err
	}
	all, err := token.Objects()
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		var want fingerprint.Fingerprint
		switch k := j.Key(o.Label); {
		case o.Class == pkcs11.CKO_SECRET_KEY:
			continue
		case k != nil && !k.Managed() && !k.Stored:
			want = k.Key
		case s.SignerElsewhere && o.Label == ceremony.SignerLabel:
			want = own.Fingerprint()
		default:
			continue
		}
		if shown, isShown := showsKey(token, o); isShown && shown != want {
			return nil, control.HSMExists.Refuse("the token has another key labelled %s now", control.Quote(o.Label))
		}
		stored = append(stored, o)
	}
	return stored, nil
}

// showsKey is the fingerprint of the public key that an object shows.
func showsKey(token *hsm.Token, o hsm.Object) (shown fingerprint.Fingerprint, isShown bool) {
	if public := signer.Public(token, o); public != nil {
		key, err := sshsig.NewPublicKey(public)
		return key.Fingerprint(), err == nil
	}
	public, err := token.PublicKey(o.Handle)
	if err != nil || public.N.Sign() == 0 || public.E == 0 {
		return shown, false
	}
	return fingerprint.OfKey(public), true
}
