// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyferry/bundle"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	"keyferry/pkg/keyid"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
)

// UploadRequest says which keys go into the vault and the tenant, and how.
type UploadRequest struct {
	Transfers []*Transfer
	Accept    *Accepted // of their bundle, to be recorded first; nil where none is known

	Active           string            // identifier of the key to make active; empty: all stay archived
	UnsafeActive1024 bool              // it may have 1024 bits
	VaultNames       map[string]string // by key identifier; default: that
	FriendlyNames    map[string]string // by key identifier; default: the cluster's name
	KeyExpires       time.Time         // of each key in the vault, where a policy demands it; zero: never
	KeyTags          map[string]string // of each key in the vault, likewise
	Way              Way
	Out              string // of the kit, a new folder; empty: in the state directory
	DryRun           bool

	// Passwords returns a password for each TPD that brings none, by the TPDs' file
	// names. It checks each one at once.
	Passwords func(files []string, check func(i int, password []byte) error) ([][]byte, error)
	// Connect runs f with the vault and, unless the way is the kit, the tenant.
	Connect func(f func(Cloud) error) error
	// Again is the command, to be run with --result once a kit's result is here.
	Again Again
}

// Again is a command that is run again: its name, and its flags and files; an
// argument has no flag.
type Again struct {
	Command string
	Files   []FileFlag
}

// FileFlag is a flag whose value is a file.
type FileFlag struct{ Flag, Path string }

// words are those of the command line. They hold from any directory if whole.
func (a Again) words(whole bool) ([]string, error) {
	words := []string{a.Command}
	for _, f := range a.Files {
		path := f.Path
		if whole {
			var err error
			if path, err = filepath.Abs(path); err != nil {
				return nil, err
			}
		}
		if f.Flag != "" {
			words = append(words, f.Flag)
		}
		words = append(words, path)
	}
	return words, nil
}

// UploadResult says what was done.
type UploadResult struct {
	Plan    []string
	Changed bool             // something was imported, activated or recorded
	Keys    []bundle.Arrived // none after a dry run
	First   bool             // no TPD was in the tenant before
}

// step is one key's way into the vault and the tenant.
type step struct {
	*Transfer
	password     []byte
	friendlyName string
	licensing    []string // URLs of the AD RMS cluster
	vaultName    string
	named        bool        // by the operator
	url          string      // of the key, once it is in the vault
	there        *tenant.Key // as the tenant listed it last, nil if it did not
	imported     bool        // into the tenant, by this run
	refusal      error       // the vault's or the tenant's, before anything is changed
}

// Upload brings keys into the vault and their TPDs into the tenant, and makes one
// key active. What is there already it leaves as it is, so that a run that was
// stopped anywhere is taken up by the same command.
func Upload(ctx context.Context, io *cli.IO, s *state.State, j *Journal, r UploadRequest) (*UploadResult, error) {
	u := &upload{io: io, state: s, journal: j, request: r, before: len(s.Ledger.Entries())}
	defer u.clearPasswords()

	// All that can be known without the cloud: names, passwords, and that each TPD is
	// of the key that travels.
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	if err := u.openTPDs(); err != nil {
		return nil, err
	}
	if err := durable.CheckRoom(s.Dir, u.room()); err != nil {
		return nil, err
	}

	result := &UploadResult{}
	err := r.Connect(func(c Cloud) error {
		u.cloud = c

		// What is done already, or would be refused. Nothing is changed.
		problems := u.askVault(ctx)
		if c.Tenant != nil {
			problems = errors.Join(problems, u.askTenant(ctx))
		} else if _, _, err := u.kit(); err != nil {
			problems = errors.Join(problems, err)
		}
		result.First = !slices.ContainsFunc(j.Keys, func(k *Key) bool { return k.Tenant != "" }) && !slices.ContainsFunc(u.steps, func(s *step) bool { return s.there != nil })
		result.Plan = u.plan()
		u.showPlan(result)
		switch {
		case r.DryRun:
			return problems
		case problems != nil:
			return errors.Join(problems, u.bookForeseen())
		}
		if c.Azure != "" {
			if err := io.Confirm("Carry this plan out?"); err != nil {
				return err
			}
		}

		// The vault.
		if err := u.accept(); err != nil {
			return err
		}
		for i, step := range u.steps {
			io.Progress("importing keys into the vault", i, len(u.steps))
			if step.Key.MicrosoftManaged() {
				continue
			}
			if err := u.importKey(ctx, step); err != nil {
				return u.book(step, err)
			}
		}
		io.Progress("", len(u.steps), len(u.steps))

		// The tenant, by a person or from here.
		if c.Tenant == nil {
			return u.handOver()
		}

		return u.enterTenant(ctx)
	})
	if err != nil {
		return nil, err
	}
	if !r.DryRun {
		for _, step := range u.steps {
			result.Keys = append(result.Keys, j.Key(step.Key.ID).Arrived)
		}
	}
	result.Changed = len(s.Ledger.Entries()) > u.before
	return result, nil
}

