// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// The good bundle against other pins than it was made for.
func TestPins(t *testing.T) {
	good := seal(t, letter(t))
	mustOpen(t, good, pins(t))
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*Pins)
		want   control.Control
	}{
		{"another receiver", func(p *Pins) { p.Receiver = public(t, stranger).Fingerprint() }, control.BundleReceiver},
		{"another purpose", func(p *Pins) { p.Purpose = Receipt }, control.BundlePurpose},
		{"a rehearsal", func(p *Pins) { p.Rehearsal = true }, control.TrustRehearsal},
		{"another sender", func(p *Pins) { p.Sender = public(t, stranger) }, control.BundleSender},
		{"a sender of another name", func(p *Pins) { p.SenderName = "vault-room-2" }, control.BundleSender},
		{"another identity", func(p *Pins) { p.Identity = other }, control.BundleDecrypt},
		{"an identity of the other kind", func(p *Pins) { p.Identity = hybrid }, control.BundleRecipient},
		{"an approval is asked for", func(p *Pins) { p.Threshold = 1 }, control.BundleApproval},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pins(t)
			test.change(&p)
			v, err := open(t, good, p)
			refused(t, v, err, test.want)
		})
	}
}

// Real bundles don't open in a rehearsal, nor the other way round.
func TestRehearsalAndRealDoNotMix(t *testing.T) {
	for _, rehearsal := range []bool{false, true} {
		l, p := letter(t), pins(t)
		l.Rehearsal, p.Rehearsal = rehearsal, rehearsal
		data := seal(t, l)
		mustOpen(t, data, p)
		p.Rehearsal = !rehearsal
		v, err := open(t, data, p)
		refused(t, v, err, control.TrustRehearsal)
	}
}

