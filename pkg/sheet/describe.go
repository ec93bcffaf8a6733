// SPDX-License-Identifier: Apache-2.0

package sheet

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
)

// Describe writes a record of a ledger for people: number, time and event, then a line for
// each fact, in the record's order.
func Describe(e ledger.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d  %s  %s\n", e.Seq, e.Time.Format(time.DateTime+"Z"), control.Plain(e.Event))
	d := json.NewDecoder(bytes.NewReader(e.Data)) // whole JSON: the record was read
	d.UseNumber()
	describe(&b, d, "")
	return b.String()
}

// describe writes the next value of d, and all in it, a line each.
func describe(b *strings.Builder, d *json.Decoder, label string) {
	token, err := d.Token()
	if err != nil {
		return
	}
	switch t := token.(type) {
	case json.Delim:
		for i := 1; d.More(); i++ {
			below := fmt.Sprintf("%s %d", label, i)
			if t == '{' {
				name, err := d.Token()
				if err != nil {
					return
				}
				below = label + " " + strings.ReplaceAll(fmt.Sprint(name), "_", " ")
			}
			describe(b, d, strings.TrimSpace(below))
		}
		_, _ = d.Token() // its end
	case string:
		fact(b, label, t)
	default:
		fact(b, label, fmt.Sprint(t))
	}
}

func fact(b *strings.Builder, label, value string) {
	if value == "" || value == (fingerprint.Fingerprint{}).String() {
		value = "-"
	}
	fmt.Fprintf(b, "      %-21s %s\n", label, control.Plain(value))
}
