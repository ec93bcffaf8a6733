// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// TestCause: an error leads to its control by PowerShell's identifier or the
// type of its exception, in any language, else by a text that is known, in the
// error or in what was said before; and nothing of the text is lost.
func TestCause(t *testing.T) {
	long := "The attempt to connect to the Azure Information Protection service failed. " + strings.Repeat("Verify it. ", 30) + "The correlation ID is 5fd5b4a6."
	for _, test := range []struct {
		word string
		a    answer
		want control.Control
	}{
		{"import", answer{Error: "The trusted publishing domain data is corrupted."}, control.RMSCorrupted},
		{"import", answer{Error: "(400)", Log: []string{"Padding is invalid and cannot be removed."}}, control.RMSCorrupted},
		{"import", answer{Error: "Ungültig", Types: []string{"System.InvalidOperationException", "System.Security.Cryptography.CryptographicException"}}, control.RMSCorrupted},
		{"import", answer{Error: "Failure to access Azure KeyVault."}, control.RMSKeyURL},
		{"import", answer{Error: "X", Log: []string{"FAILURE TO ACCESS AZURE KEYVAULT."}}, control.RMSKeyURL},
		{"connect", answer{Error: "Die Benennung \"Connect-AipService\" wurde nicht erkannt", Kind: "CommandNotFoundException"}, control.RMSModule},
		{"keys", answer{Error: "The term 'X' is not recognized as the name of a cmdlet"}, control.RMSModule},
		{"load", answer{Error: "ファイル", Types: []string{"System.Management.Automation.PSSecurityException"}}, control.RMSPowerShell},
		{"load", answer{Error: "X.psm1 cannot be loaded because running scripts is disabled"}, control.RMSPowerShell},
		{"load", answer{Error: "NonInteractive", Types: []string{"System.Management.Automation.PSInvalidOperationException"}}, control.RMSPowerShell},
		{"load", answer{Error: "Could not load file or assembly"}, control.RMSModule},
		{"connect", answer{Error: "AADSTS50076: you must use multi-factor authentication"}, control.RMSSignIn},
		{"connect", answer{Error: long}, control.RMSSignIn},
		{"connect", answer{Error: "The remote server returned an error: (407) Proxy Authentication Required."}, control.RMSSignIn},
		{"connect", answer{Error: "Zugriff verweigert", Types: []string{"System.UnauthorizedAccessException"}}, control.RMSSignIn},
		{"keys", answer{Error: "You must call the Connect-AipService cmdlet"}, control.RMSSignIn},
		{"keys", answer{Error: "Zugriff verweigert", Types: []string{"System.UnauthorizedAccessException"}}, control.RMSRights},
		{"activate", answer{Error: "The user is not authorized to do this."}, control.RMSRights},
		{"activate", answer{Error: long}, control.RMSFailed},
	} {
		err := cause(test.word, "doing it", &test.a)
		if !control.Is(err, test.want) || !strings.Contains(err.Error(), test.a.Error) {
			t.Errorf("%s, %+v: got %v, want %s", test.word, test.a, err, test.want.ID)
		}
	}
}

// TestPolicy: what forbids a script is named, with the way on.
func TestPolicy(t *testing.T) {
	for _, test := range []struct {
		policy        policy
		message, hint string
	}{
		{policy{Effective: "Restricted", Scopes: []string{"MachinePolicy Restricted"}}, "forbids scripts, the module's too (MachinePolicy Restricted)", "RemoteSigned"},
		{policy{Effective: "AllSigned", Signature: "Valid"}, "trust the module's publisher", "answer A"},
		{policy{Effective: "AllSigned", Signature: "NotSigned"}, "does not hold here (NotSigned)", "trusted publishers"},
		{policy{Effective: "RemoteSigned", Marked: true}, "mark of the web", "Unblock-File"},
		{policy{Effective: "Unrestricted"}, "AllSigned, or RemoteSigned", "Unblock-File"},
	} {
		message, hint := test.policy.explain("")
		if !strings.Contains(message, test.message) || !strings.Contains(hint, test.hint) || !strings.Contains(hint, "--tenant kit") {
			t.Errorf("%+v: %s; %s", test.policy, message, hint)
		}
	}
}

// TestReadKeys: types and statuses are compared by their letters, and a key of
// the tenant's own stops nothing, whatever it is.
func TestReadKeys(t *testing.T) {
	keys, err := ReadKeys([]Listed{
		{KeyIdentifier: "{11111111-2222-3333-4444-55555555555A}", Status: "active", KeyType: "Customer managed (BYOK)", PublicKey: "AQID", CreationTime: "2026-01-02T00:00:00Z"},
		{KeyIdentifier: "x", Status: "Suspended", KeyType: "Microsoft managed"},
		{KeyIdentifier: "y", Status: "Archived ", KeyType: "Vom Kunden verwaltet (BYOK)", PublicKey: "hex:010203"},
	})
	if err != nil || len(keys) != 3 {
		t.Fatal(keys, err)
	}
	foreign, german, ours := keys[0], keys[1], keys[2]
	if foreign.Status != "Suspended" || foreign.KeyType != MicrosoftManaged {
		t.Errorf("%+v", foreign)
	}
	if german.Status != Archived || german.KeyType != CustomerManaged || string(german.PublicKey) != "\x01\x02\x03" {
		t.Errorf("%+v", german)
	}
	if ours.KeyIdentifier != "11111111-2222-3333-4444-55555555555a" || ours.Status != Active || ours.KeyType != CustomerManaged || len(ours.PublicKey) != 3 {
		t.Errorf("%+v", ours)
	}
}
