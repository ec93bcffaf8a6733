// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"testing"

	"keyferry/internal/vectors"
	"keyferry/pkg/xrml"
)

// BenchmarkRead reads an export of 60 templates: to the decrypted document and
// key, through the last parsed template, and with every check.
func BenchmarkRead(b *testing.B) {
	v := vectors.OneTPD(b, "contoso-60-templates")
	for _, stage := range []struct {
		name string
		then func(*Domain)
	}{
		{"decrypted", func(*Domain) {}},
		{"templates", func(d *Domain) {
			for _, text := range append(d.Chain, d.Templates...) {
				if _, err := xrml.Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		}},
		{"checked", func(d *Domain) {
			if _, err := d.Checked(now); err != nil {
				b.Fatal(err)
			}
		}},
	} {
		b.Run(stage.name, func(b *testing.B) {
			b.SetBytes(int64(len(v.XML)))
			b.ReportAllocs()
			for b.Loop() {
				_, d := open(b, v)
				stage.then(d)
			}
		})
	}
}
