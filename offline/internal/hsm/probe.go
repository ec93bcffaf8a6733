// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"fmt"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

// Report is what a token says of itself, and what it was shown to do.
type Report struct {
	Library    Library     `json:"module"`
	Token      Slot        `json:"token"`
	Mechanisms []Mechanism `json:"mechanisms"` // as it says
	Imports    []Verdict   `json:"imports"`    // in the order in which Import prefers them
	Wraps      []Verdict   `json:"wraps"`      // in the order in which ProveWrap prefers them
	Uses       []Verdict   `json:"uses"`       // of an imported key, and random numbers
	NoSigner   string      `json:"no_signer"`  // why bundles can't be signed in the token
	Keeps      bool        `json:"keeps"`      // it keeps all it is given: it has no session objects
	Unproven   []string    `json:"unproven"`   // what was not tried, since it would store something
}

// Library is what a PKCS#11 module says of itself.
type Library struct {
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`
	Cryptoki     string `json:"cryptoki"` // version of the standard
}

// Mechanism is one that the token lists. A token may list what it rejects, and
// do what it does not list.
type Mechanism struct {
	ID     string   `json:"id"`      // as 0x0000210A
	Name   string   `json:"name"`    // of those that Keyferry can use
	MinKey uint     `json:"min_key"` // in the mechanism's own unit, mostly bits
	MaxKey uint     `json:"max_key"`
	For    []string `json:"for"`
	Fault  string   `json:"fault"` // why the token does not describe what it lists
}

// Probe shows what the token can do, on throw-away session keys: every import
// way, every wrap mechanism, the uses of a key, a copy that is named, the signing
// key. It is the proof that Import, ProveWrap and Keep make, to the end. Nothing is
// stored, but by leave on a token that keeps all it is given: one throw-away key,
// and another for the signer, each removed again. What the token can't do is a
// verdict, not an error.
func (t *Token) Probe(mayStore bool) (report *Report, err error) {
	report = &Report{Token: t.found.Slot, Unproven: []string{}}
	info, err := t.ck.GetInfo()
	if err != nil {
		return nil, failed("describe its module", err)
	}
	report.Library = Library{info.ManufacturerID, info.LibraryDescription, version(info.LibraryVersion), version(info.CryptokiVersion)}
	if report.Mechanisms, err = t.mechanisms(); err != nil {
		return nil, err
	}
	if report.Keeps, err = t.Keeps(); err != nil {
		return nil, err
	}
	switch {
	case report.Keeps && mayStore:
		err = t.probeStored(report)
	case report.Keeps:
		t.probeUnasked(report)
	default:
		err = t.probeSession(report)
	}
	if err != nil {
		return nil, err
	}
	signerStored := report.Keeps
	if !signerStored {
		err = t.trySigner(false)
		signerStored = declines(err) // it makes no pair for a session
	}
	if signerStored && mayStore {
		err = t.trySigner(true)
	}
	switch {
	case control.Is(err, control.HSMLeftover), control.Is(err, control.Interrupted):
		return nil, err
	case signerStored && !mayStore:
		report.Unproven = append(report.Unproven, "that the signing key can be made in the token and signs")
	case err != nil:
		report.NoSigner = err.Error()
	}
	report.Uses = append(report.Uses, t.random())
	return report, t.CheckUnchanged()
}

const (
	notAsked = "not tried: the token keeps all it is given"
	noKey    = "no key came in to try it on"
)

// without fills in that no wrap and no use was tried.
func (r *Report) without(result Result, reason string) {
	for _, m := range wrapMechanisms {
		r.Wraps = append(r.Wraps, Verdict{m.name, m.number(), result, reason})
	}
	for _, u := range uses {
		r.Uses = append(r.Uses, Verdict{Mechanism: u.name, Result: result, Reason: reason})
	}
	r.Uses = append(r.Uses, Verdict{Mechanism: keepUse, Result: result, Reason: reason})
}

// probeUnasked fills in what can be said of a token that keeps all it is given
// without storing anything.
func (t *Token) probeUnasked(report *Report) {
	report.Imports = []Verdict{{Mechanism: storedWay, Result: Unproven, Reason: notAsked}}
	// A call that can make nothing: without C_CreateObject no key comes in.
	err := t.makeNothing()
	if is(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		report.Imports[0].Result, report.Imports[0].Reason = None, err.Error()
	}
	report.without(Unproven, notAsked)
	report.Unproven = []string{
		"that a private key comes in, is named, is protected, signs and decrypts, and can be removed again",
	}
	if is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) {
		report.Unproven = append(report.Unproven, "that the secret of its administrator, which it wants for making and destroying keys, is right (--hsm-so-pin-file)")
	}
}

// probeStored proves what probeUnasked leaves open, on a key that is stored for it.
func (t *Token) probeStored(report *Report) error {
	verdict, err := t.TryStore()
	if control.Is(err, control.HSMLeftover) || control.Is(err, control.Interrupted) || control.Is(err, control.HSMPIN) || is(err, pkcs11.CKR_USER_NOT_LOGGED_IN) {
		return err
	}
	report.Imports = []Verdict{verdict}
	if verdict.Result != Exact {
		report.without(None, noKey)
		return nil
	}
	for _, m := range wrapMechanisms {
		report.Wraps = append(report.Wraps, Verdict{m.name, m.number(), None, nothingLeaves})
	}
	for _, u := range uses { // Store has proven them
		report.Uses = append(report.Uses, Verdict{Mechanism: u.name, Result: Exact})
	}
	report.Uses = append(report.Uses, Verdict{Mechanism: keepUse, Result: Exact})
	return nil
}

// probeSession proves everything on session objects.
func (t *Token) probeSession(report *Report) (err error) {
	for i := range importWays {
		if _, err := t.proveWay(i); err != nil {
			return err
		}
	}
	report.Imports = append(report.Imports, t.ways...) // Import forgets them if all fail
	session, err := t.Import(t.trial.key)
	if control.Is(err, control.HSMImport) {
		report.without(None, noKey)
		return nil
	}
	if err != nil {
		return err
	}
	defer t.destroy(session.handle, &err)
	_, report.Wraps = t.tryWraps(session.handle)
	for _, u := range uses {
		v := Verdict{Mechanism: u.name, Result: Exact}
		if err := u.try(t, session.handle, &t.trial.key.PublicKey); err != nil {
			v.Result, v.Reason = None, err.Error()
		}
		report.Uses = append(report.Uses, v)
	}
	v := Verdict{Mechanism: keepUse, Result: Exact}
	if err := (&ProvenKey{token: t, handle: session.handle, public: &t.trial.key.PublicKey, session: session}).RehearseKeep(false); err != nil {
		v.Result, v.Reason = None, err.Error()
	}
	report.Uses = append(report.Uses, v)
	return nil
}

// keepUse is what Keep does.
const keepUse = "storing: copy, name, public half, removal"

// Storable reports why a key that comes in can't be stored; empty if it can.
func (r *Report) Storable() string {
	for _, v := range r.Uses {
		if v.Mechanism == keepUse && v.Result == None && v.Reason != noKey {
			return v.Reason
		}
	}
	return ""
}

// uses of a key that Azure RMS and the proof of possession make.
var uses = []struct {
	name string
	try  func(*Token, pkcs11.ObjectHandle, *rsa.PublicKey) error
}{
	{"C_Sign, PKCS#1 v1.5 with SHA-256", (*Token).signs},
	{"C_Decrypt, OAEP with SHA-1", (*Token).decrypts},
}

// random draws random numbers twice.
func (t *Token) random() Verdict {
	v := Verdict{Mechanism: "C_GenerateRandom", Result: Exact}
	var draws [2][]byte
	for i := range draws {
		var err error
		if draws[i], err = t.ck.GenerateRandom(t.session, 32); err != nil {
			v.Result, v.Reason = None, err.Error()
			return v
		}
	}
	if len(draws[0]) != 32 || bytes.Equal(draws[0], draws[1]) {
		v.Result, v.Reason = Flawed, fmt.Sprintf("two draws of 32 bytes gave %d bytes, the same ones: %t", len(draws[0]), bytes.Equal(draws[0], draws[1]))
	}
	return v
}

// mechanismNames are those that Keyferry uses, or that a PKCS#11 reader looks for.
var mechanismNames = map[uint]string{
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: "CKM_RSA_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_PKCS:              "CKM_RSA_PKCS",
	pkcs11.CKM_SHA256_RSA_PKCS:       "CKM_SHA256_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_OAEP:         "CKM_RSA_PKCS_OAEP",
	pkcs11.CKM_EC_KEY_PAIR_GEN:       "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                 "CKM_ECDSA",
	pkcs11.CKM_AES_KEY_GEN:           "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_KEY_WRAP:          "CKM_AES_KEY_WRAP",
	aesCBCPad.id:                     aesCBCPad.name,
}

func init() {
	for _, m := range wrapMechanisms {
		mechanismNames[m.id] = m.name
	}
}

// mechanismUses are the flags of CK_MECHANISM_INFO that matter here.
var mechanismUses = []struct {
	flag uint
	name string
}{
	{pkcs11.CKF_GENERATE, "generate"}, {pkcs11.CKF_GENERATE_KEY_PAIR, "generate pair"},
	{pkcs11.CKF_WRAP, "wrap"}, {pkcs11.CKF_UNWRAP, "unwrap"},
	{pkcs11.CKF_ENCRYPT, "encrypt"}, {pkcs11.CKF_DECRYPT, "decrypt"},
	{pkcs11.CKF_SIGN, "sign"}, {pkcs11.CKF_VERIFY, "verify"},
}

// mechanisms lists what the token says it can do.
func (t *Token) mechanisms() ([]Mechanism, error) {
	listed, err := t.ck.GetMechanismList(t.found.ID)
	if err != nil {
		return nil, failed("list its mechanisms", err)
	}
	var mechanisms []Mechanism
	for _, l := range listed {
		m := Mechanism{ID: number(l.Mechanism), Name: mechanismNames[l.Mechanism], For: []string{}}
		info, err := t.ck.GetMechanismInfo(t.found.ID, []*pkcs11.Mechanism{l})
		if err != nil {
			m.Fault = err.Error()
		}
		m.MinKey, m.MaxKey = info.MinKeySize, info.MaxKeySize
		for _, use := range mechanismUses {
			if info.Flags&use.flag != 0 {
				m.For = append(m.For, use.name)
			}
		}
		mechanisms = append(mechanisms, m)
	}
	return mechanisms, nil
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
