// SPDX-License-Identifier: Apache-2.0

// Package tenant is the Azure RMS tenant as Keyferry needs it: three calls, named
// after the AIPService cmdlets that make them.
//
//	ImportTPD   Import-AipServiceTpd -TpdFile -ProtectionPassword -FriendlyName -KeyVaultKeyUrl
//	Keys        Get-AipServiceKeys
//	SetActive   Set-AipServiceKeyProperties -KeyIdentifier -Active $true
//
// Every import lands archived; making one key active archives the former one.
// The calls behind the cmdlets are not public, so each Tenant drives something
// that makes them: [PowerShell] runs the cmdlets, package practice stands in for
// the service in a rehearsal. Where neither can be had, a [Kit] carries the work
// to a Windows machine and its result back.
//
// Sources: the AIPService module's reference; "Migrate from AD RMS to Azure
// Information Protection".
package tenant

import (
	"context"
	"time"
)

// Tenant is an Azure RMS tenant. Errors are refusals: KF-RMS-… for what the
// service does not accept.
type Tenant interface {
	// Keys lists the tenant's keys, oldest first.
	Keys(ctx context.Context) ([]Key, error)
	// ImportTPD adds a keyless TPD whose key is in the vault, or a TPD that carries
	// its key; Keys then lists the key, archived. The same TPD a second time is
	// refused: look in Keys first. It lists nothing itself, so that many imports do
	// not read a long list many times.
	ImportTPD(ctx context.Context, in TPDImport) error
	// SetActive makes one key of the tenant the active one and archives the
	// former. A key that is active already stays so, without error.
	SetActive(ctx context.Context, keyIdentifier string) error
}

// TPDImport is one TPD on its way into the tenant.
type TPDImport struct {
	File             string // the TPD's name, such as no_key_tpd_contoso.xml
	TPD              []byte // the whole file
	Password         []byte // the TPD's password, UTF-8; the caller clears it
	MicrosoftManaged bool   // the TPD carries its key, which the service then holds itself
	KeyURL           string // the vault key's identifier with its version; none where Microsoft-managed
	FriendlyName     string // should be the AD RMS cluster's, for Office 2013 and 2016
}

// Status of a tenant key; a key of the tenant's own may have another one.
type Status string

const (
	Archived Status = "Archived" // opens what was protected before
	Active   Status = "Active"   // protects new content; one key at most
)

// Types of keys.
const (
	CustomerManaged  = "CustomerManaged"  // in the customer's vault
	MicrosoftManaged = "MicrosoftManaged" // the service's own
)

// Key is a tenant key as Get-AipServiceKeys lists it. Microsoft documents all
// but the URL, which may never show, and the public key of customer-managed keys
// alone.
type Key struct {
	KeyIdentifier string    `json:"key_identifier"` // the TPD's GUID, lower case, without braces
	FriendlyName  string    `json:"friendly_name"`
	Status        Status    `json:"status"`
	KeyType       string    `json:"key_type"`
	KeyURL        string    `json:"key_url"`    // with version; empty where the service does not show it
	PublicKey     []byte    `json:"public_key"` // as the tenant gives it, none of a Microsoft-managed key: see Holds
	CreationTime  time.Time `json:"creation_time"`
}
