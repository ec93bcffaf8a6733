// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"strings"

	"keyferry/pkg/control"
)

// ServicePrincipal is Azure RMS's own account, which gets the key in the vault,
// decrypts and signs with it.
const ServicePrincipal = "00000012-0000-0000-c000-000000000000"

// known are texts of the service, of its module and of PowerShell, in lower
// case, with what they come from. The first that occurs in an error, or in what
// -Verbose said before it, is the cause.
var known = []struct {
	text    string
	control control.Control
	message string
	hint    string // empty: the control's
}{
	{"trusted publishing domain data is corrupted", control.RMSCorrupted, "the service cannot open the TPD", ""},
	{"failure to access azure keyvault", control.RMSKeyURL, "the service cannot use the key in the vault", grant},
	{"failed to add the key", control.RMSKeyURL, "the service cannot use the key in the vault", grant},
	{"is not recognized as the name of a cmdlet", control.RMSModule, "the AIPService module is not there, or is too old", ""},
	{"module 'aipservice' was not loaded", control.RMSModule, "the AIPService module is not there", ""},
	{"running scripts is disabled", control.RMSPowerShell, "the machine's policy forbids the module's scripts", "ask who administers this machine to allow signed scripts (execution policy RemoteSigned), or hand the import over with --tenant kit"},
	{"aadsts", control.RMSSignIn, "the sign-in failed", ""},
	{"user canceled authentication", control.RMSSignIn, "the sign-in was left", ""},
	{"you must call the connect-aipservice", control.RMSSignIn, "the session is not signed in", ""},
	{"access is denied", control.RMSRights, "the account may not administer Azure RMS", ""},
	{"not authorized", control.RMSRights, "the account may not administer Azure RMS", ""},
	{"does not have permission", control.RMSRights, "the account may not administer Azure RMS", ""},
}

// grant lets the service use the key, in a vault with access policies or with
// roles.
const grant = "let Azure RMS get, decrypt and sign with the key: `az keyvault set-policy --name VAULT --spn " + ServicePrincipal +
	" --key-permissions get decrypt sign`, or in a vault with roles the role Key Vault Crypto User for that service principal; then run the same command again"

// cause turns an error of the session into a refusal.
func cause(doing string, a *answer) error {
	said := control.Quote(a.Error)
	all := strings.ToLower(strings.Join(append(a.Log, a.Error), "\n"))
	for _, k := range known {
		if !strings.Contains(all, k.text) {
			continue
		}
		refusal := k.control.Refuse("%s: %s: %s", doing, k.message, said)
		if k.hint != "" {
			return refusal.WithHint("%s", k.hint)
		}
		return refusal
	}
	return control.RMSFailed.Refuse("%s: Azure RMS or its module refuses: %s (%s)", doing, said, control.Quote(a.Kind))
}