// upload is what the parts of one [Upload] share.
type upload struct {
	io      *cli.IO
	state   *state.State
	journal *Journal
	request UploadRequest
	before  int // records in the ledger
	steps   []*step
	active  *step // nil: all stay archived
	cloud   Cloud
}

func (u *upload) clearPasswords() {
	for _, s := range u.steps {
		clear(s.password)
	}
}

// room is what the ledger and a practice cloud take, in bytes, with some to spare.
func (u *upload) room() uint64 {
	bytes := uint64(Room)
	for _, s := range u.steps {
		bytes += Room + uint64(len(s.BYOK)+len(s.TPD))
	}
	return bytes
}

// Room is what a record of the ledger and a practice key take, in bytes, with much to
// spare.
const Room = 64 << 10

// openTPDs makes a step of each key: it opens the TPD, as the tenant will, and
// checks that it is of the key that travels.
func (u *upload) openTPDs() error {
	var asked []*Transfer
	var files []string
	for _, t := range u.request.Transfers {
		if t.OneTime == nil {
			asked, files = append(asked, t), append(files, t.TPDFile)
		}
	}
	opened := map[*Transfer]tpd.Identity{}
	open := func(t *Transfer, password []byte) (err error) {
		opened[t], err = t.open(password)
		return err
	}
	given, err := u.request.Passwords(files, func(i int, password []byte) error { return open(asked[i], password) })
	if err != nil {
		return err
	}
	var problems []error
	for _, t := range u.request.Transfers {
		s := &step{Transfer: t, password: t.OneTime, vaultName: t.Key.ID}
		u.steps = append(u.steps, s)
		var err error
		if t.OneTime != nil {
			err = open(t, t.OneTime)
		} else {
			s.password, given = given[0], given[1:]
		}
		if err == nil {
			err = u.checkIdentity(t, opened[t])
		}
		if err != nil {
			problems = append(problems, control.About(t.Key.ID, err))
			continue
		}
		report := inspect.NewReport(opened[t].Result())
		s.friendlyName, s.licensing = report.SLC.ServerName, report.LicensingURLs
		if name, ok := u.request.VaultNames[t.Key.ID]; ok {
			s.vaultName, s.named = name, true
		}
		if t.Key.ID == u.request.Active {
			u.active = s
		}
	}
	u.nameApart()
	return errors.Join(problems...)
}

// checkIdentity holds the TPD's certificate against the key that travels. Of files
// that came without a bundle it is what says which key they are of.
func (u *upload) checkIdentity(t *Transfer, found tpd.Identity) error {
	guid, public := found.GUID(), found.Public()
	if t.Foreign == nil {
		if !public.Equal(t.Public) || guid != t.Key.SLC {
			return control.RMSKeyMismatch.Refuse("the TPD is of the key %s, the bundle's index says %s", guid, control.Quote(t.Key.SLC))
		}
		return nil
	}
	print := fingerprint.OfKey(public)
	if t.Foreign.Key != (fingerprint.Fingerprint{}) && t.Foreign.Key != print {
		return t.notOfOneKey(t.Foreign.KeyID, u.journal.idOf(print))
	}
	if known := u.journal.Key(t.Key.ID); known != nil && known.Arrived.Key != print {
		return control.RMSKeyMismatch.Refuse("this ceremony knows another key under the identifier %s: %s is not of it, and then %s may not be of one key with it", t.Key.ID, control.Plain(t.TPDFile), control.Plain(t.Foreign.BYOKFile)).
			WithHint("give the .byok that was made from this TPD's key; if this is it, give the key an identifier of its own with --key-identifier")
	}
	t.Public, t.Key.SLC = public, guid
	return nil
}

