// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/xrml"
)

// checker is one run over a domain. The steps read what steps before them
// found out; what can't be told without the SLC is not told at all, since its
// absence is a refusal of its own.
type checker struct {
	d       *Domain
	r       *Report
	terms   Terms
	keyless bool

	chain    []*xrml.Certificate // nil where a certificate is unreadable
	chainErr []error             // why it is
	slc      *xrml.Certificate   // nil unless the leaf is a server licensor certificate
	licensor xrml.Principal      // whom the SLC was issued to: this domain's server
}

// check runs the steps, in the order in which Exchange's importer makes them,
// ours after those.
func (d *Domain) check(terms Terms, keyless bool) Identity {
	c := &checker{d: d, terms: terms, keyless: keyless, r: &Report{
		HasKey: d.hasKeyField, Derivation: Derivations{d.DocumentDerivation, d.KeyDerivation},
		Templates: []xrml.Template{}, Accepted: []string{}, LicensingURLs: []string{}, Findings: []Finding{},
	}}
	c.readChain()
	for _, step := range []func(){
		c.keyInformation, c.chainPresent, c.cspMode, c.key, c.verifyChain, c.sameKey, c.sameGUID,
		c.validity, c.server, c.templates, c.oddities, c.carried, c.limits,
	} {
		step()
	}
	c.r.judge(keyless)
	return Identity{c.r.KeyGUID, c.licensor.Key, c.r}
}

// readChain reads the certificates and what they say of the key.
func (c *checker) readChain() {
	for i, text := range c.d.Chain {
		cert, err := xrml.Parse(text)
		if err == nil && i == 0 {
			err = c.readSLC(cert)
		}
		c.chain = append(c.chain, cert)
		c.chainErr = append(c.chainErr, err)
	}
	if c.slc != nil && errors.Join(c.chainErr...) == nil {
		facts := xrml.DescribeSLC(c.chain)
		facts.RootPinned = slices.ContainsFunc(c.terms.PinnedRoots, func(f fingerprint.Fingerprint) bool { return f.Hex() == facts.RootFingerprint })
		c.r.SLC = &facts
	}
}

// readSLC takes the leaf if it is a server licensor certificate.
func (c *checker) readSLC(cert *xrml.Certificate) error {
	if cert.BodyType != xrml.BodyLicense || cert.Descriptor.Type != "Server-Licensor-Certificate" {
		return fmt.Errorf("not a Server-Licensor-Certificate: it is a %s", control.Quote(cert.Descriptor.Type))
	}
	if len(cert.Principals) != 1 || cert.Principals[0].Type != "MS-DRM-Server" || cert.Principals[0].Key == nil {
		return errors.New("it is not issued to one MS-DRM-Server with a public key")
	}
	licensor := cert.Principals[0]
	guid, err := xrml.GUID(licensor.ID)
	if err != nil || licensor.IDType != "MS-GUID" {
		return fmt.Errorf("the server that it is issued to has no GUID: %s", control.Quote(licensor.ID))
	}
	c.slc, c.licensor = cert, licensor
	c.r.KeyGUID, c.r.Fingerprint = guid, xrml.Fingerprint(licensor.Key)
	c.r.Bits = licensor.Key.N.BitLen()
	c.r.ModulusBase64 = base64.StdEncoding.EncodeToString(licensor.Key.N.Bytes())
	switch {
	case c.r.Bits == Mode1Bits && cert.DigestAlgorithm == crypto.SHA1:
		c.r.Mode = 1
	case c.r.Bits == Mode2Bits && cert.DigestAlgorithm == crypto.SHA256:
		c.r.Mode = 2
	}
	return nil
}

func (c *checker) keyInformation() {
	info := c.d.Info
	if info == nil {
		c.r.refuse(control.TPDKeyInfo.Refuse("the TPD export does not describe its key: it has no m_ttdki"))
		return
	}
	c.r.CSPType, c.r.CSPName, c.r.KeyContainer, c.r.KeyNumber = info.CSPType, info.CSPName, info.ContainerName, info.KeyNumber
	if info.embedded {
		c.r.refuse(refuseEmbedded())
	}
	if info.ID == "" {
		c.r.refuse(control.TPDKeyID.Refuse("the TPD export does not name its key: it has no strID"))
		return
	}
	if guid, err := xrml.GUID(info.ID); err != nil || info.IDType != "MS-GUID" {
		c.r.refuse(control.TPDKeyID.Refuse("the TPD export names its key %s of the type %s, expected a GUID of the type MS-GUID", control.Quote(info.ID), control.Quote(info.IDType)))
	} else if c.r.KeyGUID == "" {
		c.r.KeyGUID = guid
	}
}

