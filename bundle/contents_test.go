// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// Payloads that the true sender sealed and signed, but should not have.
func TestContents(t *testing.T) {
	index := func(change func(*Index)) forgery { return forgery{index: change} }
	line := func(old, new string) forgery {
		return forgery{lines: func(line []byte) []byte {
			if !bytes.Contains(line, []byte(old)) {
				t.Fatalf("%q is not in %s", old, line)
			}
			return bytes.Replace(line, []byte(old), []byte(new), 1)
		}}
	}
	members := func(change func([]member) []member) forgery { return forgery{members: change} }
	// rename gives a file of the first key another path, in the index too.
	rename := func(path string) forgery {
		return forgery{
			index:   func(x *Index) { x.Keys[0].Files[0].Path = path },
			members: func(m []member) []member { m[1].name = path; return m },
		}
	}
	// plain adds a file of no key, in the index too.
	plain := func(path string) forgery {
		return forgery{
			index:   func(x *Index) { x.Files = append(x.Files, File{path, 1, fingerprint.Of([]byte("x"))}) },
			members: func(m []member) []member { return append(m, member{path, []byte("x")}) },
		}
	}
	for _, test := range []struct {
		name string
		forgery
		want control.Control // none: it opens
	}{
		{"nothing wrong", forgery{}, control.Control{}},
		{"one plain file more", plain("notes.txt"), control.Control{}},
		{"another file name", rename("keys/tenant-key/x_y-z.1"), control.Control{}},

		{"an undeclared member at the end", members(func(m []member) []member { return append(m, member{"x", nil}) }), control.BundleFormat},
		{"an undeclared member within", members(func(m []member) []member { return slices.Insert(m, 2, member{"x", nil}) }), control.BundleFormat},
		{"a missing member within", members(func(m []member) []member { return slices.Delete(m, 2, 3) }), control.BundleFormat},
		{"the last member missing", members(func(m []member) []member { return m[:len(m)-1] }), control.BundleFormat},
		{"members in another order", members(func(m []member) []member { m[1], m[2] = m[2], m[1]; return m }), control.BundleFormat},
		{"a member twice", members(func(m []member) []member { return slices.Insert(m, 2, m[1]) }), control.BundleFormat},
		{"a member renamed", members(func(m []member) []member { m[1].name += "x"; return m }), control.BundleFormat},
		{"a member longer", members(func(m []member) []member { m[1].data = append(m[1].data, 0); return m }), control.BundleFormat},
		{"a member changed", members(func(m []member) []member { m[1].data = bytes.Repeat([]byte{1}, 600); return m }), control.BundleContents},
		{"an empty payload", members(func(m []member) []member { return nil }), control.BundleContents},
		{"no index", members(func(m []member) []member { return m[1:] }), control.BundleContents},
		{"the index later", members(func(m []member) []member { m[0], m[1] = m[1], m[0]; return m }), control.BundleContents},
		{"the index under another name", members(func(m []member) []member { m[0].name = "index"; return m }), control.BundleContents},
		{"another index than was signed", members(func(m []member) []member { m[0].data = append(m[0].data, '\n'); return m }), control.BundleContents},
		{"an index too large", members(func(m []member) []member { m[0].data = make([]byte, maxIndex+1); return m }), control.BundleContents},

		{"an unknown field", line(`  "salt"`, "  \"extra\": 1,\n  \"salt\""), control.BundleContents},
		{"a duplicate field", line(`  "salt"`, "  \"salt\": \"\",\n  \"salt\""), control.BundleContents},
		{"a field left out", line("      \"wrapped_by\": \"software\",\n", ""), control.BundleContents},
		{"another spelling", line(`"salt": `, `"salt":  `), control.BundleContents},
		{"trailing data", line("}\n", "}\n{}"), control.BundleContents},
		{"a wrong digest", index(func(x *Index) { x.Keys[0].Files[0].SHA256[0] ^= 1 }), control.BundleContents},
		{"a wrong digest of a plain file", index(func(x *Index) { x.Files[0].SHA256[31] ^= 1 }), control.BundleContents},
		{"a wrong size", index(func(x *Index) { x.Keys[0].Files[0].Size++ }), control.BundleFormat},
		{"a negative size", index(func(x *Index) { x.Keys[0].Files[0].Size = -1 }), control.BundleContents},
		{"a size that can't be", index(func(x *Index) { x.Keys[0].Files[0].Size = MaxContents + 1 }), control.BundleSize},
		{"sizes that together can't be", index(func(x *Index) { x.Keys[0].Files[0].Size, x.Files[0].Size = math.MaxInt64-1, math.MaxInt64-1 }), control.BundleSize},
		{"a Microsoft-managed key that the manifest does not tell of", index(func(x *Index) {
			x.Keys[0].Disposition, x.Keys[0].KID, x.Keys[0].KEK, x.Keys[0].WrappedBy, x.Keys[0].Mechanism = DispositionMicrosoftManaged, "", nil, "", ""
		}), control.BundleContents},
		{"a Microsoft-managed key with a KEK's name", forgery{
			index: func(x *Index) { x.Keys[0].Disposition, x.Keys[0].KEK = DispositionMicrosoftManaged, nil },
			manifest: func(m *Manifest) {
				m.Keys[0].Disposition, m.Keys[0].KEK = DispositionMicrosoftManaged, nil
			},
		}, control.BundleContents},
		{"a Microsoft-managed key that is wrapped", index(func(x *Index) { x.Keys[0].Disposition = DispositionMicrosoftManaged }), control.BundleContents},
		{"another salt", index(func(x *Index) { x.Salt = "salt" }), control.BundleContents},
		{"one key less", index(func(x *Index) { x.Keys = x.Keys[:1] }), control.BundleFormat},
		{"an SLC that is no GUID", index(func(x *Index) { x.Keys[0].SLC = "\x1b[2J" }), control.BundleContents},
		{"an SLC in upper case", index(func(x *Index) { x.Keys[0].SLC = strings.ToUpper(x.Keys[0].SLC) }), control.BundleContents},
		{"another SLC than the manifest", index(func(x *Index) { x.Keys[0].SLC = "0" + x.Keys[0].SLC[1:] }), control.BundleContents},
		{"another KEK than the manifest", index(func(x *Index) { x.Keys[0].KEK = &x.Files[0].SHA256 }), control.BundleContents},
		{"another public key than the manifest", forgery{manifest: func(m *Manifest) { m.Keys[0].PublicKey[0] ^= 1 }}, control.BundleContents},
		{"another order than the manifest", forgery{manifest: func(m *Manifest) { m.Keys[0], m.Keys[1] = m.Keys[1], m.Keys[0] }}, control.BundleContents},
		{"a public key that is none", index(func(x *Index) { x.Keys[0].PublicKey = []byte("der") }), control.BundleContents},
		{"a KEK that is no URL", index(func(x *Index) { x.Keys[0].KID = "kek" }), control.BundleContents},
		{"a KEK without a version", index(func(x *Index) { x.Keys[0].KID = "https://practice.vault.keyferry.test/keys/kek" }), control.BundleContents},
		{"a KEK that writes on a terminal", index(func(x *Index) { x.Keys[0].KID = "https://practice\x1b[2J/keys/kek/1" }), control.BundleContents},
		{"wrapped by somebody else", index(func(x *Index) { x.Keys[0].WrappedBy = "hand" }), control.BundleContents},
		{"a mechanism that writes on a terminal", index(func(x *Index) { x.Keys[0].Mechanism = "CKM\u202e" }), control.BundleContents},
		{"no mechanism", index(func(x *Index) { x.Keys[0].Mechanism = "" }), control.BundleContents},
		{"another disposition", index(func(x *Index) { x.Keys[0].Disposition = "software" }), control.BundleContents},
		{"no warnings at all", index(func(x *Index) { x.Keys[0].Warnings = nil }), control.BundleContents},
		{"a warning that is no control ID", index(func(x *Index) { x.Keys[0].Warnings = []string{"all is well"} }), control.BundleContents},
		{"a warning that the manifest lacks", index(func(x *Index) { x.Keys[0].Warnings = []string{"KF-A"} }), control.BundleContents},
		{"a bad key identifier", index(func(x *Index) { x.Keys[0].ID = "Tenant" }), control.BundleContents},
		{"no key identifier", index(func(x *Index) { x.Keys[0].ID = "" }), control.BundleContents},
		{"a key identifier of 128 characters", index(func(x *Index) { x.Keys[0].ID = strings.Repeat("k", 128) }), control.BundleContents},
		{"a key identifier twice", index(func(x *Index) { x.Keys[1].ID = x.Keys[0].ID; x.Keys[1].Files = nil }), control.BundleContents},
		{"a path twice", index(func(x *Index) { x.Keys[0].Files[1] = x.Keys[0].Files[0] }), control.BundleContents},
		{"a plain path twice", index(func(x *Index) { x.Files = append(x.Files, x.Files[0]) }), control.BundleContents},

		{"a path out of the key", rename("keys/tenant-key/../x"), control.BundleContents},
		{"a path of the other key", rename("keys/old-key/x"), control.BundleContents},
		{"a path with a folder", rename("keys/tenant-key/a/b"), control.BundleContents},
		{"a path that is the folder", index(func(x *Index) { x.Keys[0].Files[0].Path = "keys/tenant-key/" }), control.BundleContents},
		{"an absolute path", rename("/keys/tenant-key/x"), control.BundleContents},
		{"a path with two slashes", rename("keys/tenant-key//x"), control.BundleContents},
		{"dot dot", rename("keys/tenant-key/.."), control.BundleContents},
		{"a hidden file", rename("keys/tenant-key/.part"), control.BundleContents},
		{"an option", rename("keys/tenant-key/-rf"), control.BundleContents},
		{"a backslash", rename(`keys/tenant-key/a\b`), control.BundleContents},
		{"a colon", rename("keys/tenant-key/a:b"), control.BundleContents},
		{"a control character", rename("keys/tenant-key/a\nb"), control.BundleContents},
		{"a letter that is not ASCII", index(func(x *Index) { x.Keys[0].Files[0].Path += "ä" }), control.BundleContents},
		{"upper case", rename("keys/tenant-key/A"), control.BundleContents},
		{"a name too long", rename("keys/tenant-key/" + strings.Repeat("a", 151)), control.BundleContents},
		{"a plain path out", plain("../x"), control.BundleContents},
		{"a plain path into a key", plain("keys/tenant-key/x"), control.BundleContents},
		{"a plain path over the keys", plain("keys"), control.BundleContents},
		{"a plain path over the index", plain("index.json"), control.BundleContents},
		{"a plain path that is empty", plain(""), control.BundleContents},

		{"something behind the payload's end", forgery{plain: func(b []byte) []byte { return append(b, 0) }}, control.BundleFormat},
		{"the payload's end cut", forgery{plain: func(b []byte) []byte { return b[:len(b)-1] }}, control.BundleFormat},
		{"the payload's end not zero", forgery{plain: func(b []byte) []byte { b[len(b)-1] = 1; return b }}, control.BundleFormat},
		{"the payload's padding not zero", forgery{plain: func(b []byte) []byte { b[len(b)-1025] = 1; return b }}, control.BundleFormat},
		{"a payload cut in the encryption", forgery{payload: func(b []byte) []byte { return b[:len(b)-1] }}, control.BundleDecrypt},
		{"something behind the encryption", forgery{payload: func(b []byte) []byte { return append(b, 0) }}, control.BundleDecrypt},
		{"a payload that is not encrypted", forgery{payload: func(b []byte) []byte { return []byte("plain") }}, control.BundleDecrypt},
		{"a payload that is not compressed", forgery{payload: func([]byte) []byte { return ageOnly(t, []byte("plain"), identity(t).Recipient()) }}, control.BundleFormat},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := open(t, forge(t, letter(t), test.forgery), pins(t))
			if test.want.ID != "" {
				refused(t, v, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadFile(t *testing.T) {
	v := mustOpen(t, seal(t, letter(t)), pins(t))
	for _, path := range []string{"", "index.json", "keys/tenant-key/absent"} {
		if data, err := v.File(path); !control.Is(err, control.BundleContents) || data != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
}
