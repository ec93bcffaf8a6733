// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/tpd/xmltree"
)

const schemaInstance = "http://www.w3.org/2001/XMLSchema-instance"

// layer is one of the two documents of an export, which have the same frame.
type layer struct {
	typeName string // of its only element
	what     string // in messages
	format   control.Control
}

var (
	outerLayer = layer{"EncryptedTrustedDocDomain", "the file", control.TPDFormat}
	innerLayer = layer{"TrustedDocDomain", "the document in the TPD export", control.TPDDocument}
)

// KeyInfo is m_ttdki: how AD RMS kept the key.
type KeyInfo struct {
	ID            string // strID, as it stands
	IDType        string // "MS-GUID"
	CSPType       int    // 1 PROV_RSA_FULL, 24 PROV_RSA_AES
	CSPName       string
	ContainerName string
	KeyNumber     int // 1 exchange, 2 signature

	embedded bool // strEncryptedPrivateKey is there
}

// readArray reads XmlSerializer output for a list and returns its only element.
func (l layer) readArray(data []byte, extra *extras) (*xmltree.Node, error) {
	doc, err := xmltree.Parse(data)
	switch {
	case errors.Is(err, xmltree.ErrTooMuch):
		return nil, control.TPDSize.Refuse("%s can't be read: %w", l.what, err)
	case errors.Is(err, xmltree.ErrNUL):
		return nil, l.format.Refuse("%s can't be read: %w", l.what, err).
			WithHint("a name or description in AD RMS ends in a NUL character, which few services read: type it anew in AD RMS, and export the domain again")
	case err != nil:
		return nil, l.format.Refuse("%s is not what AD RMS writes: %w", l.what, err)
	case slices.Contains(doc.Passed, xmltree.CDATA):
		return nil, l.format.Refuse("%s is not what AD RMS writes: there is a CDATA section in it", l.what)
	}
	for _, passed := range doc.Passed {
		extra.note(passed)
	}
	root := doc.Root
	if err := l.checkNull(root); err != nil {
		return nil, err
	}
	if root.Name != "ArrayOfAnyType" {
		return nil, l.format.Refuse("%s is not what AD RMS writes: its root element is %s, expected ArrayOfAnyType", l.what, control.Quote(root.Name))
	}
	if n := len(root.All("anyType")); n != 1 {
		return nil, control.TPDOneDomain.Refuse("%s holds %d trusted publishing domains, expected exactly one", l.what, n)
	}
	domain := root.One("anyType")
	if t := domain.AttrIn(schemaInstance, "type"); t != l.typeName {
		return nil, l.format.Refuse("%s is not what AD RMS writes: its element is of the type %s, expected %s", l.what, control.Quote(t), l.typeName)
	}
	extra.noteAttributes(root)
	return domain, l.checkShape(root, extra, "anyType")
}

// checkShape demands that each known child element occurs at most once and, if
// it is null, is empty. It notes the unknown ones.
func (l layer) checkShape(n *xmltree.Node, extra *extras, known ...string) error {
	seen := map[string]bool{}
	for _, child := range n.Children {
		if !slices.Contains(known, child.Name) {
			extra.note(child.Name)
			continue
		}
		if seen[child.Name] {
			return l.format.Refuse("%s occurs twice in %s", child.Name, l.what)
		}
		seen[child.Name] = true
		if err := l.checkNull(child); err != nil {
			return err
		}
		extra.noteAttributes(child)
	}
	return nil
}

// checkNull demands of an element that says whether it is null that it says so
// as .NET reads it, and then is empty.
func (l layer) checkNull(n *xmltree.Node) error {
	switch null := strings.Trim(n.AttrIn(schemaInstance, "nil"), " "); {
	case !slices.Contains([]string{"", "true", "1", "false", "0"}, null):
		return l.format.Refuse("%s in %s has xsi:nil with the value %s, expected true or false", n.Name, l.what, control.Quote(null))
	case isNull(n) && n.HasContent():
		return l.format.Refuse("%s in %s is declared null but has content", n.Name, l.what)
	}
	return nil
}

// isNull reports whether the element says that it is null.
func isNull(n *xmltree.Node) bool {
	null := strings.Trim(n.AttrIn(schemaInstance, "nil"), " ")
	return null == "true" || null == "1"
}

