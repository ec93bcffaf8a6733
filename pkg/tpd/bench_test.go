// SPDX-License-Identifier: Apache-2.0

package tpd

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyferry/internal/cores"
	"keyferry/pkg/tpd/xrml"
	"keyferry/test/vectors"
)

// bigExport is an export of some 100 MB.
var bigExport = sync.OnceValue(func() vectors.TPD { return writeBig(6000) })

// writeBig writes an export of that many templates, of 17 kB each, in two
// languages, with five rights of 14 people. 6,000 take some seconds: most of it
// are the signatures.
func writeBig(templates int) vectors.TPD {
	s := &spec{
		password: bigPassword,
		outer:    style{declaration: `<?xml version="1.0"?>`, lineEnd: "\r\n"},
		inner:    style{declaration: `<?xml version="1.0"?>`, lineEnd: "\r\n"},
	}
	for i := range templates {
		t := templateSpec{rights: []string{"OWNER", "VIEW", "EDIT", "PRINT", "REPLY"}, principals: 14, names: [][3]string{
			{"1033", fmt.Sprintf("Contoso Confidential %d", i), "Only for those who are named here"},
			{"1031", fmt.Sprintf("Contoso Vertraulich %d", i), "Nur für die, die hier genannt sind"},
		}}
		binary.BigEndian.PutUint64(t.guid[:], uint64(i))
		s.templates = append(s.templates, t)
	}
	return vectorOf(s.write())
}

const bigPassword = "Passw0rd!"

func vectorOf(file []byte) vectors.TPD {
	return vectors.TPD{Name: "big", XML: file, Password: []byte(bigPassword)}
}

// BenchmarkRead reads the big export: to the ciphertext, to the decrypted
// document, through the last template's digest without RSA on one core, and
// with every check, RSA too, on all cores. Beside it, what others need to see
// the outer file's tokens only. What goes through to the templates is held
// against the primitives, measured in between: x-primitives.
func BenchmarkRead(b *testing.B) {
	v := bigExport()
	e := parsed(b, v)
	text := base64.StdEncoding.EncodeToString(e.document)
	run := func(name string, read func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(v.XML)))
			b.ReportAllocs()
			var own, bare time.Duration
			for b.Loop() {
				start := cpuTime(b)
				read(b)
				own += cpuTime(b) - start
				b.StopTimer()
				start = cpuTime(b)
				primitives(b, text)
				bare += cpuTime(b) - start
				b.StartTimer()
			}
			// What it costs on a machine that has other things to do too.
			b.ReportMetric(float64(len(v.XML))*float64(b.N)/1e6/own.Seconds(), "MB/core-s")
			b.ReportMetric(own.Seconds()/bare.Seconds(), "x-primitives")
		})
	}
	run("ciphertext", func(b *testing.B) { parsed(b, v) })
	run("decrypted", func(b *testing.B) {
		if _, padded := decrypt(parsed(b, v).document, currentKey(v.Password)); !padded {
			b.Fatal("not decrypted")
		}
	})
	run("document", func(b *testing.B) { openedDocument(b, v) })
	run("templates", func(b *testing.B) {
		read := templateReader(b)
		for _, text := range openedDocument(b, v).Templates {
			read(text)
		}
	})
	run("templates-all-cores", func(b *testing.B) {
		texts := openedDocument(b, v).Templates
		cores.Each(len(texts), func() func(int) {
			read := templateReader(b)
			return func(i int) { read(texts[i]) }
		})
	})
	run("checked-RSA-all-cores", func(b *testing.B) {
		_, d := open(b, v)
		if r := d.Check(now); len(r.Templates) != 6000 || r.Verdict != VerdictHSM {
			b.Fatal(r.Err())
		}
	})
	run("encoding-xml-outer-tokens", func(b *testing.B) { readTokens(b, v.XML) })
	run("primitives", func(b *testing.B) { primitives(b, text) })
	b.Run("xmllint-stream", func(b *testing.B) { benchmarkXMLLint(b, v.XML) })
}

func readTokens(b *testing.B, file []byte) {
	for dec := xml.NewDecoder(bytes.NewReader(file)); ; {
		if _, err := dec.Token(); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// primitives is what no reader comes around, by the standard library: to decode
// the field, to decrypt it, and to hash as many bytes as its templates' bodies
// have in UTF-16. What "templates" takes is to be held against it, since the
// machine's speed is not always the same.
func primitives(b *testing.B, text string) {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		b.Fatal(err)
	}
	cipher.NewCBCDecrypter(newCipher(currentKey(nil)), initialVector).CryptBlocks(data, data)
	h := sha256.New()
	for range 2 { // the bodies are some 7 in 10 bytes of the document, twice that in UTF-16
		h.Write(data[:len(data)*7/10])
	}
	h.Sum(nil)
}

// cpuTime is the time that all threads of this process were on a core.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func parsed(b *testing.B, v vectors.TPD) *Export {
	e, err := Parse(v.XML)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// templateReader does with a template what a check does, but for RSA.
func templateReader(b *testing.B) func(text string) {
	reader := new(xrml.Reader)
	return func(text string) {
		cert, _, err := readTemplate(reader, text)
		if err == nil {
			err = cert.VerifyDigest()
		}
		if err != nil {
			b.Error(err)
		}
	}
}

// openedDocument is all of Decrypt but the check of the key, which takes the
// same 10 ms whatever the size of the file.
func openedDocument(b *testing.B, v vectors.TPD) *Domain {
	d, err := parsed(b, v).openDocument(deriveKeys(v.Password))
	if err != nil {
		b.Fatal(err)
	}
	return d
}

func benchmarkXMLLint(b *testing.B, file []byte) {
	path, err := exec.LookPath("xmllint")
	if err != nil {
		b.Skip("NOT MEASURED: no xmllint command to compare with; apt-get install libxml2-utils")
	}
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		cmd := exec.Command(path, "--stream", "--huge", "--noout", "-")
		cmd.Stdin = bytes.NewReader(file)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
