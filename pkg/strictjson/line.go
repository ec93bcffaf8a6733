// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
)

// A document that is signed, or that a signed one commits to, has one spelling:
// one line, fields in the order of the struct, nothing escaped for HTML, a line
// feed at the end.

// errSpelling says that a document is understood but not spelled so.
var errSpelling = errors.New("a field is missing, or it is not spelled as Keyferry spells it")

// MarshalLine writes v as one line.
func MarshalLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// UnmarshalLine reads, as [Unmarshal] does, what [MarshalLine] wrote, and only
// that: so no field can be left out either.
func UnmarshalLine(data []byte, limit int, v any) error {
	if err := Unmarshal(data, limit, v); err != nil {
		return err
	}
	again, err := MarshalLine(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errSpelling
	}
	return nil
}