// extras names what AD RMS does not write, each once.
type extras []string

// maxExtras bounds how much of it is remembered.
const maxExtras = 16

func (e *extras) note(name string) {
	if len(*e) < maxExtras && !slices.Contains(*e, name) {
		*e = append(*e, name)
	}
}

// writtenAttributes are those that XmlSerializer writes.
var writtenAttributes = []xmltree.Attr{{Space: schemaInstance, Name: "type"}, {Space: schemaInstance, Name: "nil"}, {Space: xmltree.XMLNamespace, Name: "space"}}

// noteAttributes notes the other attributes of a known element.
func (e *extras) noteAttributes(n *xmltree.Node) {
	for _, a := range n.Attrs {
		if !slices.Contains(writtenAttributes, xmltree.Attr{Space: a.Space, Name: a.Name}) {
			e.note("the attribute " + a.Name + " of " + n.Name)
		}
	}
}

// readDocument fills in the domain from the decrypted document.
func (d *Domain) readDocument(plain []byte) error {
	domain, err := innerLayer.readArray(plain, &d.DocumentExtra)
	if err != nil {
		return err
	}
	if err := innerLayer.checkShape(domain, &d.DocumentExtra, "m_ttdki", "m_strLicensorCertChain", "m_astrRightsTemplates"); err != nil {
		return err
	}
	if info := domain.One("m_ttdki"); info != nil && len(info.Children) > 0 {
		if err := d.readKeyInfo(info); err != nil {
			return err
		}
	}
	if d.Chain, err = d.readStrings(domain.One("m_strLicensorCertChain"), "certificates", maxCertificates); err != nil {
		return err
	}
	d.Templates, err = d.readStrings(domain.One("m_astrRightsTemplates"), "rights policy templates", maxTemplates)
	return err
}

func (d *Domain) readKeyInfo(n *xmltree.Node) error {
	if err := innerLayer.checkShape(n, &d.DocumentExtra, "strID", "strIDType", "nCSPType", "strCSPName", "strKeyContainerName", "nKeyNumber", "strEncryptedPrivateKey"); err != nil {
		return err
	}
	for _, a := range n.Attrs {
		if a.Space == schemaInstance && a.Name == "type" && a.Value != "KeyInformation" {
			return control.TPDDocument.Refuse("m_ttdki of the TPD export is of the type %s, expected KeyInformation: no service reads it so", control.Quote(a.Value))
		}
	}
	cspType, err := readNumber(n, "nCSPType")
	if err != nil {
		return err
	}
	keyNumber, err := readNumber(n, "nKeyNumber")
	if err != nil {
		return err
	}
	d.Info = &KeyInfo{
		ID: n.TextOf("strID"), IDType: n.TextOf("strIDType"), CSPType: cspType, CSPName: n.TextOf("strCSPName"),
		ContainerName: n.TextOf("strKeyContainerName"), KeyNumber: keyNumber,
		embedded: n.One("strEncryptedPrivateKey").HasContent(),
	}
	return nil
}

// readStrings reads a list of strings. It passes over those that are null, and
// counts them.
func (d *Domain) readStrings(list *xmltree.Node, what string, most int) ([]xmltree.Text, error) {
	if n := len(list.All("string")); n > most {
		return nil, control.TPDSize.Refuse("the TPD export holds %d %s, at most %d are read", n, what, most)
	}
	all := []xmltree.Text{}
	if list == nil {
		return all, nil
	}
	for _, child := range list.Children {
		if child.Name != "string" {
			d.DocumentExtra.note(child.Name)
			continue
		}
		if err := innerLayer.checkNull(child); err != nil {
			return nil, err
		}
		d.DocumentExtra.noteAttributes(child)
		if isNull(child) {
			d.Nulls++
		} else {
			all = append(all, child.Readings())
		}
	}
	return all, nil
}

// readNumber reads an int; absent is 0, as in .NET, which refuses a document
// with an empty one.
func readNumber(n *xmltree.Node, name string) (int, error) {
	if len(n.All(name)) == 0 {
		return 0, nil
	}
	text := strings.Trim(n.TextOf(name), " \t\r\n")
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, control.TPDDocument.Refuse("%s of the TPD export is not a number: %s", name, control.Quote(text))
	}
	return int(number), nil
}