func refuseEmbedded() *control.Refusal {
	return control.TPDKeyEmbedded.Refuse("the TPD export carries a private key in its document, in strEncryptedPrivateKey")
}

func (c *checker) chainPresent() {
	if len(c.d.Chain) == 0 {
		c.r.refuse(control.TPDChainAbsent.Refuse("the TPD export has no certificate chain"))
	}
}

// CSP types of CryptoAPI.
const (
	provRSAFull = 1
	provRSAAES  = 24
)

func (c *checker) cspMode() {
	if c.slc == nil {
		return
	}
	if c.r.Mode == 0 {
		c.r.refuse(control.TPDMode.Refuse("the server licensor certificate has an RSA key of %d bits and a %v digest, which is no cryptographic mode of AD RMS", c.r.Bits, c.slc.DigestAlgorithm))
		return
	}
	if c.d.Info != nil && c.r.CSPType != provRSAAES && (c.r.CSPType != provRSAFull || c.r.Mode != 1) {
		c.r.refuse(control.TPDCSPMode.Refuse("the key is held by a CSP of the type %d (%s), which does not serve cryptographic mode %d", c.r.CSPType, control.Quote(c.r.CSPName), c.r.Mode))
	}
}

func (c *checker) key() {
	switch {
	case c.keyless && c.d.hasKeyField:
		c.r.refuse(control.TPDKeyPresent.Refuse("the TPD still carries its private key, expected a keyless one"))
	case !c.keyless && !c.d.hasKeyField && !c.inHSM():
		c.r.refuse(control.TPDKeyAbsent.Refuse("the TPD export carries no private key, and its CSP is one that keeps keys in software"))
	}
	if refusal := new(control.Refusal); errors.As(c.d.keyErr, &refusal) {
		c.r.refuse(refusal)
	}
}

// inHSM reports whether an export lacks its key because an HSM holds it: the CSP
// is then its vendor's. Those of Windows are all called Microsoft something.
func (c *checker) inHSM() bool {
	return !c.d.hasKeyField && c.r.CSPName != "" && !strings.HasPrefix(c.r.CSPName, "Microsoft ")
}

// verifyChain reports what is wrong with each certificate, also beside one that is
// unreadable; the SLC's troubles have controls of their own.
func (c *checker) verifyChain() {
	for i, err := range c.chainErr {
		if err != nil {
			c.r.refuse(control.TPDCertificate.Refuse("certificate %d of the chain is unreadable: %w", i+1, err))
		}
	}
	for _, broken := range xrml.VerifyChain(c.chain) {
		trouble := control.TPDChainSignature
		switch {
		case errors.Is(broken.Err, xrml.ErrName):
			c.r.warn(control.TPDChainName.Refuse("certificate %d of the chain: %w", broken.At+1, broken.Err))
			continue
		case errors.Is(broken.Err, xrml.ErrLink):
			trouble = control.TPDChainLink
		case broken.At > 0 || c.slc == nil:
		case errors.Is(broken.Err, xrml.ErrDigest):
			trouble = control.TPDSLCDigest
		default:
			trouble = control.TPDSLCSignature
		}
		c.r.refuse(trouble.Refuse("certificate %d of the chain does not hold: %w", broken.At+1, broken.Err))
	}
	if c.r.SLC != nil {
		c.root()
	}
}

// root says where the chain ends. Microsoft does not publish the keys of its
// roots, so a name alone proves nothing: a pinned key does, and one that is
// not among those that were pinned is refused.
func (c *checker) root() {
	root := c.chain[len(c.chain)-1].Issuer
	switch {
	case len(c.terms.PinnedRoots) > 0 && !c.r.SLC.RootPinned:
		c.r.refuse(control.TPDRoot.Refuse("the chain ends at %s with the root key %s, which is not pinned", control.Quote(root.ID), c.r.SLC.RootFingerprint))
	case c.r.SLC.Hierarchy != xrml.Production:
		c.r.warn(control.TPDHierarchy.Refuse("the chain does not end at Microsoft's production root but at %s", control.Quote(root.ID)))
	}
}

