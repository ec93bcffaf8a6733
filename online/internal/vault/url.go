// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/pkg/control"
)

// PracticeHost is the host of the practice vault: the one host outside Azure
// that a client takes. The name is reserved for tests (RFC 6761), so it leads
// nowhere but through the practice vault's own transport.
const PracticeHost = "practice.vault.keyferry.test"

// azure is one of Azure's clouds: where to sign in, and what hosts its vaults
// and Managed HSMs have.
type azure struct {
	name          string
	configuration cloud.Configuration
	vaults, hsms  string // domains
}

var clouds = []azure{
	{"public", cloud.AzurePublic, "vault.azure.net", "managedhsm.azure.net"},
	{"china", cloud.AzureChina, "vault.azure.cn", "managedhsm.azure.cn"},
	{"usgov", cloud.AzureGovernment, "vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net"},
}

// Clouds are the names of Azure's clouds, as [SignIn] takes them.
func Clouds() []string {
	var names []string
	for _, c := range clouds {
		names = append(names, c.name)
	}
	return names
}

var (
	vaultName  = regexp.MustCompile(`^[0-9A-Za-z-]{3,24}$`)
	keyName    = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	keyVersion = regexp.MustCompile(`^[0-9A-Za-z]{1,64}$`)
)

// address is a vault's URL taken apart.
type address struct {
	url   string // https://host, in lower case
	name  string // of the vault
	cloud *azure // nil: the practice vault
	hsm   bool   // a Managed HSM
}

// CleanURL returns the vault's URL as https://host, in lower case and without
// a final slash. Anything that is not the address of a vault in Azure or of
// the practice vault is refused (KF-VAULT-URL).
func CleanURL(vaultURL string) (string, error) {
	a, err := parseURL(vaultURL)
	return a.url, err
}

// NameOf is the name in a key's URL, https://HOST/keys/NAME/VERSION; empty where
// there is none.
func NameOf(keyURL string) string {
	id := azkeys.ID(keyURL)
	return id.Name()
}

// CloudOf names the cloud, one of [Clouds], of the vault at vaultURL; empty for
// the practice vault (KF-VAULT-URL).
func CloudOf(vaultURL string) (string, error) {
	a, err := parseURL(vaultURL)
	if err != nil || a.cloud == nil {
		return "", err
	}
	return a.cloud.name, nil
}

func parseURL(vaultURL string) (address, error) {
	u, err := url.Parse(vaultURL)
	if err != nil {
		return address{}, control.VaultURL.Refuse("%s is not a URL", control.Quote(vaultURL))
	}
	host := strings.ToLower(u.Host)
	a := address{url: "https://" + host}
	// Comparing with what is rebuilt leaves no room for a user, a path, a query.
	if strings.TrimSuffix(strings.ToLower(vaultURL), "/") != a.url {
		return address{}, control.VaultURL.Refuse("the vault's URL %s is not of the form https://NAME.vault.azure.net", control.Quote(vaultURL))
	}
	name, domain, _ := strings.Cut(host, ".")
	a.name = name
	if host == PracticeHost {
		return a, nil
	}
	i := slices.IndexFunc(clouds, func(c azure) bool { return domain == c.vaults || domain == c.hsms })
	if i < 0 || !vaultName.MatchString(name) {
		return address{}, control.VaultURL.Refuse("%s is not a host of Azure Key Vault or Managed HSM", control.Quote(u.Host))
	}
	a.cloud, a.hsm = &clouds[i], domain == clouds[i].hsms
	return a, nil
}

// az is the part of a command of the Azure CLI that names the vault.
func (a address) az() string {
	if a.hsm {
		return "--hsm-name " + a.name
	}
	return "--vault-name " + a.name
}
