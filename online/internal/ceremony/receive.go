// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/online/internal/blob"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
	"keyferry/pkg/trust"
)

// Received is a bundle from the stick that passed every check, and what this side
// knows of it.
type Received struct {
	*bundle.Verified
	Path     string           // where it was read
	Active   string           // the key of it to make active; empty: none, or not known yet
	World    *trust.World     // this side's
	Copy     ledger.Mark      // of the sender's ledger that came with it
	Approved []trust.Approver // who did, as the security world has them
}

// Receive reads a bundle of the offline side once, checks it, and runs f on it.
func Receive(io *cli.IO, s *state.State, j *Journal, path string, outOfOrder bool, f func(r *Received) error) error {
	whole, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	card, _, err := PinnedCard(s)
	if err != nil {
		return err
	}
	w, _, err := OwnWorld(s)
	if err != nil {
		return err
	}
	identity, err := s.AgeIdentity()
	if err != nil {
		return err
	}
	pins := bundle.Pins{
		Purpose: bundle.KeyTransfer, Receiver: w.Signer.Fingerprint(), SenderName: card.Name, Sender: card.Signer,
		Rehearsal: s.Rehearsal, Approvers: w.ApproverKeys(), Threshold: w.Threshold, Identity: identity, Taken: j.Taken(), OutOfOrder: outOfOrder,
	}
	return dispatch.Receive(s, path, pins, func(v *bundle.Verified) error {
		mark, err := readCopy(j, v)
		if err != nil {
			return err
		}
		if err := checkGUIDs(v.Index.Keys); err != nil {
			return err
		}
		if err := checkKEKs(j, v.Index.Keys); err != nil {
			return err
		}
		if err := checkClocks(io, s, j, v.Manifest); err != nil {
			return err
		}
		if !v.Again && v.Manifest.Sequence < j.LastAccepted() {
			io.Warn("bundle number %d comes after number %d, out of order", v.Manifest.Sequence, j.LastAccepted())
		}
		warnOfGap(io, j, v.Manifest.Sequence)
		return f(&Received{Verified: v, Path: whole, World: w, Copy: mark, Approved: w.Who(v.Approvals)})
	})
}

// readCopy reads the copy of the sender's ledger, and refuses one that does not
// go on where that of the bundle before ended (KF-BUNDLE-TRANSCRIPT).
func readCopy(j *Journal, v *bundle.Verified) (ledger.Mark, error) {
	data, err := v.File(bundle.TranscriptName)
	if err != nil {
		return ledger.Mark{}, err
	}
	l, err := ledger.ReadCopy(data)
	for _, a := range j.Bundles {
		if err == nil && a.Sequence < v.Manifest.Sequence {
			err = l.Covers(a.Copy)
		}
	}
	if err != nil {
		return ledger.Mark{}, control.BundleTranscript.Refuse("the sender's ledger: %w", err)
	}
	return l.Mark(), nil
}

// checkGUIDs refuses two keys with one GUID: the tenant would take the first, and
// an upload would stop at the second.
func checkGUIDs(keys []bundle.Key) error {
	seen := map[string]string{} // GUID → key identifier
	for _, k := range keys {
		if first, ok := seen[k.SLC]; ok {
			return control.TPDGUIDUnique.Refuse("the bundle's keys %s and %s have one GUID, %s", first, k.ID, control.Quote(k.SLC))
		}
		seen[k.SLC] = k.ID
	}
	return nil
}

// checkKEKs refuses a key that was wrapped for another KEK than the one that this side
// packaged under that identifier.
func checkKEKs(j *Journal, keys []bundle.Key) error {
	for _, k := range keys {
		for _, packaged := range j.KEKs {
			if packaged.KID == k.KID && packaged.KEK != *k.KEK {
				return control.VaultKEKMismatch.Refuse("the key %s was wrapped for a KEK with the fingerprint %s; under its identifier %s this side packaged the KEK %s", k.ID, k.KEK, k.KID, packaged.KEK)
			}
		}
	}
	return nil
}

// checkClocks refuses a bundle that was sealed after now, or before the KEK's package was
// made, by what the clocks said.
func checkClocks(io *cli.IO, s *state.State, j *Journal, m bundle.Manifest) error {
	if err := io.CheckClock(s, m.Created, "the bundle was sealed"); err != nil {
		return err
	}
	for _, packaged := range j.KEKs {
		of := func(k bundle.ManifestKey) bool { return k.KEK != nil && *k.KEK == packaged.KEK }
		if slices.ContainsFunc(m.Keys, of) {
			return io.CheckOrder(s, packaged.at, "the KEK package was made", m.Created, "the bundle was sealed, by the other machine's clock,")
		}
	}
	return nil
}

// maxGap bounds how many bundles are named.
const maxGap = 5

// warnOfGap says which bundles will be out of order once the one of that number is
// uploaded.
func warnOfGap(io *cli.IO, j *Journal, sequence uint64) {
	for n := j.LastAccepted() + 1; n < sequence; n++ {
		if n == j.LastAccepted()+maxGap {
			io.Warn("nor were others before this one")
			return
		}
		io.Warn("bundle number %d was not uploaded here: once this one is, it needs --out-of-order [%s]", n, control.BundleReplay.ID)
	}
}

