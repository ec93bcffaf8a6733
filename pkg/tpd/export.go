// SPDX-License-Identifier: Apache-2.0

// Package tpd reads the export of a trusted publishing domain (TPD) of AD RMS:
// the key and certificates that an organisation protected its content with.
//
// # The file
//
// .NET XmlSerializer output for a list of exactly one element:
//
//	<?xml version="1.0"?>
//	<ArrayOfAnyType xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
//	  <anyType xsi:type="EncryptedTrustedDocDomain">
//	    <m_strTrustedDocDomainInfo>BASE64</m_strTrustedDocDomainInfo>
//	    <m_strKeyData>BASE64</m_strKeyData>
//	  </anyType>
//	</ArrayOfAnyType>
//
// It is UTF-8 or UTF-16, with or without byte order mark. Order of
// attributes and elements varies; a null string is an absent element or has
// xsi:nil. Elements of other names or in a namespace, other attributes, comments
// and processing instructions are passed over, as .NET does, with a warning.
// m_strKeyData is absent in a keyless TPD.
//
// # The encryption
//
// Each field is base64 of AES-128-CBC with PKCS #7 padding; the IV is the bytes
// 01 02 … 10 (hex). The key is the first 16 bytes of
//
//	current  SHA-256 of the password in UTF-16LE
//	legacy   SHA-1, applied 100 times, of the password in UTF-8 (.NET
//	         PasswordDeriveBytes without salt, PBKDF1)
//
// Nothing says which, and each field may have its own. A wrong key survives the
// padding check once in some 256 times, so what proves a key is what it
// decrypts to. There is no salt, no stretching and a fixed IV: an export is to
// be guarded as if it were the key itself.
//
// # The document
//
// m_strTrustedDocDomainInfo decrypts to XmlSerializer output again, of one
// TrustedDocDomain: m_ttdki describes the key (strID, strIDType, nCSPType,
// strCSPName, strKeyContainerName, nKeyNumber, and strEncryptedPrivateKey,
// which is absent); m_strLicensorCertChain holds the XrML certificates, leaf
// (the SLC) first; m_astrRightsTemplates holds the signed templates.
// m_strKeyData decrypts to a CryptoAPI blob, see package capi.
//
// Sources: MS-RMPR for the certificates and modes; the importers of Exchange
// and Azure RMS for the file and the order of checks; the rest was found by
// running .NET.
//
// # Use
//
// [Parse] reads the file, [Export.Decrypt] opens it, [Domain.Check] says all
// that stands against it. Only a check that passed makes a [Checked], or for a
// key that is too small for any HSM a [CheckedMicrosoftManaged], or for a
// keyless TPD a [CheckedKeyless]. What else there is to know of an export, package
// inspect reports.
//
// [Domain.Keyless] writes the file without the key, [Domain.KeylessFresh] the same
// under a password of its own.
//
// # Size
//
// An export has 20 KB to a few MB. It takes less than [MemoryPerByte] times its
// size in memory, and 32 MiB; all that is counted in it is bounded.
package tpd

import (
	"crypto/aes"

	"keyferry/pkg/control"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/xmltree"
)

// Bounds of an export. One with 60 templates has 0.3 MB.
const (
	MaxSize         = 64 << 20 // bytes
	MemoryPerByte   = 12
	maxCertificates = 32
	maxTemplates    = 4000
)

// Sizes of the key in AD RMS's two cryptographic modes, in bits.
const (
	Mode1Bits = capi.MinBits
	Mode2Bits = 2048
)

// The fields of the file.
const (
	documentField = "m_strTrustedDocDomainInfo"
	keyField      = "m_strKeyData"
)

// Export is an export file, not decrypted.
type Export struct {
	document []byte // ciphertext
	key      []byte // ciphertext; empty in a keyless TPD
	keyErr   error  // why key is empty though there is something in its field
	extra    extras
}

// Parse reads an export file. It refuses with KF-TPD-SIZE, KF-TPD-FORMAT or
// KF-TPD-ONE-DOMAIN. A damaged key is left to [Domain.Check] to report.
func Parse(raw []byte) (*Export, error) {
	if len(raw) > MaxSize {
		return nil, control.TPDSize.Refuse("the file has more than %d MiB, a TPD export has a few", MaxSize>>20)
	}
	e := &Export{}
	domain, err := outerLayer.readArray(raw, &e.extra)
	if err != nil {
		return nil, err
	}
	if err := outerLayer.checkShape(domain, &e.extra, documentField, keyField); err != nil {
		return nil, err
	}
	if e.document, err = readCiphertext(domain, documentField, control.TPDFormat); err != nil {
		return nil, err
	}
	if len(e.document) == 0 {
		return nil, control.TPDFormat.Refuse("the TPD export is empty: it has no %s", documentField)
	}
	e.key, e.keyErr = readCiphertext(domain, keyField, control.TPDKeyDecrypt)
	return e, nil
}

func readCiphertext(domain *xmltree.Node, name string, c control.Control) ([]byte, error) {
	b, err := domain.One(name).Base64()
	if err != nil {
		return nil, c.Refuse("%s of the TPD export is not base64: %w", name, err)
	}
	if len(b)%aes.BlockSize != 0 {
		return nil, c.Refuse("%s of the TPD export has %d bytes, expected a multiple of %d: it was cut short", name, len(b), aes.BlockSize)
	}
	return b, nil
}

// HasKey reports whether the export carries a private key, be it damaged: a
// keyless TPD does not.
func (e *Export) HasKey() bool { return len(e.key) > 0 || e.keyErr != nil }

// KeyBits returns the size of the RSA key as the length of its field gives it
// away, without the password; 0 if it carries none or no size fits.
func (e *Export) KeyBits() int {
	for bits := capi.MinBits; bits <= capi.MaxBits; bits += capi.MinBits {
		if padded := capi.BlobSize(bits)/aes.BlockSize*aes.BlockSize + aes.BlockSize; len(e.key) == padded {
			return bits
		}
	}
	return 0
}
