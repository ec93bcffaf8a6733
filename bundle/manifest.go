// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"regexp"
	"slices"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/strictjson"
)

// ParseManifest reads a manifest and checks its form. Whether it is signed, by
// whom and for whom is not looked at.
func ParseManifest(data []byte) (m Manifest, err error) {
	if err := checkFormat("bundle", data, Format); err != nil {
		return m, err
	}
	if err := strictjson.UnmarshalLines(data, maxManifest, &m); err != nil {
		return m, control.BundleManifest.Refuse("the manifest: %w", err)
	}
	return m, m.check()
}

// checkFormat refuses a document of another version, which may have other fields,
// before it is read strictly. A document that is no JSON is left to that reading.
func checkFormat(document string, data []byte, want string) error {
	var is struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(data, &is); err == nil && is.Format != want {
		return control.BundleVersion.Refuse("the %s's format is %s, not %s", document, control.Quote(is.Format), want)
	}
	return nil
}

var (
	idSyntax      = regexp.MustCompile(`^[0-9a-f]{32}$`)
	guidSyntax    = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	warningSyntax = regexp.MustCompile(`^KF-[A-Z0-9-]{1,60}$`)
)

// check refuses fields that can't be.
func (m Manifest) check() error {
	switch {
	case m.Purpose != KeyTransfer && m.Purpose != Receipt:
		return control.BundlePurpose.Refuse("the bundle's purpose is %s, which this version does not know", control.Quote(string(m.Purpose)))
	case !idSyntax.MatchString(m.ID):
		return control.BundleManifest.Refuse("the manifest's id %s is not 32 hex digits", control.Quote(m.ID))
	case !keyid.Valid(m.Sender.Name):
		return control.BundleManifest.Refuse("the manifest names the sender %s, which can't be a name", control.Quote(m.Sender.Name))
	case m.Sequence == 0 || (m.Sequence == 1) != (m.Previous == fingerprint.Fingerprint{}):
		return control.BundleManifest.Refuse("the manifest's place in the sender's sequence, %d, does not fit the manifest before it", m.Sequence)
	case m.Payload.Path != payloadName:
		return control.BundleManifest.Refuse("the manifest names the payload %s, not %s", control.Quote(m.Payload.Path), payloadName)
	case m.Payload.Size < 0 || m.Payload.Size > MaxSize:
		return control.BundleSize.Refuse("the payload has %d bytes; a bundle has at most %d", m.Payload.Size, MaxSize)
	case len(m.Keys) > MaxKeys:
		return control.BundleSize.Refuse("the bundle has %d keys; at most %d are allowed", len(m.Keys), MaxKeys)
	case m.Keys == nil:
		return control.BundleManifest.Refuse("the manifest has no list of keys")
	}
	ids := map[string]bool{}
	for _, k := range m.Keys {
		if ids[k.ID] {
			return control.BundleManifest.Refuse("the manifest lists the key %s twice", control.Quote(k.ID))
		}
		ids[k.ID] = true
		if err := k.check(); err != nil {
			return control.BundleManifest.Refuse("the manifest's key %s: %w", control.Quote(k.ID), err)
		}
	}
	return nil
}

// fits holds a manifest against pins.
func (m Manifest) fits(pins Pins) error {
	switch {
	case m.Rehearsal != pins.Rehearsal:
		return control.TrustRehearsal.Refuse("one of bundle and this side's state directory is a rehearsal, the other is not")
	case m.Purpose != pins.Purpose:
		return control.BundlePurpose.Refuse("this is %s; %s is wanted", m.Purpose.people(), pins.Purpose.people())
	case m.Receiver != pins.Receiver:
		return control.BundleReceiver.Refuse("the bundle is for the receiver %s, this side is %s", m.Receiver, pins.Receiver)
	case m.Sender.Fingerprint != pins.Sender.Fingerprint() || m.Sender.Name != pins.SenderName:
		return control.BundleSender.Refuse("the manifest names the sender %s, the pinned one is %s", control.Quote(m.Sender.Name), control.Quote(pins.SenderName))
	}
	return nil
}

// Warnings lists, sorted and once each, the warnings of all keys.
func (m Manifest) Warnings() []string {
	all := []string{}
	for _, k := range m.Keys {
		all = append(all, k.Warnings...)
	}
	return sorted(all)
}

// sorted returns a list's entries in order, once each; none is not nil.
func sorted(list []string) []string {
	list = append([]string{}, list...)
	slices.Sort(list)
	return slices.Compact(list)
}

// validWarnings reports whether a list is sorted, names control IDs, and none
// twice.
func validWarnings(list []string) bool {
	return list != nil && len(list) <= maxWarnings && slices.Equal(list, sorted(list)) &&
		!slices.ContainsFunc(list, func(id string) bool { return !warningSyntax.MatchString(id) })
}

// checkSequence tells a new bundle from one that was taken, from an older one,
// and from one that claims the place of another. A gap is accepted: a bundle may
// have been lost on the way. outOfOrder takes an older one too, as long as its
// place is free and it fits the ones before and after it.
func (m Manifest) checkSequence(digest fingerprint.Fingerprint, taken []Taken, outOfOrder bool) (again bool, err error) {
	for _, t := range taken {
		if t.Manifest == digest {
			return true, nil
		}
	}
	last := uint64(0)
	for _, t := range taken {
		switch {
		case t.Sequence == m.Sequence:
			return false, control.BundleFork.Refuse("another bundle number %d was taken already", m.Sequence)
		case t.Sequence+1 == m.Sequence && t.Manifest != m.Previous:
			return false, control.BundleFork.Refuse("bundle number %d does not follow the number %d that was taken", m.Sequence, t.Sequence)
		case outOfOrder && t.Sequence == m.Sequence+1 && t.Previous != digest:
			return false, control.BundleFork.Refuse("the bundle number %d that was taken does not follow this number %d", t.Sequence, m.Sequence)
		}
		last = max(last, t.Sequence)
	}
	if m.Sequence < last && !outOfOrder {
		return false, control.BundleReplay.Refuse("this is the sender's bundle number %d, which was never taken; number %d was taken already", m.Sequence, last)
	}
	return false, nil
}
