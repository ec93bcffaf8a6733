// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Bits int `json:"bits"`
}

type document struct {
	Name   string           `json:"name"`
	Raw    []byte           `json:"raw,omitempty"`
	Time   time.Time        `json:"time,omitzero"`
	Inner  inner            `json:"inner,omitzero"`
	Pair   *inner           `json:"pair,omitempty"`
	List   []inner          `json:"list,omitempty"`
	Array  [2]inner         `json:"array,omitzero"`
	Tags   map[string]inner `json:"tags,omitempty"`
	Open   json.RawMessage  `json:"open,omitempty"`
	Any    any              `json:"any,omitempty"`
	Hidden string           `json:"-"`
	Bare   string
}

const limit = 1 << 10

// good is every form that a document may have; bad differs from it by one
// attack each. Both seed the fuzzing as well.
var good = map[string]string{
	"plain":               `{"name":"a"}`,
	"white space":         " {\n\t\"name\" : \"a\" }\r\n",
	"empty":               `{}`,
	"escaped name":        `{"n\u0061me":"a"}`,
	"bytes":               `{"raw":"AQID"}`,
	"time":                `{"time":"2026-11-23T14:00:00Z"}`,
	"struct":              `{"inner":{"bits":1}}`,
	"pointer":             `{"pair":{"bits":1}}`,
	"null pointer":        `{"pair":null}`,
	"slice":               `{"list":[{"bits":1},{"bits":2}]}`,
	"array":               `{"array":[{"bits":1},{"bits":2}]}`,
	"map":                 `{"tags":{"Any name":{"bits":1},"any name":{"bits":2}}}`,
	"raw message":         `{"open":{"Any":[{"bits":1},1e999]}}`,
	"interface":           `{"any":{"Any":[true,null,1]}}`,
	"same name elsewhere": `{"name":"a","open":{"name":"b"}}`,
	"as deep as allowed":  `{"open":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`,
	"as long as allowed":  `{"name":"` + strings.Repeat("x", limit-len(`{"name":""}`)) + `"}`,
}

var bad = map[string]struct{ document, says string }{
	"nothing":                           {``, "EOF"},
	"cut short":                         {`{"name":"a"`, "EOF"},
	"unknown name":                      {`{"nome":"a"}`, `"nome" is unknown`},
	"hidden field":                      {`{"Hidden":"a"}`, `"Hidden" is unknown`},
	"name of a hidden tag":              {`{"-":"a"}`, `"-" is unknown`},
	"field without a tag":               {`{"Bare":"a"}`, `"Bare" is unknown`},
	"empty name":                        {`{"":"a"}`, `"" is unknown`},
	"other case":                        {`{"Name":"a"}`, `"Name" is unknown`},
	"dotless i":                         {`{"lıst":[]}`, "unknown"},
	"long s, which encoding/json folds": {`{"li` + "\u017f" + `t":[]}`, "unknown"},
	"duplicate":                         {`{"name":"a","name":"a"}`, `"name" occurs twice`},
	"duplicate by case":                 {`{"name":"a","NAME":"b"}`, `"NAME" is unknown`},
	"duplicate escaped":                 {`{"name":"a","n\u0061me":"b"}`, `"name" occurs twice`},
	"trailing object":                   {`{"name":"a"}{}`, "data follows"},
	"trailing delimiter":                {`{"name":"a"}}`, "data follows"},
	"trailing word":                     {`{"name":"a"} x`, "data follows"},
	"trailing NUL":                      {"{\"name\":\"a\"}\x00", "data follows"},
	"too deep":                          {`{"open":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + `}`, "nested too deeply"},
	"too deep, not closed":              {strings.Repeat(`{"open":`, 100_000)[:limit], "nested too deeply"},
	"too long":                          {`{"name":"` + strings.Repeat("x", limit-len(`{"name":""}`)+1) + `"}`, "more than the 1024 allowed"},
	"not UTF-8":                         {"{\"name\":\"\xff\"}", "not UTF-8"},
	"byte order mark":                   {"\ufeff{\"name\":\"a\"}", "invalid character"},
	"in a struct":                       {`{"inner":{"Bits":1}}`, `"Bits" is unknown`},
	"in a pointer":                      {`{"pair":{"bits":1,"bits":2}}`, "occurs twice"},
	"in a slice":                        {`{"list":[{"bits":1},{"BITS":2}]}`, `"BITS" is unknown`},
	"in an array":                       {`{"array":[{"bits":1},{"x":2}]}`, `"x" is unknown`},
	"in a map":                          {`{"tags":{"a":{"bits":1},"a":{"bits":2}}}`, `"a" occurs twice`},
	"in a map's value":                  {`{"tags":{"a":{"Bits":1}}}`, `"Bits" is unknown`},
	"in a raw message":                  {`{"open":{"a":1,"a":2}}`, `"a" occurs twice`},
	"in an interface":                   {`{"any":[{"a":1,"a":2}]}`, `"a" occurs twice`},
	"bad time":                          {`{"time":"yesterday"}`, "parsing time"},
	"wrong type":                        {`{"name":1}`, "cannot unmarshal number"},
	"object for a string":               {`{"name":{"a":1}}`, "cannot unmarshal object"},
	"array for a struct":                {`{"inner":[1]}`, "cannot unmarshal array"},
	"comma at the end":                  {`{"name":"a",}`, "invalid character"},
	"comma in an array":                 {`{"list":[,]}`, "invalid character"},
	"two names":                         {`{"name" "x":"a"}`, "invalid character"},
	"a name that is none":               {`{1:"a"}`, "invalid character"},
}

func TestGood(t *testing.T) {
	for name, doc := range good {
		t.Run(name, func(t *testing.T) {
			var got, want document
			if err := Unmarshal([]byte(doc), limit, &got); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(doc), &want); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v; encoding/json reads %+v, %v", got, want, err)
			}
		})
	}
}

func TestBad(t *testing.T) {
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			var got document
			err := Unmarshal([]byte(c.document), limit, &got)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %+v, %v; want an error that says %q", got, err, c.says)
			}
		})
	}
}

// Most of what is refused is what encoding/json takes: that is what the package
// is for.
func TestEncodingJSONIsLax(t *testing.T) {
	lax := 0
	for _, c := range bad {
		if json.Unmarshal([]byte(c.document), new(document)) == nil {
			lax++
		}
	}
	t.Logf("%d of %d bad documents pass encoding/json", lax, len(bad))
	if lax < 20 {
		t.Errorf("only %d bad documents pass encoding/json: the table no longer shows what it should", lax)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, doc := range good {
		f.Add([]byte(doc))
	}
	for _, c := range bad {
		f.Add([]byte(c.document))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want, again document
		if Unmarshal(data, limit, &got) != nil {
			return
		}
		if err := json.Unmarshal(data, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v; encoding/json reads %+v, %v", got, want, err)
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		written = []byte(strings.Replace(string(written), `,"Bare":""`, "", 1))
		if err := Unmarshal(written, 100*limit, &again); err != nil {
			t.Fatalf("%s was read, what it is written as is not: %s: %v", data, written, err)
		}
	})
}