// Acceptance is what the ledger says of a bundle once its upload begins.
func (r *Received) Acceptance() *Accepted {
	a := &Accepted{
		Bundle: r.Manifest.ID, Sequence: r.Manifest.Sequence, Manifest: r.Digest, Previous: r.Manifest.Previous,
		OutOfOrder: r.OutOfOrder, Copy: r.Copy, Approved: r.Approved, Keys: []string{}, Path: r.Path, Active: r.Active,
	}
	for _, k := range r.Index.Keys {
		a.Keys = append(a.Keys, k.ID)
	}
	return a
}

// Transfer is what the import of one key needs.
type Transfer struct {
	Key        bundle.Key
	Public     *rsa.PublicKey          // of the key that travels; nil where the TPD alone can tell
	Ciphertext fingerprint.Fingerprint // of the wrapped key in the .byok; zero for a Microsoft-managed key
	BYOK       []byte                  // the .byok file; nil for a Microsoft-managed key
	TPD        []byte                  // the keyless TPD, or that of a Microsoft-managed key, which holds it
	TPDFile    string                  // its name
	OneTime    []byte                  // the TPD's password, if it is not the export's
	Foreign    *Foreign                // where no bundle says which key this is
}

// generatorOf names in a transfer blob what made it: tool and version, then the HSM that
// the key comes from, by the record that travels with it. It is for people; nothing
// depends on it.
func generatorOf(record []byte) (string, error) {
	var made struct {
		Tool  string `json:"tool"`
		Token struct {
			Manufacturer string `json:"manufacturer"`
			Model        string `json:"model"`
			Firmware     string `json:"firmware"`
		} `json:"token"`
	}
	if err := json.Unmarshal(record, &made); err != nil {
		return "", control.BundleContents.Refuse("the record of a key can't be read: %w", err)
	}
	text := fmt.Sprintf("%s; source HSM: %s %s, firmware %s", made.Tool, made.Token.Manufacturer, made.Token.Model, made.Token.Firmware)
	return control.Plain(text[:min(len(text), 400)]), nil
}

// Transfers takes the keys out of the bundle.
func (r *Received) Transfers() ([]*Transfer, error) {
	var transfers []*Transfer
	for _, k := range r.Index.Keys {
		file := func(name string) ([]byte, error) { return r.File(bundle.KeyPath(k.ID, name)) }
		t := &Transfer{Key: k, TPDFile: tpdName(k)}
		var err error
		if t.Public, err = k.RSA(); err != nil {
			return nil, err
		}
		if t.TPD, err = file(t.TPDFile); err != nil {
			return nil, err
		}
		if hasOneTime(k) {
			if t.OneTime, err = file(bundle.OneTimeName); err != nil {
				return nil, err
			}
		}
		if !k.MicrosoftManaged() {
			ciphertext, err := file(bundle.WrappedName)
			if err != nil {
				return nil, err
			}
			record, err := file(bundle.RecordName)
			if err != nil {
				return nil, err
			}
			generator, err := generatorOf(record)
			if err != nil {
				return nil, err
			}
			t.Ciphertext = fingerprint.Of(ciphertext)
			if t.BYOK, err = blob.Marshal(k.KID, ciphertext, generator); err != nil {
				return nil, err
			}
		}
		transfers = append(transfers, t)
	}
	return transfers, nil
}

// tpdName says by its name whether the TPD holds the key.
func tpdName(k bundle.Key) string {
	if k.MicrosoftManaged() {
		return bundle.WithKeyName(k.ID)
	}
	return bundle.KeylessName(k.ID)
}

func byokName(id string) string { return "KeyTransferPackage-" + id + ".byok" }

// hasOneTime reports whether the keyless TPD of a key brings its own password.
func hasOneTime(k bundle.Key) bool {
	return slices.ContainsFunc(k.Files, func(f bundle.File) bool { return f.Path == bundle.KeyPath(k.ID, bundle.OneTimeName) })
}

// open makes every check of the TPD that is to go into the tenant.
func (t *Transfer) open(password []byte) (tpd.Identity, error) {
	export, err := tpd.Parse(t.TPD)
	if err != nil {
		return tpd.Identity{}, filetype.Explain(err, t.TPD, filetype.Keyless)
	}
	domain, err := export.Decrypt(password)
	if err != nil {
		return tpd.Identity{}, err
	}
	defer domain.Clear()
	terms := tpd.Terms{Now: time.Now()}
	if slices.Contains(t.Key.Warnings, control.TPDTemplate.ID) || slices.Contains(t.Key.Warnings, control.TPDTemplateSignature.ID) {
		terms.AcceptTemplates = []string{tpd.AnyTemplate} // the disconnected side accepted them, and signed that
	}
	if t.Key.MicrosoftManaged() {
		checked, err := domain.CheckedMicrosoftManaged(terms)
		if err != nil {
			return tpd.Identity{}, err
		}
		return checked.Identity, nil
	}
	checked, err := domain.CheckedKeyless(terms)
	if err != nil {
		return tpd.Identity{}, err
	}
	return checked.Identity, nil
}
