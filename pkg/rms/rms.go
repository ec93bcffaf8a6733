// SPDX-License-Identifier: Apache-2.0

// Package rms is the Azure RMS tenant as Keyferry needs it: three calls, named
// after the AIPService cmdlets that make them.
//
//	ImportTPD   Import-AipServiceTpd -TpdFile -ProtectionPassword -FriendlyName -KeyVaultKeyUrl
//	Keys        Get-AipServiceKeys
//	SetActive   Set-AipServiceKeyProperties -KeyIdentifier -Active $true
//
// Every import lands archived; making one key active archives the former one.
// The calls behind the cmdlets are not public, so each Tenant drives something
// that makes them: package practice stands in for the service in a rehearsal.
package rms

import (
	"context"
	"time"
)

// Tenant is an Azure RMS tenant. Errors are refusals: KF-RMS-… for what the
// service does not accept.
type Tenant interface {
	// Keys lists the tenant's keys, oldest first.
	Keys(ctx context.Context) ([]Key, error)
	// ImportTPD adds a keyless TPD whose key is in the vault. The new key is
	// archived. The same TPD a second time is refused: look in Keys first.
	ImportTPD(ctx context.Context, in TPDImport) (Key, error)
	// SetActive makes one key of the tenant the active one and archives the
	// former. A key that is active already stays so, without error.
	SetActive(ctx context.Context, keyIdentifier string) error
}

// TPDImport is one TPD on its way into the tenant.
type TPDImport struct {
	TPD          []byte // the keyless TPD, the whole file
	Password     []byte // the export's password, UTF-8; the caller clears it
	KeyURL       string // the vault key's identifier with its version
	FriendlyName string // should be the AD RMS cluster's, for Office 2013 and 2016
}

// Status of a tenant key.
type Status string

const (
	Archived Status = "Archived" // opens what was protected before
	Active   Status = "Active"   // protects new content; one key at most
)

// CustomerManaged is the key type of a key that is in the customer's vault.
const CustomerManaged = "CustomerManaged"

// Key is a tenant key as Get-AipServiceKeys lists it.
type Key struct {
	KeyIdentifier string    `json:"key_identifier"` // the TPD's GUID, lower case, without braces
	FriendlyName  string    `json:"friendly_name"`
	Status        Status    `json:"status"`
	KeyType       string    `json:"key_type"`
	KeyURL        string    `json:"key_url"`    // with version
	PublicKey     []byte    `json:"public_key"` // PKIX DER
	CreationTime  time.Time `json:"creation_time"`
}
