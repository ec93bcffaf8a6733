// SPDX-License-Identifier: Apache-2.0

// Package xrml reads the XrML 1.2 certificates and rights policy templates of
// AD RMS and verifies their signatures.
//
// A certificate is `<XrML version="1.2"><BODY …>…</BODY><SIGNATURE>…` (MS-RMPR
// 2.2.9.1; the points below were checked on the certificates that Microsoft
// publishes there):
//
//   - What is hashed are the characters from `<BODY` through `</BODY>` as they
//     stand in the certificate, in UTF-16LE without byte order mark. They are cut
//     out of the received text, never written anew.
//   - SIGNATURE/DIGEST/VALUE is that hash, base64; DIGEST/ALGORITHM is SHA1 or
//     SHA256. SIGNATURE/VALUE is the RSA PKCS #1 v1.5 signature over that hash,
//     base64, big-endian as usual. The children of SIGNATURE come in any order.
//   - A modulus is base64 of its bytes in little-endian order; its size
//     attribute is in bits. The exponent is 65537.
//   - Times are UTC, yyyy-MM-ddTHH:mm.
//
// Comments, CDATA sections and processing instructions are read as .NET reads
// them. Elements of other names and those in a namespace are passed over.
//
// An issuing certificate (MS-RMPR 2.2.9.3) names its issuer with the issuer's
// key, and the principal that it is issued to with that one's key. In a chain,
// leaf first, each certificate's issuer is the next one's principal.
//
// A rights policy template (MS-RMPR 2.2.9.10) is one certificate, issued by
// the server's own key.
//
// Errors of this package are plain: package tpd, which knows what a
// certificate is used for, refuses under the control that fits.
package xrml

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/tpd/capi"
	"keyferry/pkg/tpd/xmltree"
)

// BODY types.
const (
	BodyLicense  = "LICENSE"
	BodyTemplate = "Microsoft Official Rights Template"
)

// Certificate is a parsed certificate; its signature is not verified yet.
type Certificate struct {
	BodyType   string
	Issued     time.Time
	Valid      Period // VALIDITYTIME
	Issuing    Period // when it may issue: RANGETIME of the right ISSUE in Main-Rights
	Descriptor Object
	Issuer     Principal
	Principals []Principal // ISSUEDPRINCIPALS
	Body       *xmltree.Node

	DigestAlgorithm crypto.Hash // SHA1 or SHA256

	body      string // the characters that are hashed
	digest    []byte
	signature []byte
}

// Object is an OBJECT element.
type Object struct {
	Type   string
	IDType string // "MS-GUID", "ascii-tag", …
	ID     string // as it stands, see [GUID]
	Name   string
	URL    string // ADDRESS
}

// Principal is who issues or is issued to.
type Principal struct {
	Object
	Key *rsa.PublicKey // nil where it names none
}

// Same reports whether both have the same key and the same ID (a GUID in any
// spelling): by these a chain is linked (MS-RMPR 2.2.9.3.2).
func (p Principal) Same(other Principal) bool {
	guid, err := GUID(p.ID)
	otherGUID, otherErr := GUID(other.ID)
	sameID := p.ID == other.ID || err == nil && otherErr == nil && guid == otherGUID
	return sameID && p.IDType == other.IDType && p.Key != nil && other.Key != nil && p.Key.Equal(other.Key)
}

// guid is the spelling of a GUID.
var guid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// GUID writes a GUID, of any case and with or without braces, in lower case
// without braces.
func GUID(s string) (string, error) {
	inner, open := strings.CutPrefix(s, "{")
	inner, closed := strings.CutSuffix(inner, "}")
	if inner = strings.ToLower(inner); open != closed || !guid.MatchString(inner) {
		return "", fmt.Errorf("not a GUID: %s", control.Quote(s))
	}
	return inner, nil
}

// Period is a time span; a zero end is open.
type Period struct{ From, Until time.Time }

// Parse reads a certificate from its text. Where that has two readings, the one
// whose digest holds is taken: it is the one that was signed.
func Parse(text xmltree.Text) (*Certificate, error) {
	c, err := parse(text.AsIs)
	if text.AsIs != text.Normalised && (err != nil || c.VerifyDigest() != nil) {
		if other, err := parse(text.Normalised); err == nil && other.VerifyDigest() == nil {
			return other, nil
		}
	}
	return c, err
}