func (c *checker) sameKey() {
	if c.d.Key != nil && c.slc != nil && !c.d.Key.PublicKey.Equal(c.licensor.Key) {
		c.r.refuse(control.TPDKeyMismatch.Refuse("the private key in the TPD export is not the key of its server licensor certificate"))
	}
}

func (c *checker) sameGUID() {
	if c.d.Info == nil || c.slc == nil {
		return
	}
	if guid, err := xrml.GUID(c.d.Info.ID); err == nil && guid != c.r.KeyGUID {
		c.r.refuse(control.TPDSLCID.Refuse("the TPD export names its key %s, its server licensor certificate is issued to %s", guid, c.r.KeyGUID))
	}
}

// validity only warns: what was protected while a certificate was valid is
// opened with its key forever.
func (c *checker) validity() {
	outside := func(what string, p xrml.Period) {
		switch now := c.terms.Now.UTC().Format(time.RFC3339); {
		case p.Contains(c.terms.Now):
		case c.terms.Now.Before(p.From):
			c.r.warn(control.TPDValidity.Refuse("%s only %s, and it is %s", what, p, now))
		default:
			c.r.warn(control.TPDValidity.Refuse("%s %s: it has expired, it is %s", what, p, now))
		}
	}
	for i, cert := range c.chain {
		if cert != nil {
			outside(fmt.Sprintf("certificate %d of the chain is valid", i+1), cert.Valid)
		}
	}
	if c.slc != nil {
		outside("the server licensor certificate may issue", c.slc.Issuing)
	}
}

// server checks what names the server to people and clients.
func (c *checker) server() {
	if c.slc == nil {
		return
	}
	if strings.ContainsFunc(c.licensor.Name, unicode.IsControl) {
		c.r.refuse(control.TPDName.Refuse("the server's name holds a control character: %s", control.Quote(c.licensor.Name)))
	}
	if !isWebURL(c.licensor.URL) {
		c.r.warn(control.TPDURL.Refuse("the server's address is no http or https URL: %s", control.Quote(c.licensor.URL)))
	}
	c.addURL(c.licensor.URL)
}

func (c *checker) addURL(address string) {
	if isWebURL(address) && !slices.Contains(c.r.LicensingURLs, address) && len(c.r.LicensingURLs) < maxURLs {
		c.r.LicensingURLs = append(c.r.LicensingURLs, address)
	}
}

// maxURLs bounds the addresses that are listed. A cluster has a few.
const maxURLs = 32

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// templates checks each template. One that does not verify as signed by this
// domain is a refusal, unless the operator accepts it; what Azure RMS makes less
// of is a warning.
func (c *checker) templates() {
	seen := map[string]int{} // GUID → position
	for i, text := range c.d.Templates {
		position := i + 1
		cert, err := xrml.Parse(text)
		var t xrml.Template
		if err == nil {
			t, err = xrml.DescribeTemplate(cert)
		}
		if err != nil {
			// Its GUID can't be told: the first half of its digest stands for it.
			h := fingerprint.Of([]byte(text.AsIs)).Hex()[:32]
			id := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
			c.refuseTemplate(id, control.TPDTemplate.Refuse("template %d can't be read: %w", position, err))
			continue
		}
		c.r.Templates = append(c.r.Templates, t)
		if first, ok := seen[t.GUID]; ok {
			c.r.warn(control.TPDTemplateDuplicate.Refuse("templates %d and %d have the same GUID %s", first, position, t.GUID))
		} else {
			seen[t.GUID] = position
		}
		label := fmt.Sprintf("template %d (%s)", position, t.GUID)
		if len(t.Names) > 0 {
			label = fmt.Sprintf("template %d (%s)", position, control.Quote(t.Names[0].Name))
		}
		if c.slc != nil {
			if err := cert.Verify(c.licensor.Key); err != nil {
				c.refuseTemplate(t.GUID, control.TPDTemplateSignature.Refuse("%s does not hold: %w", label, err))
			} else if !cert.Issuer.Same(c.licensor) || cert.Issuer.Name != c.licensor.Name {
				c.r.warn(control.TPDTemplateIssuer.Refuse("%s names %s as its issuer, expected the server of this domain, %s", label, control.Quote(cert.Issuer.Name), control.Quote(c.licensor.Name)))
			}
		}
		if !t.ValidUntil.IsZero() && c.terms.Now.After(t.ValidUntil) {
			c.r.warn(control.TPDTemplateExpired.Refuse("%s expired on %s", label, t.ValidUntil.Format(time.DateOnly)))
		}
		if t.Anyone {
			c.r.warn(control.TPDTemplateAnyone.Refuse("%s gives rights to ANYONE", label))
		}
		if t.AmbiguousNames {
			c.r.warn(control.TPDTemplateName.Refuse("%s has a name or description that holds : or ;, or none at all", label))
		}
		for _, p := range t.DistributionPoints {
			switch {
			case p.Type == "Referral-Info": // where to ask for rights: usually an e-mail address
			case isWebURL(p.URL):
				c.addURL(p.URL)
			default:
				c.r.warn(control.TPDURL.Refuse("%s has a distribution point that is no http or https URL: %s", label, control.Quote(p.URL)))
			}
		}
	}
}

