// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd/xrml"
)

// Terms are what a check depends on beside the export.
type Terms struct {
	Now time.Time // for reports: nothing is refused for its age
	// PinnedRoots are SHA-256 of root keys, PKIX DER, at one of which a chain must
	// end; without any, every root is taken.
	PinnedRoots []fingerprint.Fingerprint
	// AcceptTemplates names the templates, see [ParseTemplateID], that an operator
	// takes though they do not verify; [AnyTemplate] is all of them.
	AcceptTemplates []string
	// FreshPassword says that only a keyless copy leaves, under a password of its own.
	FreshPassword bool
}

// AnyTemplate stands for all templates: on the connected side, where the
// disconnected side accepted some and its signature covers that.
const AnyTemplate = "*"

// ParseTemplateID reads what names a template in [Terms]: its GUID, in any case,
// with or without braces.
func ParseTemplateID(s string) (string, error) { return xrml.GUID(s) }

// Result is what the checks of a domain found. Nothing in it is secret.
type Result struct {
	*Contents
	Terms   Terms
	Keyless bool // the checks were those of a keyless TPD

	GUID   string         // of the key, lower case without braces: of the SLC, else of the key's description
	Public *rsa.PublicKey // of the SLC; nil where the first certificate is none
	Mode   int            // cryptographic mode of AD RMS, 1 or 2; 0: neither

	Certificates         []*xrml.Certificate // of Chain; nil for one that can't be read
	TemplateCertificates []*xrml.Certificate // of Templates, likewise

	Refusals          []*control.Refusal // in the order of the checks
	Accepted          []*control.Refusal // of templates that are taken by the terms
	AcceptedTemplates []string           // their IDs
}

// Err returns the refusals, joined; nil if there is none.
func (r *Result) Err() error { return control.Join(r.Refusals) }

func (r *Result) refuse(c control.Control, format string, args ...any) {
	r.Refusals = append(r.Refusals, c.Refuse(format, args...))
}

// CSP types of CryptoAPI.
const (
	provRSAFull = 1
	provRSAAES  = 24
)

