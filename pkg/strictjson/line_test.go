// SPDX-License-Identifier: Apache-2.0

package strictjson

import "testing"

func TestLine(t *testing.T) {
	type doc struct {
		Text string `json:"text"`
		Flag bool   `json:"flag"`
	}
	const good = `{"text":"<a> & b","flag":false}` + "\n"
	line, err := MarshalLine(doc{"<a> & b", false})
	if err != nil || string(line) != good {
		t.Fatalf("%q, %v", line, err)
	}
	var d doc
	if err := UnmarshalLine(line, 100, &d); err != nil || d.Text != "<a> & b" {
		t.Fatalf("%+v, %v", d, err)
	}
	for name, bad := range map[string]string{
		"no line feed":    good[:len(good)-1],
		"two line feeds":  good + "\n",
		"a space":         `{"text": "<a> & b","flag":false}` + "\n",
		"another order":   `{"flag":false,"text":"<a> & b"}` + "\n",
		"a field missing": `{"text":"<a> & b"}` + "\n",
		"escaped":         `{"text":"\u003ca> & b","flag":false}` + "\n",
		"unknown field":   `{"text":"<a> & b","flag":false,"x":1}` + "\n",
	} {
		if err := UnmarshalLine([]byte(bad), 100, &d); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