// Manifests that the true sender signed, but should not have.
func TestManifest(t *testing.T) {
	mustOpen(t, forge(t, letter(t), forgery{}), pins(t))
	manifest := func(change func(*Manifest)) forgery { return forgery{manifest: change} }
	replace := func(old, new string) forgery {
		return forgery{line: func(line []byte) []byte {
			if bytes.Count(line, []byte(old)) != 1 {
				t.Fatalf("%q is not once in %s", old, line)
			}
			return bytes.Replace(line, []byte(old), []byte(new), 1)
		}}
	}
	print := fingerprint.Of([]byte("x"))
	for _, test := range []struct {
		name string
		forgery
		want control.Control
	}{
		{"no warnings at all", manifest(func(m *Manifest) { m.Keys[0].Warnings = nil }), control.BundleManifest},
		{"a warning that is no control ID", manifest(func(m *Manifest) { m.Keys[0].Warnings = []string{"<b>"} }), control.BundleManifest},
		{"warnings out of order", manifest(func(m *Manifest) { m.Keys[0].Warnings = []string{"KF-B", "KF-A"} }), control.BundleManifest},
		{"a warning twice", manifest(func(m *Manifest) { m.Keys[0].Warnings = []string{"KF-A", "KF-A"} }), control.BundleManifest},
		{"warnings without end", manifest(func(m *Manifest) { m.Keys[0].Warnings = manyWarnings(maxWarnings + 1) }), control.BundleManifest},
		{"no list of keys", manifest(func(m *Manifest) { m.Keys = nil }), control.BundleManifest},
		{"a key twice", manifest(func(m *Manifest) { m.Keys[1] = m.Keys[0] }), control.BundleManifest},
		{"a bad key identifier", manifest(func(m *Manifest) { m.Keys[0].ID = "Key" }), control.BundleManifest},
		{"another disposition", manifest(func(m *Manifest) { m.Keys[0].Disposition = "cloud" }), control.BundleManifest},
		{"an SLC that is no GUID", manifest(func(m *Manifest) { m.Keys[0].SLC = "slc" }), control.BundleManifest},
		{"no KEK", manifest(func(m *Manifest) { m.Keys[0].KEK = nil }), control.BundleManifest},
		{"a KEK of a Microsoft-managed key", manifest(func(m *Manifest) { m.Keys[0].Disposition = DispositionMicrosoftManaged }), control.BundleManifest},
		{"the format before this one", manifest(func(m *Manifest) { m.Format = "keyferry-bundle-v1" }), control.BundleVersion},
		{"another format", manifest(func(m *Manifest) { m.Format = "keyferry-bundle-v3" }), control.BundleVersion},
		{"another format with a field more", replace(`bundle-v2",`, "bundle-v3\",\n  \"extra\": 1,"), control.BundleVersion},
		{"no format", replace("  \"format\": \"keyferry-bundle-v2\",\n", ""), control.BundleVersion},
		{"an empty format", manifest(func(m *Manifest) { m.Format = "" }), control.BundleVersion},
		{"a format twice", replace(`  "format"`, "  \"format\": \"keyferry-bundle-v0\",\n  \"format\""), control.BundleManifest},
		{"an unknown field", replace(`  "format"`, "  \"extra\": 1,\n  \"format\""), control.BundleManifest},
		{"an unknown field within", replace(`    "path"`, "    \"extra\": 1,\n    \"path\""), control.BundleManifest},
		{"a duplicate field", replace(`  "sequence": 1`, "  \"sequence\": 2,\n  \"sequence\": 1"), control.BundleManifest},
		{"a field in another case", replace(`"sequence"`, `"Sequence"`), control.BundleManifest},
		{"a field left out", replace("  \"rehearsal\": false,\n", ""), control.BundleManifest},
		{"a space more", replace(`"sequence": 1`, `"sequence":  1`), control.BundleManifest},
		{"a space less", replace(`"sequence": 1`, `"sequence":1`), control.BundleManifest},
		{"all in one line", forgery{line: func(lines []byte) []byte {
			var b bytes.Buffer
			if err := json.Compact(&b, lines); err != nil {
				t.Fatal(err)
			}
			return append(b.Bytes(), '\n')
		}}, control.BundleManifest},
		{"Windows line ends", forgery{line: func(lines []byte) []byte { return bytes.ReplaceAll(lines, []byte("\n"), []byte("\r\n")) }}, control.BundleManifest},
		{"no final line feed", forgery{line: func(lines []byte) []byte { return lines[:len(lines)-1] }}, control.BundleManifest},
		{"trailing data", forgery{line: func(lines []byte) []byte { return append(lines, "{}\n"...) }}, control.BundleManifest},
		{"a line feed more", forgery{line: func(lines []byte) []byte { return append(lines, '\n') }}, control.BundleManifest},
		{"another spelling of the time", replace(`00Z"`, `00+00:00"`), control.BundleManifest},
		{"a number that is text", replace(`"sequence": 1`, `"sequence": "1"`), control.BundleManifest},
		{"no JSON", forgery{line: func([]byte) []byte { return []byte("manifest\n") }}, control.BundleManifest},
		{"nothing", forgery{line: func([]byte) []byte { return nil }}, control.BundleManifest},
		{"an id that is none", manifest(func(m *Manifest) { m.ID = "../" + m.ID[3:] }), control.BundleManifest},
		{"another payload name", manifest(func(m *Manifest) { m.Payload.Path = "payload" }), control.BundleManifest},
		{"sequence 0", manifest(func(m *Manifest) { m.Sequence = 0 }), control.BundleManifest},
		{"sequence 0 with a previous one", manifest(func(m *Manifest) { m.Sequence, m.Previous = 0, print }), control.BundleManifest},
		{"a first one with a previous one", manifest(func(m *Manifest) { m.Previous = print }), control.BundleManifest},
		{"a second one without", manifest(func(m *Manifest) { m.Sequence = 2 }), control.BundleManifest},
		{"another key as sender", manifest(func(m *Manifest) { m.Sender.Fingerprint = print }), control.BundleSender},
		{"another name as sender", manifest(func(m *Manifest) { m.Sender.Name = "x" }), control.BundleSender},
		{"another receiver", manifest(func(m *Manifest) { m.Receiver = print }), control.BundleReceiver},
		{"another purpose", manifest(func(m *Manifest) { m.Purpose = "gift" }), control.BundlePurpose},
		{"a rehearsal", manifest(func(m *Manifest) { m.Rehearsal = true }), control.TrustRehearsal},
		{"a payload longer", manifest(func(m *Manifest) { m.Payload.Size++ }), control.BundlePayload},
		{"a payload shorter", manifest(func(m *Manifest) { m.Payload.Size-- }), control.BundlePayload},
		{"another payload", manifest(func(m *Manifest) { m.Payload.SHA256 = print }), control.BundlePayload},
		{"another index", manifest(func(m *Manifest) { m.Index = print }), control.BundleContents},
		{"a payload of negative size", manifest(func(m *Manifest) { m.Payload.Size = -1 }), control.BundleSize},
		{"a sender whose name is none", manifest(func(m *Manifest) { m.Sender.Name = "../x" }), control.BundleManifest},
		{"a manifest too large", replace(`vault-room`, strings.Repeat("v", maxManifest)), control.BundleFormat},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := open(t, forge(t, letter(t), test.forgery), pins(t))
			refused(t, v, err, test.want)
		})
	}
}

