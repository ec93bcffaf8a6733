// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/pkg/browser"
	"software.sslmate.com/src/go-pkcs12"

	"keyferry/pkg/control"
)

// SignIn says how to sign in to Azure, by azidentity. Tokens live in memory
// alone. What is not needed by the kind stays empty; a tenant that is named
// must be the vault's.
type SignIn struct {
	Kind      string // one of Credentials; empty: default
	Cloud     string // one of Clouds, which must be the vault's; empty: the vault's
	Tenant    string // of Microsoft Entra: its GUID or domain
	Client    string // GUID of the application or of the managed identity
	Secret    []byte // client-secret: the secret; client-certificate: PEM or PKCS#12 with the key; the caller clears it
	Password  []byte // client-certificate: of the PKCS#12; the caller clears it
	TokenFile string // workload-identity: a file with the token; empty: as AZURE_FEDERATED_TOKEN_FILE says
	// Prompt shows a person the service's instructions, with device-code.
	Prompt func(text string) error
	// Transport is nil for the network.
	Transport policy.Transporter
}

// kind is a way to sign in.
type kind struct {
	name  string
	needs func(s SignIn) string // what is missing
	make  func(s SignIn, o azcore.ClientOptions) (azcore.TokenCredential, error)
}

var kinds = []kind{
	{"default", noSecretAround, SignIn.byDefault},
	{"browser", nothing, SignIn.byBrowser},
	{"device-code", SignIn.needsPrompt, SignIn.byDeviceCode},
	{"azure-cli", nothing, SignIn.byAzureCLI},
	{"client-secret", SignIn.needsClient, SignIn.byClientSecret},
	{"client-certificate", SignIn.needsClient, SignIn.byClientCertificate},
	{"managed-identity", nothing, SignIn.byManagedIdentity},
	{"workload-identity", nothing, SignIn.byWorkloadIdentity},
}

// Credentials are the names of the ways to sign in.
func Credentials() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Credential returns what signs in to the vault at vaultURL. Nothing is sent
// yet. What does not go together is KF-VAULT-CREDENTIAL.
func (s SignIn) Credential(vaultURL string) (azcore.TokenCredential, error) {
	where, err := parseURL(vaultURL)
	switch {
	case err != nil:
		return nil, err
	case where.cloud == nil:
		return nil, control.VaultCredential.Refuse("the practice vault takes no sign-in of Azure")
	case s.Cloud != "" && !slices.Contains(Clouds(), s.Cloud):
		return nil, control.VaultCredential.Refuse("Azure has no cloud %s: there are %s", control.Quote(s.Cloud), strings.Join(Clouds(), ", "))
	case s.Cloud != "" && s.Cloud != where.cloud.name:
		return nil, control.VaultCredential.Refuse("the vault %s is in Azure's cloud %s, not in %s", where.url, where.cloud.name, s.Cloud)
	case s.Kind == "":
		s.Kind = "default"
	}
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == s.Kind })
	if i < 0 {
		return nil, control.VaultCredential.Refuse("%s is no way to sign in: there are %s", control.Quote(s.Kind), strings.Join(Credentials(), ", "))
	}
	if missing := kinds[i].needs(s); missing != "" {
		return nil, control.VaultCredential.Refuse("the sign-in by %s %s", s.Kind, missing)
	}
	credential, err := kinds[i].make(s, azcore.ClientOptions{Cloud: where.cloud.configuration, Transport: s.Transport})
	if err != nil {
		return nil, control.VaultCredential.Refuse("the sign-in by %s can't be made: %s", s.Kind, control.Quote(err.Error()))
	}
	return credential, nil
}

func nothing(SignIn) string { return "" }

func (s SignIn) needsPrompt() string {
	if s.Prompt == nil {
		return "needs somebody to show the code to"
	}
	return ""
}

func (s SignIn) needsClient() string {
	switch {
	case s.Tenant == "":
		return "needs the tenant"
	case s.Client == "":
		return "needs the application's client ID"
	case len(s.Secret) == 0:
		return "needs the application's secret or certificate, by a file"
	}
	return ""
}