// refuseTemplate refuses a template, or warns of it where the operator accepts it
// under its ID.
func (c *checker) refuseTemplate(id string, refusal *control.Refusal) {
	if slices.Contains(c.terms.AcceptTemplates, id) || slices.Contains(c.terms.AcceptTemplates, AnyTemplate) {
		refusal.Message += "; it was accepted as " + id
		c.r.Accepted = append(c.r.Accepted, id)
		c.r.warn(refusal)
		return
	}
	refusal.Hint += ", or take it as it is with --accept-template " + id
	c.r.refuse(refusal)
}

// oddities are what an export should not show but a key survives.
func (c *checker) oddities() {
	collides := c.d.documentCollides && !c.terms.FreshPassword || c.d.keyCollides && c.r.Mode == 1
	switch {
	case collides && !c.keyless, c.d.documentCollides && c.keyless:
		c.r.refuse(control.TPDLegacyCollision.Refuse("the TPD export is encrypted as for RMS version 1.0, and its password is one of those, about one in 256, with which a service takes the wrong key and calls the file corrupted"))
	case c.d.DocumentDerivation == Legacy || c.d.KeyDerivation == Legacy:
		c.r.warn(control.TPDLegacyKDF.Refuse("the TPD export is encrypted by the legacy key derivation, as for RMS version 1.0"))
	}
	number := map[capi.Algorithm]int{capi.KeyExchange: 1, capi.Signature: 2}
	if c.d.Info != nil && c.d.KeyAlgorithm != 0 && c.d.Key != nil && c.r.KeyNumber != number[c.d.KeyAlgorithm] {
		c.r.warn(control.TPDKeyNumber.Refuse("the TPD export says that its key has the key number %d (1 exchange, 2 signature), the key itself says %d", c.r.KeyNumber, number[c.d.KeyAlgorithm]))
	}
	if extra := c.d.export.extra; len(extra) > 0 {
		c.r.warn(control.TPDExtra.Refuse("the file has what AD RMS does not write, and a keyless copy leaves it out: %s", control.Quote(strings.Join(extra, ", "))))
	}
	if len(c.d.extra) > 0 {
		c.r.warn(control.TPDExtra.Refuse("the encrypted document has what AD RMS does not write, and a keyless copy keeps it: %s", control.Quote(strings.Join(c.d.extra, ", "))))
	}
	if c.d.nulls > 0 {
		c.r.warn(control.TPDNull.Refuse("%d certificates or templates of the TPD export are null: a service gets nothing in their place", c.d.nulls))
	}
}

// carried refuses a document that a keyless copy can't be made of. A key of 1024
// bits travels in its TPD in any case.
func (c *checker) carried() {
	if c.r.Mode != 1 && c.d.carriesKey(string(c.d.document)) {
		c.r.refuse(refuseCarried())
	}
}

// limits come last: see [Report.judge].
func (c *checker) limits() {
	if c.r.Mode == 1 {
		c.r.refuse(control.TPDMode1.Refuse("the key has %d bits: Azure Key Vault and Managed HSM take RSA keys of 2048, 3072 and 4096 bits only", c.r.Bits))
	}
	if !c.keyless && c.inHSM() {
		c.r.refuse(control.TPDKeyInHSM.Refuse("the key of the TPD export is in an HSM: its CSP is %s, its container %s", control.Quote(c.r.CSPName), control.Quote(c.r.KeyContainer)))
	}
}
