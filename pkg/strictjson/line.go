// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// A document that is signed, or that a signed one commits to, has one spelling:
// fields in the order of the struct, nothing escaped for HTML, a line feed at
// the end. It stands in one line ([MarshalLine]) or, where people read it, has
// one field a line, as "jq ." writes it ([MarshalLines]).

// errSpelling says that a document is understood but has another spelling.
var errSpelling = errors.New("a field is missing, or it is not spelled as Keyferry spells it")

// MarshalLine writes v in one line.
func MarshalLine(v any) ([]byte, error) { return marshal(v, "") }

// MarshalLines writes v with one field a line, indented by two spaces.
func MarshalLines(v any) ([]byte, error) { return marshal(v, "  ") }

// UnmarshalLine reads a document of at most limit bytes that [MarshalLine] wrote.
// It refuses every other spelling: so no field can be left out, or be there twice,
// or be unknown, and nothing can follow.
func UnmarshalLine(data []byte, limit int, v any) error { return unmarshal(data, limit, v, "") }

// UnmarshalLines is [UnmarshalLine] for a document that [MarshalLines] wrote.
func UnmarshalLines(data []byte, limit int, v any) error { return unmarshal(data, limit, v, "  ") }

func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	err := e.Encode(v)
	return b.Bytes(), err
}

func unmarshal(data []byte, limit int, v any, indent string) error {
	if len(data) > limit {
		return fmt.Errorf(tooLong, len(data), limit)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	again, err := marshal(v, indent)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errSpelling
	}
	return nil
}
