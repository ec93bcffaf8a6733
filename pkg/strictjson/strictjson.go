// SPDX-License-Identifier: Apache-2.0

// Package strictjson reads JSON that came over the air gap, where a document
// that two readers understand differently is an attack: unknown names,
// duplicate names, names that differ from the field's in case, text that is not
// UTF-8, trailing data, deep nesting and oversize documents are errors.
// encoding/json alone accepts all but trailing data.
package strictjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a document.
const maxDepth = 32

const tooLong = "%d bytes are more than the %d allowed"

// Unmarshal reads one JSON document of at most limit bytes into v, a pointer to
// a type whose structs have a json tag with a name on each field and embed
// nothing. Where v leaves the form open (json.RawMessage, a type that unmarshals
// itself), any name goes, but once only.
func Unmarshal(data []byte, limit int, v any) error {
	if len(data) > limit {
		return fmt.Errorf(tooLong, len(data), limit)
	}
	if !utf8.Valid(data) {
		return errors.New("the document is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := check(d, reflect.TypeOf(v), 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data follows the document")
	}
	return json.Unmarshal(data, v)
}

// check walks over one value of the document beside t, the type that it will
// be read into; a nil t is open.
func check(d *json.Decoder, t reflect.Type, depth int) error {
	if depth > maxDepth {
		return errors.New("the document is nested too deeply")
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	t = plain(t)
	switch token {
	case json.Delim('{'):
		err = checkObject(d, t, depth)
	case json.Delim('['):
		err = checkArray(d, t, depth)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	_, err = d.Token() // the closing delimiter
	return err
}

func checkObject(d *json.Decoder, t reflect.Type, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string) // a name is one, or Token fails
		if seen[name] {
			return fmt.Errorf("the name %.40q occurs twice", name)
		}
		seen[name] = true
		member, known := memberType(t, name)
		if !known {
			return fmt.Errorf("the name %.40q is unknown", name)
		}
		if err := check(d, member, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func checkArray(d *json.Decoder, t reflect.Type, depth int) error {
	var element reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		element = t.Elem()
	}
	for d.More() {
		if err := check(d, element, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// memberType returns the type that an object's member is read into.
func memberType(t reflect.Type, name string) (member reflect.Type, known bool) {
	switch {
	case t == nil:
		return nil, true
	case t.Kind() == reflect.Map:
		return t.Elem(), true
	case t.Kind() != reflect.Struct:
		return nil, true // json.Unmarshal says what is wrong
	}
	for i := range t.NumField() {
		if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name && tag != "" && tag != "-" {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

var (
	ownJSON = reflect.TypeFor[json.Unmarshaler]()
	ownText = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// plain returns the type that t points to in the end, or nil if it unmarshals
// itself or holds anything.
func plain(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() == reflect.Interface || reflect.PointerTo(t).Implements(ownJSON) || reflect.PointerTo(t).Implements(ownText) {
		return nil
	}
	return t
}
