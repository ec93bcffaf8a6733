// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// PracticeHost is the host of the practice vault: the one host outside Azure
// that a client takes. The name is reserved for tests (RFC 6761), so it leads
// nowhere but through the practice vault's own transport.
const PracticeHost = "practice.vault.keyferry.test"

// suffixes are the domains of Key Vault and Managed HSM in Azure's clouds.
var suffixes = []string{
	"vault.azure.net", "managedhsm.azure.net",
	"vault.azure.cn", "managedhsm.azure.cn",
	"vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net",
}

var (
	vaultName  = regexp.MustCompile(`^[0-9A-Za-z-]{3,24}$`)
	keyName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	keyVersion = regexp.MustCompile(`^[0-9A-Za-z]{1,64}$`)
)

// CleanURL returns the vault's URL as https://host, in lower case and without
// a final slash. Anything that is not the address of a vault in Azure or of
// the practice vault is refused (KF-VAULT-URL).
func CleanURL(vaultURL string) (string, error) {
	u, err := url.Parse(vaultURL)
	if err != nil {
		return "", control.VaultURL.Refuse("%s is not a URL", control.Quote(vaultURL))
	}
	host := strings.ToLower(u.Host)
	clean := "https://" + host
	// Comparing with what is rebuilt leaves no room for a user, a path, a query.
	if strings.TrimSuffix(strings.ToLower(vaultURL), "/") != clean {
		return "", control.VaultURL.Refuse("the vault's URL %s is not of the form https://NAME.vault.azure.net", control.Quote(vaultURL))
	}
	name, suffix, _ := strings.Cut(host, ".")
	if host != PracticeHost && !(slices.Contains(suffixes, suffix) && vaultName.MatchString(name)) {
		return "", control.VaultURL.Refuse("%s is not a host of Azure Key Vault or Managed HSM", control.Quote(u.Host))
	}
	return clean, nil
}