// idOf is the identifier under which the ledger knows a public key; empty: under
// none.
func (j *Journal) idOf(key fingerprint.Fingerprint) string {
	if k := j.find(func(k *Key) bool { return k.Arrived.Key == key }); k != nil {
		return k.ID
	}
	if k, _ := j.Packaged(func(k PackagedKey) bool { return k.Key == key }); k != nil {
		return k.ID
	}
	return ""
}

// nameApart gives each key its name in the tenant: the operator's, or else the
// cluster's, which Office 2013 and 2016 need. Of several keys of one cluster the one
// to be made active, or else the first, has the plain name.
func (u *upload) nameApart() {
	plain := map[string]*step{}
	for _, s := range u.steps {
		if plain[s.friendlyName] == nil || s == u.active {
			plain[s.friendlyName] = s
		}
	}
	for _, s := range u.steps {
		if name, ok := u.request.FriendlyNames[s.Key.ID]; ok {
			s.friendlyName = name
		} else if plain[s.friendlyName] != s {
			s.friendlyName += " (" + s.Key.ID + ")"
		}
	}
}

// checkNames refuses key identifiers that are not there, names that the vault or the
// tenant would not take, and a weak key as the active one.
func (r *UploadRequest) checkNames() error {
	key := func(id string) *bundle.Key {
		if i := slices.IndexFunc(r.Transfers, func(t *Transfer) bool { return t.Key.ID == id }); i >= 0 {
			return &r.Transfers[i].Key
		}
		return nil
	}
	if r.Active != "" {
		switch k := key(r.Active); {
		case k == nil:
			return control.CommandLine.Refuse("--active: the bundle holds no key %s", control.Quote(r.Active))
		case k.MicrosoftManaged() && !r.UnsafeActive1024:
			return refuseActive1024(r, k.ID)
		}
	}
	for id, name := range r.VaultNames {
		if k := key(id); k == nil || k.MicrosoftManaged() {
			return control.CommandLine.Refuse("--vault-key-name: the bundle holds no key %s for the vault", control.Quote(id))
		}
		if err := keyid.Check("vault key name", name); err != nil {
			return err
		}
	}
	for id, name := range r.FriendlyNames {
		if key(id) == nil {
			return control.CommandLine.Refuse("--friendly-name: the bundle holds no key %s", control.Quote(id))
		}
		if err := checkFriendlyName(name); err != nil {
			return err
		}
	}
	used := map[string]bool{}
	for _, t := range r.Transfers {
		name := cmp.Or(r.VaultNames[t.Key.ID], t.Key.ID)
		if used[name] && !t.Key.MicrosoftManaged() {
			return control.CommandLine.Refuse("two keys of the bundle would get the name %s in the vault", name)
		}
		used[name] = used[name] || !t.Key.MicrosoftManaged()
	}
	return nil
}

// checkFriendlyName refuses what no tenant takes as a name.
func checkFriendlyName(name string) error {
	if name == "" || len(name) > 256 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return control.CommandLine.Refuse("--friendly-name: %s is empty, too long, or has control characters", control.Quote(name))
	}
	return nil
}

// refuseActive1024 says what else there is to make active.
func refuseActive1024(r *UploadRequest, id string) error {
	refusal := control.RMSActive1024.Refuse("the key %s has 1024 bits: as the active key it would protect all new content", id)
	if slices.ContainsFunc(r.Transfers, func(t *Transfer) bool { return !t.Key.MicrosoftManaged() }) {
		return refusal
	}
	return refusal.WithHint("no other key is here to make active. A cluster that has keys of 1024 bits only (mode 1) either moves to mode 2 first and brings the new key, " +
		"or follows Microsoft's guide: this key is made active with --unsafe-activate-1024, and the tenant is rekeyed after the migration, with a new key of 2048 bits (Set-AipServiceKeyProperties on a key made for it)")
}

