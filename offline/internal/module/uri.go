// SPDX-License-Identifier: Apache-2.0

package module

import (
	"net/url"
	"strconv"
	"strings"

	"keyferry/pkg/control"
)

// URI names a token by a PKCS#11 URI (RFC 7512). An empty field names nothing.
type URI struct {
	Token        string // label
	Serial       string
	Manufacturer string
	Model        string
	SlotID       *uint
	ModulePath   string // of the query: which module, for Find

	text string
}

// String is the URI as it was given.
func (u *URI) String() string { return u.text }

// The characters that RFC 7512 allows unescaped, in the path and in the query.
const (
	uriChars      = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:[]@!$'()*+,="
	uriPathChars  = uriChars + "&"
	uriQueryChars = uriChars + "/?|"
)

// ParseURI reads a PKCS#11 URI that names a token:
//
//	pkcs11:token=LABEL;serial=…;manufacturer=…;model=…;slot-id=N?module-path=PATH
//
// each at most once, in any order, one of those before the question mark at
// least. Refuses (KF-HSM-URI) anything else: attributes of objects and of
// libraries, of which a token is not told apart, and a PIN or where to find it.
func ParseURI(text string) (*URI, error) {
	rest, ok := strings.CutPrefix(text, "pkcs11:")
	if !ok {
		return nil, uriRefusal(`it does not start with "pkcs11:"`)
	}
	u := &URI{text: text}
	path, query, hasQuery := strings.Cut(rest, "?")
	err := u.read(path, ";", uriPathChars, map[string]*string{
		"token": &u.Token, "serial": &u.Serial, "manufacturer": &u.Manufacturer, "model": &u.Model,
	})
	if err != nil {
		return nil, err
	}
	if hasQuery {
		if err := u.read(query, "&", uriQueryChars, map[string]*string{"module-path": &u.ModulePath}); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// read reads the attributes of one half of the URI.
func (u *URI) read(half, separator, chars string, known map[string]*string) error {
	for pair := range strings.SplitSeq(half, separator) {
		name, escaped, ok := strings.Cut(pair, "=")
		if !ok || escaped == "" {
			return uriRefusal("%s is no attribute with a value", control.Quote(pair))
		}
		if strings.ContainsFunc(escaped, func(r rune) bool { return r != '%' && !strings.ContainsRune(chars, r) }) {
			return uriRefusal("the value of %s has a character that is to be escaped with %%", control.Quote(name))
		}
		value, err := url.PathUnescape(escaped)
		if err != nil {
			return uriRefusal("the value of %s is badly escaped", control.Quote(name))
		}
		field := known[name]
		switch {
		case name == "slot-id" && separator == ";" && u.SlotID == nil:
			id, err := strconv.ParseUint(value, 10, strconv.IntSize-1)
			if err != nil {
				return uriRefusal("the slot-id %s is no number", control.Quote(value))
			}
			slot := uint(id)
			u.SlotID = &slot
		case name == "pin-value" || name == "pin-source":
			return uriRefusal("it has a %s, and a PIN comes from a prompt or its own file", name)
		case field == nil:
			return uriRefusal("the attribute %s is not one by which a token is chosen, or it is there twice", control.Quote(name))
		default:
			*field = value
			delete(known, name)
		}
	}
	return nil
}

func uriRefusal(format string, args ...any) error {
	// The URI is not shown: it may hold a PIN.
	return control.HSMURI.Refuse("the PKCS#11 URI can't be used: "+format, args...)
}
