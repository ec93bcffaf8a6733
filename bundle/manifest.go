// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"regexp"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/strictjson"
)

// parseManifest reads a manifest whose signatures are good, and holds it against
// pins.
func parseManifest(line []byte, pins Pins) (m Manifest, err error) {
	if err := checkFormat("bundle", line, Format); err != nil {
		return m, err
	}
	if err := strictjson.UnmarshalLine(line, maxManifest, &m); err != nil {
		return m, control.BundleManifest.Refuse("the manifest: %w", err)
	}
	return m, m.check(pins)
}

// checkFormat refuses a document of another version, which may have other fields,
// before it is read strictly. What is no JSON is left to that reading.
func checkFormat(what string, line []byte, want string) error {
	var is struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(line, &is); err == nil && is.Format != want {
		return control.BundleVersion.Refuse("the %s's format is %s, not %s", what, control.Quote(is.Format), want)
	}
	return nil
}

var idSyntax = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (m Manifest) check(pins Pins) error {
	switch {
	case m.Rehearsal != pins.Rehearsal:
		return control.TrustRehearsal.Refuse("one of bundle and this side's state directory is a rehearsal, the other is not")
	case m.Purpose != pins.Purpose:
		return control.BundlePurpose.Refuse("the bundle is a %s, not a %s", control.Quote(string(m.Purpose)), pins.Purpose)
	case m.Receiver != pins.Receiver:
		return control.BundleReceiver.Refuse("the bundle is for the receiver %s, this side is %s", m.Receiver, pins.Receiver)
	case m.Sender.Fingerprint != pins.Sender.Fingerprint() || m.Sender.Name != pins.SenderName:
		return control.BundleSender.Refuse("the manifest names the sender %s, the pinned one is %s", control.Quote(m.Sender.Name), control.Quote(pins.SenderName))
	case !idSyntax.MatchString(m.ID):
		return control.BundleManifest.Refuse("the manifest's id %s is not 32 hex digits", control.Quote(m.ID))
	case !validWarnings(m.Warnings):
		return control.BundleManifest.Refuse("the manifest's warnings are not a sorted list of control IDs")
	case m.Payload.Path != payloadName:
		return control.BundleManifest.Refuse("the manifest names the payload %s, not %s", control.Quote(m.Payload.Path), payloadName)
	case m.Sequence == 0 || (m.Sequence == 1) != (m.Previous == fingerprint.Fingerprint{}):
		return control.BundleManifest.Refuse("the manifest's place in the sender's sequence, %d, does not fit the manifest before it", m.Sequence)
	}
	return nil
}

// checkSequence tells a new bundle from one that was taken, from an older one,
// and from one that claims a place that another has. A gap is accepted: a
// bundle may have been lost on the way.
func (m Manifest) checkSequence(digest fingerprint.Fingerprint, taken []Taken) (again bool, err error) {
	var last Taken
	for _, t := range taken {
		switch {
		case t.Manifest == digest:
			return true, nil
		case t.Sequence == m.Sequence:
			return false, control.BundleFork.Refuse("another bundle number %d was taken already", m.Sequence)
		case t.Sequence > last.Sequence:
			last = t
		}
	}
	switch {
	case m.Sequence < last.Sequence:
		return false, control.BundleReplay.Refuse("this is the sender's bundle number %d; number %d was taken already", m.Sequence, last.Sequence)
	case last.Sequence > 0 && m.Sequence == last.Sequence+1 && m.Previous != last.Manifest:
		return false, control.BundleFork.Refuse("bundle number %d does not follow the number %d that was taken", m.Sequence, last.Sequence)
	}
	return false, nil
}

func (m Manifest) checkSize(payload int64, pins Pins) error {
	if payload != m.Payload.Size {
		return control.BundlePayload.Refuse("the payload has %d bytes, the manifest says %d", payload, m.Payload.Size)
	}
	return pins.checkSize("the payload has", payload)
}
