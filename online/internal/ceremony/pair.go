// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"path/filepath"
	"strings"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
)

// Foreign is what is known of a .byok and a TPD that were given by hand.
type Foreign struct {
	BYOKFile, TPDFile string
	Key               fingerprint.Fingerprint // of the public key in the .byok, where the ledger knows the file; else zero
	KeyID             string                  // whose that is
}

// ReadPair reads a .byok and a TPD, which were given by hand, and finds out which key
// they are of: by their digests where `online package` wrote them here, else by
// their names, unless id says it. Two files that are known not to be of one key are
// refused (KF-RMS-KEY-MISMATCH). The bundle that they came in is nil if it is not
// known.
func ReadPair(io *cli.IO, j *Journal, byokFile, tpdFile, id string) (*Transfer, *Accepted, error) {
	t := &Transfer{TPDFile: filepath.Base(tpdFile), Foreign: &Foreign{BYOKFile: filepath.Base(byokFile), TPDFile: filepath.Base(tpdFile)}}
	var err error
	if t.BYOK, err = cli.ReadInput(byokFile); err != nil {
		return nil, nil, err
	}
	if t.Ciphertext, err = ciphertextOf(t.BYOK); err != nil {
		return nil, nil, filetype.Explain(err, t.BYOK, filetype.Blob)
	}
	if t.TPD, err = cli.ReadInput(tpdFile); err != nil {
		return nil, nil, err
	}

	// What the ledger knows of the .byok.
	wrappedBy, kek := "unknown", (*fingerprint.Fingerprint)(nil)
	wrapped, from := j.Packaged(func(k PackagedKey) bool { return k.Ciphertext == t.Ciphertext })
	known := ""
	switch {
	case wrapped != nil:
		known, t.Foreign.Key, wrappedBy, kek = wrapped.ID, wrapped.Key, wrapped.WrappedBy, wrapped.KEK
	default:
		if made := j.Made(t.Ciphertext); made != nil {
			known, t.Foreign.Key, wrappedBy, kek = made.ID, made.Arrived.Key, made.WrappedBy, made.KEK
		}
		for _, stray := range j.Strays {
			if stray.Ciphertext == t.Ciphertext {
				t.Foreign.Key = stray.Key
			}
		}
	}
	t.Foreign.KeyID = known
	tpdDigest := fingerprint.Of(t.TPD)
	tpd, _ := j.Packaged(func(k PackagedKey) bool { return k.TPD == tpdDigest })

	// And what the names say.
	byokID, byokNamed := between(t.Foreign.BYOKFile, "KeyTransferPackage-", ".byok")
	tpdID, tpdNamed := between(t.TPDFile, "no_key_tpd_", ".xml")
	if tpd != nil {
		tpdID, tpdNamed = tpd.ID, true
	}
	switch {
	case known != "" && tpd != nil && tpd.Key != t.Foreign.Key:
		return nil, nil, t.notOfOneKey(known, tpdID)
	case known == "" && byokNamed && tpdNamed && byokID != tpdID && id == "":
		return nil, nil, t.notOfOneKey(byokID, tpdID)
	case known != "":
		if id != "" && id != known {
			return nil, nil, control.CommandLine.Refuse("--key-identifier is %s, and %s is of the key %s, as the ledger has it", control.Quote(id), control.Plain(t.Foreign.BYOKFile), known).
				WithHint("leave --key-identifier out: the file is known by its digest, whatever its name is")
		}
		id = known
		if byokID != known {
			io.Note("%s was renamed: by its digest it is of the key %s", control.Plain(t.Foreign.BYOKFile), known)
		}
	case id != "":
	case byokNamed:
		id = byokID
	case tpdNamed:
		id = tpdID
		io.Note("%s has a name of its own: the key identifier %s is taken from %s; --key-identifier names another", control.Plain(t.Foreign.BYOKFile), id, control.Plain(t.TPDFile))
	default:
		id = byokID
		io.Note("the key identifier is taken from the name of the file: %s; --key-identifier names another", control.Plain(id))
	}
	if err := keyid.Check("key identifier", id); err != nil {
		if r, ok := err.(*control.Refusal); ok {
			err = r.WithHint("name the key with --key-identifier ID: the file is not called KeyTransferPackage-<id>.byok")
		}
		return nil, nil, err
	}
	t.Key = bundle.Key{ID: id, KEK: kek, WrappedBy: wrappedBy, Disposition: bundle.DispositionHSM}
	if from != nil && !j.IsAccepted(from.Manifest) {
		warnOfGap(io, j, from.Sequence)
	}
	return t, from, nil
}

// between is the middle of a name, where it has that head and end; else the name
// without what it has of them.
func between(name, head, end string) (middle string, has bool) {
	short := strings.TrimSuffix(strings.TrimPrefix(name, head), end)
	return short, len(name) == len(head)+len(short)+len(end) && short != ""
}

// notOfOneKey refuses a pair of which the .byok is of one key and the TPD of
// another; an identifier that is not known is empty.
func (t *Transfer) notOfOneKey(byokID, tpdID string) *control.Refusal {
	of := func(id string) string {
		if id == "" {
			return "another key"
		}
		return "the key " + id
	}
	r := control.RMSKeyMismatch.Refuse("these two files are not of one key: %s is of %s, %s is of %s",
		control.Plain(t.Foreign.BYOKFile), of(byokID), control.Plain(t.TPDFile), of(tpdID))
	if tpdID != "" {
		return r.WithHint("each TPD goes with a .byok of its own, also in the second example of Microsoft's guide, which prints one .byok for two TPDs: give %s with %s",
			byokName(tpdID), control.Plain(t.TPDFile))
	}
	return r.WithHint("each TPD goes with a .byok of its own, also in the second example of Microsoft's guide, which prints one .byok for two TPDs: give the .byok that was made from this TPD's key")
}