func TestSequence(t *testing.T) {
	place := func(sequence uint64, previous fingerprint.Fingerprint) (data []byte, digest fingerprint.Fingerprint) {
		l := letter(t)
		l.Sequence, l.Previous = sequence, previous
		data = seal(t, l)
		return data, mustOpen(t, data, pins(t)).Digest
	}
	none := fingerprint.Fingerprint{}
	one, d1 := place(1, none)
	otherOne, e1 := place(1, none)
	two, d2 := place(2, d1)
	otherTwo, _ := place(2, d1)
	forkedTwo, _ := place(2, e1)
	three, d3 := place(3, d2)
	type list = []Taken
	for _, test := range []struct {
		name  string
		data  []byte
		taken list
		want  control.Control // none: it opens
		again bool
	}{
		{"the first one", one, nil, control.Control{}, false},
		{"the next one", two, list{{1, d1, none}}, control.Control{}, false},
		{"a third one after the first: one is lost", three, list{{1, d1, none}}, control.Control{}, false},
		{"a second one first: one is lost", two, nil, control.Control{}, false},
		{"the same one again", one, list{{1, d1, none}}, control.Control{}, true},
		{"the same third one again", three, list{{1, d1, none}, {2, d2, d1}, {3, d3, d2}}, control.Control{}, true},
		{"an old one that was taken", two, list{{1, d1, none}, {2, d2, d1}, {3, d3, d2}}, control.Control{}, true},
		{"an old one that was not taken", two, list{{1, d1, none}, {3, d3, d2}}, control.BundleReplay, false},
		{"an old first one that was not taken", one, list{{3, d3, d2}}, control.BundleReplay, false},
		{"another one of the same number", otherOne, list{{1, d1, none}}, control.BundleFork, false},
		{"another one of an old number", otherTwo, list{{1, d1, none}, {2, d2, d1}, {3, d3, d2}}, control.BundleFork, false},
		{"an old one that a taken one does not follow", otherOne, list{{2, d2, d1}}, control.BundleReplay, false},
		{"one that follows another", forkedTwo, list{{1, d1, none}}, control.BundleFork, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pins(t)
			p.Taken = test.taken
			v, err := open(t, test.data, p)
			if test.want.ID != "" {
				refused(t, v, err, test.want)
				return
			}
			if err != nil || v.Again != test.again {
				t.Errorf("%v, error %v", v, err)
			}
		})
		// Out of order, only what was never taken becomes good.
		p := pins(t)
		p.Taken, p.OutOfOrder = test.taken, true
		v, err := open(t, test.data, p)
		switch {
		case test.name == "an old one that a taken one does not follow":
			refused(t, v, err, control.BundleFork)
		case test.want.ID == "" || test.want.ID == control.BundleReplay.ID:
			if err != nil || v.Again != test.again {
				t.Errorf("%s, out of order: %v, error %v", test.name, v, err)
			}
		default:
			refused(t, v, err, test.want)
		}
	}
}

func manyWarnings(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("KF-%03d", i))
	}
	return all
}

// Approvers see the warnings of all keys in the manifest, once each.
func TestWarnings(t *testing.T) {
	l := letter(t)
	l.Keys[1].Warnings = []string{"KF-NET", "KF-B"}
	l.Keys[0].Warnings = []string{"KF-B", "KF-A", "KF-B"}
	v := mustOpen(t, seal(t, l), pins(t))
	if want := []string{"KF-A", "KF-B", "KF-NET"}; !slices.Equal(v.Manifest.Warnings(), want) {
		t.Errorf("the manifest has the warnings %q, expected %q", v.Manifest.Warnings(), want)
	}
	if want := []string{"KF-A", "KF-B"}; !slices.Equal(v.Index.Keys[0].Warnings, want) {
		t.Errorf("the key has the warnings %q, expected %q", v.Index.Keys[0].Warnings, want)
	}
	l.Keys[0].Warnings = manyWarnings(maxWarnings)
	mustOpen(t, seal(t, l), pins(t))
}
