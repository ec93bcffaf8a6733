// SPDX-License-Identifier: Apache-2.0

// Package practice is the practice cloud: a key vault and an Azure RMS tenant
// that stand in for Azure in rehearsals and tests. It is as strict as the
// published specifications read, so that what passes here has a fair chance
// there; it protects nothing.
//
// Its state is a directory of plain files, so that an auditor can look inside
// and open a rehearsal's blobs with OpenSSL:
//
//	vault/<name>-<version>.pem   the private half of a key made here (each KEK), PKCS#8
//	vault/<name>.json            a key's versions, oldest first
//	tenant/<guid>.json           a key of the tenant
//	trouble                      put there by a person: the trouble to be rehearsed, such as
//	                             firewall (see trouble.go); taken away, all is well again
//
// Whoever has this directory can open every blob that was wrapped under its
// KEKs. An imported key is opened, checked and forgotten: only its public half
// is kept.
//
// The vault's name in URLs and key identifiers is fixed
// (https://practice.vault.keyferry.test, a name reserved for tests), whatever
// port it listens on, so that identifiers stay the same from run to run. It
// says "practice" where Azure names its HSM platform.
package practice

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"keyferry/online/internal/vault"
)

// URL is the practice vault's address, the same in every run.
const URL = "https://" + vault.PracticeHost

// Cloud is the practice cloud kept in one directory. Its methods and those of
// what it hands out may be called from several goroutines; two processes must
// not use one directory at the same time.
type Cloud struct {
	dir string
	now func() time.Time
	mu  sync.Mutex // guards the directory
}

// Open returns the practice cloud kept in dir, which is made with the first
// change. Files that are not the practice cloud's own are refused
// (KF-STATE-DAMAGED); private keys that a killed run left behind are removed.
func Open(dir string) (*Cloud, error) {
	c := &Cloud{dir: dir, now: time.Now}
	records, err := c.records()
	if err != nil {
		return nil, err
	}
	if _, err := c.loadTenant(); err != nil {
		return nil, err
	}
	return c, c.sweep(records)
}

// randomHex returns n random bytes in hex.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
