// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"path/filepath"
	"reflect"

	"keyferry/online/internal/blob"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
)

// PackageResult lists what was written.
type PackageResult struct {
	Files   []string
	WithKey map[string]string // those that hold their key: file by key identifier
}

// Package writes each key of a bundle as files for other tools, all of them or
// none, and notes their digests: what is imported of them later is then known to be
// of this bundle.
func Package(j *Journal, r *Received, out string) (*PackageResult, error) {
	transfers, err := r.Transfers()
	if err != nil {
		return nil, err
	}
	result := &PackageResult{WithKey: map[string]string{}}
	packaged := Packaged{Of: *r.Acceptance()}
	var files []durable.File
	add := func(name string, data []byte) fingerprint.Fingerprint {
		files = append(files, durable.File{Path: filepath.Join(out, name), Data: data})
		result.Files = append(result.Files, filepath.Join(out, name))
		return fingerprint.Of(data)
	}
	for _, t := range transfers {
		file := PackagedKey{ID: t.Key.ID, SLC: t.Key.SLC, Key: fingerprint.OfKey(t.Public), Ciphertext: t.Ciphertext, KEK: t.Key.KEK, WrappedBy: t.Key.WrappedBy}
		if t.BYOK != nil {
			file.BYOK = add(byokName(t.Key.ID), t.BYOK)
		} else {
			result.WithKey[t.Key.ID] = filepath.Join(out, t.TPDFile)
		}
		file.TPD = add(t.TPDFile, t.TPD)
		if t.OneTime != nil {
			add("one_time_password_"+t.Key.ID+".txt", t.OneTime)
		}
		packaged.Files = append(packaged.Files, file)
	}

	// The digests first: a file that is there is then known, whenever the run is
	// stopped.
	for _, f := range files {
		if err := durable.CheckAbsent(f.Path); err != nil {
			return nil, err
		}
	}
	if n := len(j.Packages); n == 0 || !reflect.DeepEqual(j.Packages[n-1], packaged) {
		if err := j.Record(EventPackaged, packaged); err != nil {
			return nil, err
		}
	}
	return result, durable.CreateAll(files, 0o600)
}

// ciphertextOf is the digest of the wrapped key in a .byok file.
func ciphertextOf(file []byte) (fingerprint.Fingerprint, error) {
	_, ciphertext, err := blob.Parse(file)
	return fingerprint.Of(ciphertext), err
}