func parse(text string) (*Certificate, error) {
	doc, err := xmltree.ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("not an XrML certificate: %w", err)
	}
	root := doc.Root
	if root.Name != "XrML" || root.Attr("version") != "1.2" {
		return nil, fmt.Errorf("not an XrML 1.2 certificate: its root element is %s, version %s", control.Quote(root.Name), control.Quote(root.Attr("version")))
	}
	body := root.One("BODY")
	if body == nil {
		return nil, errors.New("the certificate does not have one BODY")
	}
	// Other readers look for these words alone: what is signed must be what is read.
	if strings.Index(doc.Text, "<BODY") != body.From || strings.Index(doc.Text, "</BODY>")+len("</BODY>") != body.To {
		return nil, errors.New("the certificate has more than one BODY, one of them in a comment or section")
	}
	c := &Certificate{BodyType: body.Attr("type"), Body: body, body: doc.Text[body.From:body.To]}
	if err := c.readTimes(body); err != nil {
		return nil, err
	}
	if err := c.readParties(body); err != nil {
		return nil, err
	}
	if err := c.readSignature(root.One("SIGNATURE")); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Certificate) readTimes(body *xmltree.Node) (err error) {
	if c.Issued, err = readTime(body, "ISSUEDTIME"); err != nil {
		return err
	}
	if c.Valid, err = readPeriod(body.One("VALIDITYTIME")); err != nil {
		return err
	}
	for _, group := range body.One("WORK").All("RIGHTSGROUP") {
		if group.Attr("name") != "Main-Rights" {
			continue
		}
		for _, right := range group.One("RIGHTSLIST").All("RIGHT") {
			if right.Attr("name") != "ISSUE" {
				continue
			}
			if c.Issuing, err = readPeriod(right.One("CONDITIONLIST", "TIME", "RANGETIME")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Certificate) readParties(body *xmltree.Node) error {
	c.Descriptor = readObject(body.One("DESCRIPTOR"))
	var err error
	if c.Issuer, err = readPrincipal(body.One("ISSUER")); err != nil {
		return fmt.Errorf("the issuer: %w", err)
	}
	if c.Issuer.Key == nil {
		return errors.New("the certificate does not name its issuer's key")
	}
	for _, p := range body.One("ISSUEDPRINCIPALS").All("PRINCIPAL") {
		principal, err := readPrincipal(p)
		if err != nil {
			return fmt.Errorf("the principal: %w", err)
		}
		c.Principals = append(c.Principals, principal)
	}
	return nil
}

// readObject reads the OBJECT of the node; what is missing stays empty.
func readObject(n *xmltree.Node) Object {
	object := n.One("OBJECT")
	id := object.One("ID")
	return Object{
		Type: object.Attr("type"), IDType: id.Attr("type"), ID: id.Text(),
		Name: readName(object), URL: object.TextOf("ADDRESS"),
	}
}

// readName reads the NAME; a template may have one for each language.
func readName(object *xmltree.Node) string {
	var all strings.Builder
	for _, name := range object.All("NAME") {
		all.WriteString(name.Text())
	}
	return all.String()
}

func readPrincipal(n *xmltree.Node) (Principal, error) {
	p := Principal{Object: readObject(n)}
	if len(n.All("PUBLICKEY")) == 0 {
		return p, nil
	}
	var err error
	p.Key, err = readKey(n.One("PUBLICKEY"))
	return p, err
}

// readKey reads a public key. Its size is bounded, and so is the time that a signature
// takes to verify.
func readKey(n *xmltree.Node) (*rsa.PublicKey, error) {
	if algorithm := n.TextOf("ALGORITHM"); algorithm != "RSA" {
		return nil, fmt.Errorf("the public key's algorithm is %s, expected RSA", control.Quote(algorithm))
	}
	parameter := func(name string) *xmltree.Node {
		for _, p := range n.All("PARAMETER") {
			if p.Attr("name") == name {
				return p.One("VALUE")
			}
		}
		return nil
	}
	if e := parameter("public-exponent").Text(); e != "65537" {
		return nil, fmt.Errorf("the public key's exponent is %s, expected 65537", control.Quote(e))
	}
	value := parameter("modulus")
	modulus, err := readValue(value)
	if err != nil {
		return nil, fmt.Errorf("the public key's modulus: %w", err)
	}
	if 8*len(modulus) > capi.MaxBits {
		return nil, fmt.Errorf("the public key has %d bits, expected at most %d", 8*len(modulus), capi.MaxBits)
	}
	slices.Reverse(modulus)
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	if key.N.BitLen() != 8*len(modulus) || key.N.Bit(0) == 0 {
		return nil, fmt.Errorf("the public key's modulus is not an odd number of %d bits, little-endian", 8*len(modulus))
	}
	return key, nil
}

// readValue reads a VALUE in base64, in which there may be white space, whose
// size attribute, if there is one, counts bits.
func readValue(n *xmltree.Node) ([]byte, error) {
	value, err := n.Base64()
	if err != nil {
		return nil, fmt.Errorf("not base64: %w", err)
	}
	if len(value) == 0 {
		return nil, errors.New("it is missing")
	}
	if size := n.Attr("size"); size != "" && size != strconv.Itoa(8*len(value)) {
		return nil, fmt.Errorf("it has %d bits, its size attribute says %s", 8*len(value), control.Quote(size))
	}
	return value, nil
}

func readPeriod(n *xmltree.Node) (p Period, err error) {
	if p.From, err = readTime(n, "FROM"); err == nil {
		p.Until, err = readTime(n, "UNTIL")
	}
	return p, err
}

// readTime returns the zero time where there is no such element.
func readTime(n *xmltree.Node, name string) (time.Time, error) {
	if len(n.All(name)) == 0 {
		return time.Time{}, nil
	}
	t, err := time.Parse("2006-01-02T15:04", n.TextOf(name))
	if err != nil {
		return t, fmt.Errorf("%s is not a time as in 2010-06-11T20:52: %s", name, control.Quote(n.TextOf(name)))
	}
	return t, nil
}
