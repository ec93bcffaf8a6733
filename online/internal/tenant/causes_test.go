// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// TestCause: each text that is known leads to its control, in whatever case, in
// the error or in what was said before; any other to the general one.
func TestCause(t *testing.T) {
	for text, want := range map[string]control.Control{
		"The trusted publishing domain data is corrupted.":            control.RMSCorrupted,
		"Failure to access Azure KeyVault.":                           control.RMSKeyURL,
		"The term 'X' is not recognized as the name of a cmdlet":      control.RMSModule,
		"X.psm1 cannot be loaded because running scripts is disabled": control.RMSPowerShell,
		"AADSTS50076: you must use multi-factor authentication":       control.RMSSignIn,
		"Access is denied.":                                               control.RMSRights,
		"The user is not authorized to do this.":                          control.RMSRights,
		"The account does not have permission to administer the service.": control.RMSRights,
		"Something else":                                                  control.RMSFailed,
	} {
		for name, a := range map[string]*answer{"error": {Error: text}, "said before": {Error: "failed", Log: []string{strings.ToUpper(text)}}} {
			if err := cause("import", a); !control.Is(err, want) {
				t.Errorf("%q as %s: got %v, want %s", text, name, err, want.ID)
			}
		}
	}
}