// secretVariables are secrets that azidentity would take from the environment,
// where every program that this user runs can read them.
var secretVariables = []string{"AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD"}

func noSecretAround(SignIn) string {
	for _, name := range secretVariables {
		if os.Getenv(name) != "" {
			return "takes no secret from the environment, where " + name + " is set: take it out, or name another way to sign in and give the secret by a file"
		}
	}
	return ""
}

// byDefault asks the Azure CLI first: what a person has signed in with goes before
// what happens to answer for a managed identity on this machine, which would end
// the SDK's own chain. AZURE_TOKEN_CREDENTIALS, where it is set, chooses.
func (s SignIn) byDefault(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	rest, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: o, TenantID: s.Tenant})
	if err != nil || os.Getenv("AZURE_TOKEN_CREDENTIALS") != "" {
		return rest, err
	}
	cli, err := s.byAzureCLI(o)
	return &inTurn{of: []azcore.TokenCredential{cli, rest}}, err
}

// inTurn asks one credential after the other, and stays with the first that gave a
// token.
type inTurn struct {
	mu sync.Mutex
	of []azcore.TokenCredential
}

func (c *inTurn) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed []error
	for i, credential := range c.of {
		token, err := credential.GetToken(ctx, options)
		if err == nil {
			c.of = c.of[i : i+1]
			return token, nil
		}
		failed = append(failed, err)
	}
	return azcore.AccessToken{}, errors.Join(failed...)
}

func (s SignIn) byBrowser(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	browser.Stdout, browser.Stderr = io.Discard, io.Discard // what opens it may talk; a library does not
	return azidentity.NewInteractiveBrowserCredential(&azidentity.InteractiveBrowserCredentialOptions{ClientOptions: o, TenantID: s.Tenant, ClientID: s.Client})
}

func (s SignIn) byDeviceCode(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	return azidentity.NewDeviceCodeCredential(&azidentity.DeviceCodeCredentialOptions{
		ClientOptions: o, TenantID: s.Tenant, ClientID: s.Client,
		UserPrompt: func(_ context.Context, m azidentity.DeviceCodeMessage) error { return s.Prompt(m.Message) },
	})
}

func (s SignIn) byAzureCLI(azcore.ClientOptions) (azcore.TokenCredential, error) {
	return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: s.Tenant})
}

func (s SignIn) byClientSecret(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	return azidentity.NewClientSecretCredential(s.Tenant, s.Client, string(s.Secret), &azidentity.ClientSecretCredentialOptions{ClientOptions: o})
}

func (s SignIn) byClientCertificate(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	certificates, key, err := s.certificate()
	if err != nil {
		return nil, err
	}
	return azidentity.NewClientCertificateCredential(s.Tenant, s.Client, certificates, key, &azidentity.ClientCertificateCredentialOptions{ClientOptions: o})
}

// certificate reads PEM or PKCS#12. The SDK's own reader takes only PKCS#12 of the
// old kind, with RC2 or 3DES, which neither Windows nor OpenSSL makes by default
// any more.
func (s SignIn) certificate() ([]*x509.Certificate, crypto.PrivateKey, error) {
	if bytes.Contains(s.Secret, []byte("-----BEGIN")) {
		return azidentity.ParseCertificates(s.Secret, nil)
	}
	key, leaf, others, err := pkcs12.DecodeChain(s.Secret, string(s.Password))
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && len(s.Password) == 0:
		return nil, nil, errors.New("the PKCS#12 file has a password: give it with --azure-certificate-password-file")
	case err != nil:
		return nil, nil, err
	}
	return append([]*x509.Certificate{leaf}, others...), key, nil
}

func (s SignIn) byManagedIdentity(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	options := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: o}
	if s.Client != "" {
		options.ID = azidentity.ClientID(s.Client)
	}
	return azidentity.NewManagedIdentityCredential(options)
}

func (s SignIn) byWorkloadIdentity(o azcore.ClientOptions) (azcore.TokenCredential, error) {
	return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: o, TenantID: s.Tenant, ClientID: s.Client, TokenFilePath: s.TokenFile,
	})
}