// plan lists what will be done.
func (u *upload) plan() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, s := range u.steps {
		switch {
		case s.Key.MicrosoftManaged():
		case s.url != "":
			add("%s is in the vault already, by this ceremony, as %s", s.Key.ID, s.vaultName)
		default:
			add("import %s into the vault as %s", s.Key.ID, s.vaultName)
		}
	}
	if grants := u.grants(); !u.state.Rehearsal && grants != "" {
		add("let Azure RMS get, decrypt and sign with the keys, if it may not yet, which cannot be seen from here:\n%s", grants)
	}
	if expires := u.request.KeyExpires; !expires.IsZero() {
		add("the keys get an expiry: from %s on Azure RMS cannot use them, unless it is put off before that day", expires.UTC().Format(time.RFC3339))
	}
	if u.request.Way == ByKit {
		add("write the hand-over kit, and stop: a person takes the following steps on a Windows machine and brings the result back")
	}
	for _, s := range u.steps {
		how := "with the key's URL"
		if s.Key.MicrosoftManaged() {
			how = "key included, to be Microsoft-managed"
		}
		add("import the TPD of %s (SLC %s) into the tenant as %s, %s", s.Key.ID, s.Key.SLC, shown(s.friendlyName), how)
	}
	if u.active != nil {
		add("make %s active", u.active.Key.ID)
	}
	if u.request.Way == ByPowerShell {
		add("sign out of Azure RMS")
	}
	return lines
}

// shown is a friendly name as people compare it.
func shown(name string) string { return `"` + control.Plain(name) + `"` }

// showPlan shows the plan and what can't be undone of it.
func (u *upload) showPlan(r *UploadResult) {
	for _, line := range r.Plan {
		u.io.Note("plan: %s", line)
	}
	for _, s := range u.steps {
		if s.there != nil && s.refusal == nil {
			u.io.Note("the TPD of %s is in the tenant already, %s", s.Key.ID, strings.ToLower(string(s.there.Status)))
		}
	}
	for _, s := range u.steps {
		if !s.Key.MicrosoftManaged() {
			continue
		}
		u.io.Warn("the key %s has 1024 bits and goes into no vault: this side and Microsoft see it [%s]", s.Key.ID, control.TPDMode1.ID)
		if s == u.active {
			u.io.Warn("the key %s has 1024 bits and, as the active key, will protect all new content; this is recorded [%s]", s.Key.ID, control.RMSActive1024.ID)
		}
	}
	if r.First {
		u.io.Warn("this can't be undone: an AD RMS TPD goes into one tenant only, ever. Make sure that this is the tenant, and not one to try things out in")
	}
}

// accept records that the upload of the bundle began, once.
func (u *upload) accept() error {
	a := u.request.Accept
	if a == nil || u.journal.IsAccepted(a.Manifest) {
		return nil
	}
	begun := *a
	begun.Active = u.request.Active
	return u.journal.Record(EventAccepted, begun)
}

func (u *upload) manifest() fingerprint.Fingerprint {
	if u.request.Accept == nil {
		return fingerprint.Fingerprint{}
	}
	return u.request.Accept.Manifest
}

// bookForeseen records which keys of a bundle were refused before anything was
// changed, so that a receipt can say so. What only stopped the run, no rights or no
// network, is no answer to the other side: the same command goes on. Nor is a
// bundle answered that has others before it, which could not be uploaded any more
// then.
func (u *upload) bookForeseen() error {
	a := u.request.Accept
	if a == nil || !u.journal.IsAccepted(a.Manifest) && a.Sequence > u.journal.LastAccepted()+1 {
		return nil
	}
	for _, step := range u.steps {
		if step.refusal == nil || cli.Refusals(step.refusal)[0].Control.Class != control.Refused || u.isDone(step) {
			continue
		}
		if err := u.accept(); err != nil {
			return err
		}
		if err := u.record(step, step.refusal); err != nil {
			return err
		}
	}
	return nil
}

// book records why a key did not arrive, with the error that stopped the run.
func (u *upload) book(step *step, err error) error {
	if u.isDone(step) || step.isStray(u.journal) {
		return err
	}
	return errors.Join(err, u.record(step, err))
}

// isDone reports whether a key is where it should be: no later run makes that
// undone.
func (u *upload) isDone(step *step) bool {
	known := u.known(step)
	return known != nil && known.Tenant != ""
}

func (s *step) isStray(j *Journal) bool {
	return slices.ContainsFunc(j.Strays, func(stray KeyStray) bool { return stray.Ciphertext == s.Ciphertext })
}

// record records a refusal, unless it is the one that is known.
func (u *upload) record(step *step, err error) error {
	r := cli.Refusals(err)[0]
	reason := r.Control.ID + ": " + control.Plain(r.Message)
	if u.journal.Refused[step.Key.ID] == reason {
		return nil
	}
	return u.journal.Record(EventKeyRefused, KeyRefused{step.Key.ID, reason})
}
