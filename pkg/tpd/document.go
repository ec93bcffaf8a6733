// SPDX-License-Identifier: Apache-2.0

package tpd

import (
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
func (l layer) readArray(data []byte, extra *extras) (*xmltree.Document, xmltree.Node, error) {
	doc, err := xmltree.Parse(data)
	if err != nil {
		return nil, nil, l.format.Refuse("%s is not what AD RMS writes: %w", l.what, err)
	}
	for _, passed := range doc.Passed {
		extra.note(passed)
	}
	root := doc.Root()
	if root.Name() != "ArrayOfAnyType" {
		return nil, nil, l.format.Refuse("%s is not what AD RMS writes: its root element is %s, expected ArrayOfAnyType", l.what, control.Quote(root.Name()))
	}
	if n := root.Count("anyType"); n != 1 {
		return nil, nil, control.TPDOneDomain.Refuse("%s holds %d trusted publishing domains, expected exactly one", l.what, n)
	}
	domain := root.One("anyType")
	if t := domain.AttrIn(schemaInstance, "type"); t != l.typeName {
		return nil, nil, l.format.Refuse("%s is not what AD RMS writes: its element is of the type %s, expected %s", l.what, control.Quote(t), l.typeName)
	}
	extra.noteAttributes(root)
	return doc, domain, l.checkShape(root, extra, "anyType")
}

// checkShape demands that each known child element occurs at most once and, if
// it is null, is empty. It notes the unknown ones.
func (l layer) checkShape(n xmltree.Node, extra *extras, known ...string) error {
	seen := map[string]bool{}
	for _, name := range known {
		seen[name] = false
	}
	for child := range n.Children() {
		occurred, ok := seen[child.Name()]
		if !ok {
			extra.note(child.Name())
			continue
		}
		if occurred {
			return l.format.Refuse("%s occurs twice in %s", child.Name(), l.what)
		}
		seen[child.Name()] = true
		if isNull(child) && hasContent(child) {
			return l.format.Refuse("%s in %s is declared null but has content", child.Name(), l.what)
		}
		extra.noteAttributes(child)
	}
	return nil
}

// isNull reports whether the element says that it is null.
func isNull(n xmltree.Node) bool {
	null := n.AttrIn(schemaInstance, "nil")
	return null == "true" || null == "1"
}

func hasContent(n xmltree.Node) bool { return n.Text() != "" || n.HasChildren() }

// extras names what AD RMS does not write, each once.
type extras []string

// maxExtras bounds how much of it is remembered.
const maxExtras = 16

func (e *extras) note(name string) {
	if len(*e) < maxExtras && !slices.Contains(*e, name) {
		*e = append(*e, strings.Clone(name)) // lets go of the document
	}
}

// writtenAttributes are those that XmlSerializer writes.
var writtenAttributes = []xmltree.Attr{{Space: schemaInstance, Name: "type"}, {Space: schemaInstance, Name: "nil"}, {Space: xmltree.XMLNamespace, Name: "space"}}

// noteAttributes notes the other attributes of a known element.
func (e *extras) noteAttributes(n xmltree.Node) {
	for _, a := range n.Attrs() {
		if !slices.Contains(writtenAttributes, xmltree.Attr{Space: a.Space, Name: a.Name}) {
			e.note("the attribute " + a.Name + " of " + n.Name())
		}
	}
}

// readDocument fills in the domain from the decrypted document.
func (d *Domain) readDocument(plain []byte) error {
	_, domain, err := innerLayer.readArray(plain, &d.extra)
	if err != nil {
		return err
	}
	if err := innerLayer.checkShape(domain, &d.extra, "m_ttdki", "m_strLicensorCertChain", "m_astrRightsTemplates"); err != nil {
		return err
	}
	if info := domain.One("m_ttdki"); info.HasChildren() {
		if err := d.readKeyInfo(info); err != nil {
			return err
		}
	}
	d.Chain = d.readStrings(domain.One("m_strLicensorCertChain"))
	d.Templates = d.readStrings(domain.One("m_astrRightsTemplates"))
	return nil
}

func (d *Domain) readKeyInfo(n xmltree.Node) error {
	if err := innerLayer.checkShape(n, &d.extra, "strID", "strIDType", "nCSPType", "strCSPName", "strKeyContainerName", "nKeyNumber", "strEncryptedPrivateKey"); err != nil {
		return err
	}
	cspType, err := readNumber(n, "nCSPType")
	if err != nil {
		return err
	}
	keyNumber, err := readNumber(n, "nKeyNumber")
	if err != nil {
		return err
	}
	text := func(name string) string { return strings.Clone(n.TextOf(name)) } // lets go of the document
	d.Info = &KeyInfo{
		ID: text("strID"), IDType: text("strIDType"), CSPType: cspType, CSPName: text("strCSPName"),
		ContainerName: text("strKeyContainerName"), KeyNumber: keyNumber,
		embedded: hasContent(n.One("strEncryptedPrivateKey")),
	}
	return nil
}

// readStrings reads a list of strings, and passes over those that are null.
func (d *Domain) readStrings(list xmltree.Node) []string {
	all := make([]string, 0, list.Count("string"))
	for child := range list.Children() {
		if child.Name() != "string" {
			d.extra.note(child.Name())
			continue
		}
		d.extra.noteAttributes(child)
		if !isNull(child) || hasContent(child) {
			all = append(all, child.Text())
		}
	}
	return all
}

// readNumber reads an int; absent is 0, as in .NET.
func readNumber(n xmltree.Node, name string) (int, error) {
	text := strings.TrimSpace(n.TextOf(name))
	if text == "" {
		return 0, nil
	}
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, control.TPDDocument.Refuse("%s of the TPD export is not a number: %s", name, control.Quote(text))
	}
	return int(number), nil
}
