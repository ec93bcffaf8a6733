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
	now     time.Time
	pinned  []fingerprint.Fingerprint // of root keys
	keyless bool

	chain    []*xrml.Certificate // nil where a certificate is unreadable
	chainErr []error             // why it is
	slc      *xrml.Certificate   // nil unless the leaf is a server licensor certificate
	licensor xrml.Principal      // whom the SLC was issued to: this domain's server
}

// check runs the steps, in the order in which Exchange's importer makes them,
// ours after those.
func (d *Domain) check(now time.Time, pinned []fingerprint.Fingerprint, keyless bool) Identity {
	c := &checker{d: d, now: now, pinned: pinned, keyless: keyless, r: &Report{
		HasKey: d.hasKeyField, Derivation: Derivations{d.DocumentDerivation, d.KeyDerivation},
		Templates: []xrml.Template{}, Findings: []Finding{},
	}}
	c.readChain()
	for _, step := range []func(){
		c.keyInformation, c.chainPresent, c.cspMode, c.key, c.verifyChain, c.sameKey, c.sameGUID,
		c.validity, c.serverURL, c.templates, c.oddities, c.mode1,
	} {
		step()
	}
	c.r.judge()
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
		facts.RootPinned = slices.ContainsFunc(c.pinned, func(f fingerprint.Fingerprint) bool { return f.Hex() == facts.RootFingerprint })
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
	case c.r.Bits == 1024 && cert.DigestAlgorithm == crypto.SHA1:
		c.r.Mode = 1
	case c.r.Bits == 2048 && cert.DigestAlgorithm == crypto.SHA256:
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
	case !c.keyless && !c.d.hasKeyField:
		c.r.refuse(control.TPDKeyAbsent.Refuse("the TPD export carries no private key"))
	}
	if refusal := new(control.Refusal); errors.As(c.d.keyErr, &refusal) {
		c.r.refuse(refusal)
	}
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
	case len(c.pinned) > 0 && !c.r.SLC.RootPinned:
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
	for i, cert := range c.chain {
		if cert != nil && !cert.Valid.Contains(c.now) {
			c.r.warn(control.TPDValidity.Refuse("certificate %d of the chain is valid %s, and it is %s", i+1, cert.Valid, c.now.UTC().Format(time.RFC3339)))
		}
	}
	if c.slc != nil && !c.slc.Issuing.Contains(c.now) {
		c.r.warn(control.TPDValidity.Refuse("the server licensor certificate may issue %s, and it is %s", c.slc.Issuing, c.now.UTC().Format(time.RFC3339)))
	}
}

func (c *checker) serverURL() {
	if c.slc != nil && !isWebURL(c.licensor.URL) {
		c.r.warn(control.TPDURL.Refuse("the server's address is no http or https URL: %s", control.Quote(c.licensor.URL)))
	}
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// oddities are what an export should not show but a key survives.
func (c *checker) oddities() {
	if c.d.DocumentDerivation == Legacy || c.d.KeyDerivation == Legacy {
		c.r.warn(control.TPDLegacyKDF.Refuse("the TPD export is encrypted by the legacy key derivation"))
	}
	number := map[capi.Algorithm]int{capi.KeyExchange: 1, capi.Signature: 2}
	if c.d.Info != nil && c.d.Key != nil && c.r.KeyNumber != number[c.d.KeyAlgorithm] {
		c.r.warn(control.TPDKeyNumber.Refuse("the TPD export says that its key has the key number %d (1 exchange, 2 signature), the key itself says %d", c.r.KeyNumber, number[c.d.KeyAlgorithm]))
	}
	if len(c.d.extra) > 0 {
		c.r.warn(control.TPDExtra.Refuse("the TPD export has what AD RMS does not write, and a keyless copy keeps it: %s", control.Quote(strings.Join(c.d.extra, ", "))))
	}
}

// mode1 comes last: see [Report.judge].
func (c *checker) mode1() {
	if c.r.Mode == 1 {
		c.r.refuse(control.TPDMode1.Refuse("the key has %d bits: Azure Key Vault and Managed HSM take RSA keys of 2048, 3072 and 4096 bits only", c.r.Bits))
	}
}