// check makes every check, those of Exchange's importer in its order, ours behind
// them. What can't be told without the SLC is not told at all, since its absence is
// a refusal of its own.
func (d *Domain) check(terms Terms, keyless bool) Identity {
	r := &Result{Contents: &d.Contents, Terms: terms, Keyless: keyless}

	// The first certificate is the SLC: it says whose key this is.
	var slc *xrml.Certificate
	var unreadable []*control.Refusal
	for i, text := range d.Chain {
		certificate, err := xrml.Parse(text)
		if err == nil && i == 0 {
			if r.GUID, err = checkSLC(certificate); err == nil {
				slc, r.Public = certificate, certificate.Principals[0].Key
			}
		}
		r.Certificates = append(r.Certificates, certificate)
		if err != nil {
			unreadable = append(unreadable, control.TPDCertificate.Refuse("certificate %d of the chain is unreadable: %w", i+1, err))
		}
	}

	// The document describes the key, by the same GUID.
	var info KeyInfo
	if d.Info != nil {
		info = *d.Info
	}
	if info.embedded {
		r.Refusals = append(r.Refusals, refuseEmbedded())
	}
	described, noGUID := xrml.GUID(info.ID)
	switch {
	case d.Info == nil:
		r.refuse(control.TPDKeyInfo, "the TPD export does not describe its key: it has no m_ttdki")
	case info.ID == "":
		r.refuse(control.TPDKeyID, "the TPD export does not name its key: it has no strID")
	case noGUID != nil || info.IDType != "MS-GUID":
		r.refuse(control.TPDKeyID, "the TPD export names its key %s of the type %s, expected a GUID of the type MS-GUID", control.Quote(info.ID), control.Quote(info.IDType))
	case r.GUID == "":
		r.GUID = described
	}
	if len(d.Chain) == 0 {
		r.refuse(control.TPDChainAbsent, "the TPD export has no certificate chain")
	}

	// The key's size, the SLC's digest and the CSP are of one mode.
	if slc != nil {
		switch bits := r.Public.N.BitLen(); {
		case bits == Mode1Bits && slc.DigestAlgorithm == crypto.SHA1:
			r.Mode = 1
		case bits == Mode2Bits && slc.DigestAlgorithm == crypto.SHA256:
			r.Mode = 2
		default:
			r.refuse(control.TPDMode, "the server licensor certificate has an RSA key of %d bits and a %v digest, which is no cryptographic mode of AD RMS", bits, slc.DigestAlgorithm)
		}
		if r.Mode > 0 && d.Info != nil && info.CSPType != provRSAAES && (info.CSPType != provRSAFull || r.Mode != 1) {
			r.refuse(control.TPDCSPMode, "the key is held by a CSP of the type %d (%s), which does not serve cryptographic mode %d", info.CSPType, control.Quote(info.CSPName), r.Mode)
		}
	}

	// The private key is there, or in an HSM: the CSP is then its vendor's. Those of
	// Windows are all called Microsoft something.
	inHSM := !d.HasKey && info.CSPName != "" && !strings.HasPrefix(info.CSPName, "Microsoft ")
	switch {
	case keyless && d.HasKey:
		r.refuse(control.TPDKeyPresent, "the TPD still carries its private key, expected a keyless one")
	case !keyless && !d.HasKey && !inHSM:
		r.refuse(control.TPDKeyAbsent, "the TPD export carries no private key, and its CSP is one that keeps keys in software")
	}
	if refusal := new(control.Refusal); errors.As(d.keyErr, &refusal) {
		r.Refusals = append(r.Refusals, refusal)
	}

	// Each certificate is signed by the next one's principal. The SLC's troubles have
	// controls of their own.
	r.Refusals = append(r.Refusals, unreadable...)
	for _, broken := range xrml.VerifyChain(r.Certificates) {
		trouble := control.TPDChainSignature
		switch {
		case errors.Is(broken.Err, xrml.ErrLink):
			trouble = control.TPDChainLink
		case broken.At > 0 || slc == nil:
		case errors.Is(broken.Err, xrml.ErrDigest):
			trouble = control.TPDSLCDigest
		default:
			trouble = control.TPDSLCSignature
		}
		r.refuse(trouble, "certificate %d of the chain does not hold: %w", broken.At+1, broken.Err)
	}
	// Microsoft does not publish the keys of its roots, so a root's name proves
	// nothing: a key that the operator pinned does.
	if slc != nil && len(unreadable) == 0 && len(terms.PinnedRoots) > 0 {
		root := r.Certificates[len(r.Certificates)-1].Issuer
		if print := fingerprint.OfKey(root.Key); !slices.Contains(terms.PinnedRoots, print) {
			r.refuse(control.TPDRoot, "the chain ends at %s with the root key %s, which is not pinned", control.Quote(root.ID), print.Hex())
		}
	}

	// The SLC is of this key.
	if slc != nil {
		if d.Key != nil && !d.Key.PublicKey.Equal(r.Public) {
			r.refuse(control.TPDKeyMismatch, "the private key in the TPD export is not the key of its server licensor certificate")
		}
		if noGUID == nil && described != r.GUID {
			r.refuse(control.TPDSLCID, "the TPD export names its key %s, its server licensor certificate is issued to %s", described, r.GUID)
		}
		if name := slc.Principals[0].Name; strings.ContainsFunc(name, unicode.IsControl) {
			r.refuse(control.TPDName, "the server's name holds a control character: %s", control.Quote(name))
		}
	}

	// Each template is signed by this key, unless the operator takes it by its ID.
	for i, text := range d.Templates {
		certificate, err := xrml.Parse(text)
		var id string
		if err == nil {
			id, err = templateGUID(certificate)
		}
		var refusal *control.Refusal
		if err != nil {
			// Its GUID can't be told: the first half of its digest stands for it.
			h := fingerprint.Of([]byte(text.AsIs)).Hex()
			id = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
			certificate, refusal = nil, control.TPDTemplate.Refuse("template %d can't be read: %w", i+1, err)
		} else if slc != nil {
			if err := certificate.Verify(r.Public); err != nil {
				name := id
				if _, named, ok := strings.Cut(certificate.Descriptor.Name, ":NAME "); ok { // in its first language
					named, _, _ = strings.Cut(named, ":DESCRIPTION ")
					name = control.Quote(named)
				}
				refusal = control.TPDTemplateSignature.Refuse("template %d (%s) does not hold: %w", i+1, name, err)
			}
		}
		r.TemplateCertificates = append(r.TemplateCertificates, certificate)
		switch {
		case refusal == nil:
		case slices.Contains(terms.AcceptTemplates, id) || slices.Contains(terms.AcceptTemplates, AnyTemplate):
			refusal.Message += "; it was accepted as " + id
			r.Accepted, r.AcceptedTemplates = append(r.Accepted, refusal), append(r.AcceptedTemplates, id)
		default:
			refusal.Hint += ", or take it as it is with --accept-template " + id
			r.Refusals = append(r.Refusals, refusal)
		}
	}

	// A service opens the fields with the right key, and a keyless copy carries none.
	// A key of 1024 bits travels in its TPD in any case.
	collides := d.documentCollides && !terms.FreshPassword || d.keyCollides && r.Mode == 1
	if keyless && d.documentCollides || !keyless && collides {
		r.refuse(control.TPDLegacyCollision, "the TPD export is encrypted as for RMS version 1.0, and its password is one of those, about one in 256, with which a service takes the wrong key and calls the file corrupted")
	}
	if r.Mode != 1 && d.carriesKey(string(d.document)) {
		r.Refusals = append(r.Refusals, refuseCarried())
	}

	// The limits come last: a sound export may have one.
	if r.Mode == 1 {
		r.refuse(control.TPDMode1, "the key has %d bits: Azure Key Vault and Managed HSM take RSA keys of 2048, 3072 and 4096 bits only", Mode1Bits)
	}
	if !keyless && inHSM {
		r.refuse(control.TPDKeyInHSM, "the key of the TPD export is in an HSM: its CSP is %s, its container %s", control.Quote(info.CSPName), control.Quote(info.ContainerName))
	}
	return Identity{r.GUID, r.Public, r}
}

