// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"fmt"
	"net/http"
	"os"

	"keyferry/pkg/control"
)

// recoverableDays is how long a deleted key is kept. Nothing purges it here
// once they are over.
const recoverableDays = 7

// heldByDeleted refuses a name that a deleted key still holds.
func heldByDeleted(name string) error {
	return &apiError{
		status: http.StatusConflict, code: "Conflict", inner: "ObjectIsDeletedButRecoverable",
		message: fmt.Sprintf("Key %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.", name),
	}
}

// deleteKey answers DELETE /keys/{name}: the key is gone for every use, its
// name stays taken.
func (c *Cloud) deleteKey(name string) (any, error) {
	r, _, err := c.find(name, "")
	if err != nil {
		return nil, err
	}
	now := c.now().Unix()
	r.Deleted = &now
	return r.deletedBundle(), c.storeRecord(r)
}

func (c *Cloud) findDeleted(name string) (*record, error) {
	r, err := c.loadRecord(name)
	if err == nil && (r == nil || r.Deleted == nil) {
		err = notFound("Deleted Key not found: %s", control.Quote(name))
	}
	return r, err
}

// getDeleted answers GET /deletedkeys/{name}.
func (c *Cloud) getDeleted(name string) (any, error) {
	r, err := c.findDeleted(name)
	if err != nil {
		return nil, err
	}
	return r.deletedBundle(), nil
}

// recoverDeleted answers POST /deletedkeys/{name}/recover.
func (c *Cloud) recoverDeleted(name string) (any, error) {
	r, err := c.findDeleted(name)
	if err != nil {
		return nil, err
	}
	r.Deleted = nil
	return bundle(r.Name, &r.Versions[len(r.Versions)-1]), c.storeRecord(r)
}

// purgeDeleted answers DELETE /deletedkeys/{name}. The record goes last, so
// that an interrupted purge can be taken up.
func (c *Cloud) purgeDeleted(name string) error {
	r, err := c.findDeleted(name)
	if err != nil {
		return err
	}
	for _, v := range r.Versions {
		if v.Origin == madeHere {
			if err := os.Remove(c.privateFile(r.Name, v.Version)); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	return os.Remove(c.vaultFile(r.Name) + ".json")
}

// deletedBundle is a deleted key as the REST interface describes it.
func (r *record) deletedBundle() any {
	b := bundle(r.Name, &r.Versions[len(r.Versions)-1])
	b["recoveryId"] = URL + "/deletedkeys/" + r.Name
	b["deletedDate"] = *r.Deleted
	b["scheduledPurgeDate"] = *r.Deleted + recoverableDays*24*60*60
	return b
}
