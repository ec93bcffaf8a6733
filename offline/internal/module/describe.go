// SPDX-License-Identifier: Apache-2.0

package module

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// Library is what a PKCS#11 module says of itself.
type Library struct {
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`
	Cryptoki     string `json:"cryptoki"` // version of the standard
}

// Mechanism is one that the token lists. A token may list what it rejects, and
// do what it does not list.
type Mechanism struct {
	ID     string   `json:"id"`      // as 0x0000210A
	Name   string   `json:"name"`    // of those that Keyferry can use
	MinKey uint     `json:"min_key"` // in the mechanism's own unit, mostly bits
	MaxKey uint     `json:"max_key"`
	For    []string `json:"for"`
	Fault  string   `json:"fault"` // why the token does not describe what it lists
}

// Mechanisms that miekg/pkcs11 does not name: the first is of PKCS#11 3.0, the others are
// the vendors'.
const (
	AESKWP      = 0x0000210B
	LunaKWP     = 0x80000171
	CloudHSMPad = 0x8000216F
	NShieldCRT  = 0xDE436973
)

// MechanismName is the name of a mechanism that Keyferry uses, or that a PKCS#11 reader
// looks for.
func MechanismName(id uint) string { return mechanismNames[id] }

var mechanismNames = map[uint]string{
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: "CKM_RSA_PKCS_KEY_PAIR_GEN",
	pkcs11.CKM_RSA_PKCS:              "CKM_RSA_PKCS",
	pkcs11.CKM_SHA256_RSA_PKCS:       "CKM_SHA256_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_OAEP:         "CKM_RSA_PKCS_OAEP",
	pkcs11.CKM_EC_KEY_PAIR_GEN:       "CKM_EC_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA:                 "CKM_ECDSA",
	pkcs11.CKM_AES_KEY_GEN:           "CKM_AES_KEY_GEN",
	pkcs11.CKM_AES_KEY_WRAP:          "CKM_AES_KEY_WRAP",
	pkcs11.CKM_AES_CBC_PAD:           "CKM_AES_CBC_PAD",
	pkcs11.CKM_RSA_AES_KEY_WRAP:      "CKM_RSA_AES_KEY_WRAP",
	pkcs11.CKM_AES_KEY_WRAP_PAD:      "CKM_AES_KEY_WRAP_PAD",
	AESKWP:                           "CKM_AES_KEY_WRAP_KWP",
	LunaKWP:                          "CKM_AES_KWP (Luna)",
	CloudHSMPad:                      "CKM_CLOUDHSM_AES_KEY_WRAP_ZERO_PAD",
	NShieldCRT:                       "CKM_WRAP_RSA_CRT_COMPONENTS (nShield)",
}

// mechanismUses are the flags of CK_MECHANISM_INFO that matter here.
var mechanismUses = []struct {
	flag uint
	name string
}{
	{pkcs11.CKF_GENERATE, "generate"}, {pkcs11.CKF_GENERATE_KEY_PAIR, "generate pair"},
	{pkcs11.CKF_WRAP, "wrap"}, {pkcs11.CKF_UNWRAP, "unwrap"},
	{pkcs11.CKF_ENCRYPT, "encrypt"}, {pkcs11.CKF_DECRYPT, "decrypt"},
	{pkcs11.CKF_SIGN, "sign"}, {pkcs11.CKF_VERIFY, "verify"},
}

// Describe returns what the module says of itself and of what the token in a slot can do.
func (m *Module) Describe(slot uint) (library Library, mechanisms []Mechanism, err error) {
	info, err := m.GetInfo()
	if err != nil {
		return library, nil, Failed("describe its module", err)
	}
	library = Library{info.ManufacturerID, info.LibraryDescription, version(info.LibraryVersion), version(info.CryptokiVersion)}
	listed, err := m.GetMechanismList(slot)
	if err != nil {
		return library, nil, Failed("list its mechanisms", err)
	}
	for _, l := range listed {
		d := Mechanism{ID: fmt.Sprintf("0x%08X", l.Mechanism), Name: mechanismNames[l.Mechanism], For: []string{}}
		info, err := m.GetMechanismInfo(slot, []*pkcs11.Mechanism{l})
		if err != nil {
			d.Fault = err.Error()
		}
		d.MinKey, d.MaxKey = info.MinKeySize, info.MaxKeySize
		for _, use := range mechanismUses {
			if info.Flags&use.flag != 0 {
				d.For = append(d.For, use.name)
			}
		}
		mechanisms = append(mechanisms, d)
	}
	return library, mechanisms, nil
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