// checkSLC checks that a certificate is a server licensor certificate, and returns
// the GUID of the server's key.
func checkSLC(c *xrml.Certificate) (guid string, err error) {
	if c.BodyType != xrml.BodyLicense || c.Descriptor.Type != "Server-Licensor-Certificate" {
		return "", fmt.Errorf("not a Server-Licensor-Certificate: it is a %s", control.Quote(c.Descriptor.Type))
	}
	if len(c.Principals) != 1 || c.Principals[0].Type != "MS-DRM-Server" || c.Principals[0].Key == nil {
		return "", errors.New("it is not issued to one MS-DRM-Server with a public key")
	}
	server := c.Principals[0]
	if guid, err = xrml.GUID(server.ID); err != nil || server.IDType != "MS-GUID" {
		return "", fmt.Errorf("the server that it is issued to has no GUID: %s", control.Quote(server.ID))
	}
	return guid, nil
}

// templateGUID returns the GUID of a rights policy template.
func templateGUID(c *xrml.Certificate) (string, error) {
	guid, err := xrml.GUID(c.Descriptor.ID)
	if c.BodyType != xrml.BodyTemplate || c.Descriptor.IDType != "MS-GUID" || err != nil {
		return "", fmt.Errorf("not a rights policy template with a GUID: its type is %s, its id %s", control.Quote(c.BodyType), control.Quote(c.Descriptor.ID))
	}
	return guid, nil
}

func refuseEmbedded() *control.Refusal {
	return control.TPDKeyEmbedded.Refuse("the TPD export carries a private key in its document, in strEncryptedPrivateKey")
}

// Identity is what every passed check has proven: the key's GUID and public
// key, as the SLC says them.
type Identity struct {
	guid   string
	public *rsa.PublicKey
	result *Result
}

// GUID returns the key's identity, in lower case without braces.
func (i Identity) GUID() string { return i.guid }

// Public returns the key of the SLC.
func (i Identity) Public() *rsa.PublicKey { return i.public }

// Result returns what the checks found.
func (i Identity) Result() *Result { return i.result }

// Checked is a domain that passed every check and whose key can become an HSM
// key. Only [Domain.Checked] makes one.
type Checked struct {
	Identity
	key *rsa.PrivateKey
}

// Key returns the private key, which is the key of the SLC. [Domain.Clear]
// wipes it.
func (c *Checked) Key() *rsa.PrivateKey { return c.key }

// CheckedKeyless is a keyless TPD that passed every check that does not need
// the key. Only [Domain.CheckedKeyless] makes one.
type CheckedKeyless struct{ Identity }

// CheckedMicrosoftManaged is a domain that passed every check but that of the
// key's size: whole and genuine, with a key of 1024 bits that no cloud HSM
// takes. Only [Domain.CheckedMicrosoftManaged] makes one. It has no way to the
// private key: such a TPD travels as it is.
type CheckedMicrosoftManaged struct{ Identity }

// Check makes every check of an import, and says all that they find.
func (d *Domain) Check(t Terms) *Result { return d.check(t, false).result }

// CheckKeyless makes the checks of [Domain.Check] on a keyless TPD: there must be
// no key, and all else must hold.
func (d *Domain) CheckKeyless(t Terms) *Result { return d.check(t, true).result }

// Checked makes the checks of [Domain.Check]. The error is all refusals, joined.
func (d *Domain) Checked(t Terms) (*Checked, error) {
	id := d.check(t, false)
	if err := id.result.Err(); err != nil {
		return nil, err
	}
	return &Checked{id, d.Key}, nil
}

// CheckedKeyless makes the checks of [Domain.CheckKeyless]. The error is all refusals, joined.
func (d *Domain) CheckedKeyless(t Terms) (*CheckedKeyless, error) {
	id := d.check(t, true)
	if err := id.result.Err(); err != nil {
		return nil, err
	}
	return &CheckedKeyless{id}, nil
}

// CheckedMicrosoftManaged makes the checks of [Domain.Check], of which only
// that of the key's size may and must fail. The error is all other refusals, or
// KF-TPD-NOT-MODE1 for a key that can become an HSM key.
func (d *Domain) CheckedMicrosoftManaged(t Terms) (*CheckedMicrosoftManaged, error) {
	id := d.check(t, false)
	switch r := id.result; {
	case len(r.Refusals) == 0:
		return nil, control.TPDNotMode1.Refuse("the key has %d bits and can become an HSM key, expected one that can only be Microsoft-managed", id.public.N.BitLen())
	case len(r.Refusals) > 1 || r.Refusals[0].Control.ID != control.TPDMode1.ID:
		return nil, r.Err()
	}
	return &CheckedMicrosoftManaged{id}, nil
}
