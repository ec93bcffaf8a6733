// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
)

// entra answers as Microsoft Entra and as an Azure machine's metadata service
// do, as far as a sign-in goes, and keeps what it was asked.
type entra struct {
	host  string // where a sign-in has to go
	asked []string
}

func (e *entra) Do(r *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	e.asked = append(e.asked, r.Method+" "+r.URL.String()+" "+string(body))
	base := "https://" + e.host + "/contoso"
	switch {
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		return respond(r, 200, `{"tenant_discovery_endpoint":"`+base+`/v2.0/.well-known/openid-configuration","metadata":[{"preferred_network":"`+e.host+`","preferred_cache":"`+e.host+`","aliases":["`+e.host+`"]}]}`), nil
	case r.URL.Host == "169.254.169.254":
		return respond(r, 200, fmt.Sprintf(`{"access_token":"TOKEN","expires_in":"3600","expires_on":"%d","resource":"https://vault.azure.net","token_type":"Bearer"}`, time.Now().Add(time.Hour).Unix())), nil
	case r.URL.Host != e.host:
		return nil, fmt.Errorf("asked %s, not %s", r.URL.Host, e.host)
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		return respond(r, 200, `{"authorization_endpoint":"`+base+`/oauth2/v2.0/authorize","token_endpoint":"`+base+`/oauth2/v2.0/token","device_authorization_endpoint":"`+base+`/oauth2/v2.0/devicecode","issuer":"`+base+`/v2.0"}`), nil
	case strings.HasSuffix(r.URL.Path, "/devicecode"):
		return respond(r, 200, `{"user_code":"ABC","device_code":"d","verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":1,"message":"Enter ABC at https://microsoft.com/devicelogin"}`), nil
	case strings.HasSuffix(r.URL.Path, "/token"):
		return respond(r, 200, `{"access_token":"TOKEN","expires_in":3600,"token_type":"Bearer","id_token":"e30.e30.","client_info":"eyJ1aWQiOiJ1IiwidXRpZCI6InQifQ"}`), nil
	}
	return respond(r, 404, "{}"), nil
}

// pemOf is a certificate with its key.
func pemOf(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
}

// fakeAz puts an Azure CLI on the PATH.
func fakeAz(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\necho '{\"accessToken\":\"TOKEN\",\"expires_on\":9999999999,\"expiresOn\":\"2286-11-20 17:46:39.000000\",\"tenant\":\"contoso\",\"tokenType\":\"Bearer\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestSignInByEachKind: each way gets a token from its place, for the vault's
// cloud, and a secret goes nowhere else.
func TestSignInByEachKind(t *testing.T) {
	const secret = "s3cr3t-of-the-application"
	tokenFile := filepath.Join(t.TempDir(), "federated")
	if err := os.WriteFile(tokenFile, []byte("federated-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := ""
	certificate := pemOf(t)
	const id = "00000000-1111-2222-3333-444444444444"
	for _, test := range []struct {
		vault string
		host  string
		in    vault.SignIn
		asked string // is among what was asked
	}{
		{contoso, "login.microsoftonline.com", vault.SignIn{Kind: "client-secret", Tenant: "contoso", Client: id, Secret: []byte(secret)}, secret},
		{"https://contoso.vault.azure.cn", "login.chinacloudapi.cn", vault.SignIn{Kind: "client-secret", Cloud: "china", Tenant: "contoso", Client: id, Secret: []byte(secret)}, secret},
		{"https://contoso.managedhsm.usgovcloudapi.net", "login.microsoftonline.us", vault.SignIn{Kind: "client-secret", Cloud: "usgov", Tenant: "contoso", Client: id, Secret: []byte(secret)}, secret},
		{contoso, "login.microsoftonline.com", vault.SignIn{Kind: "client-certificate", Cloud: "public", Tenant: "contoso", Client: id, Secret: certificate}, "client_assertion="},
		{contoso, "login.microsoftonline.com", vault.SignIn{Kind: "workload-identity", Tenant: "contoso", Client: id, TokenFile: tokenFile}, "federated-token"},
		{contoso, "login.microsoftonline.com", vault.SignIn{Kind: "device-code", Tenant: "contoso", Prompt: func(text string) error { shown = text; return nil }}, "devicecode"},
		{contoso, "", vault.SignIn{Kind: "managed-identity", Client: id}, "169.254.169.254"},
	} {
		t.Run(test.in.Kind+" "+test.host, func(t *testing.T) {
			service := &entra{host: test.host}
			test.in.Transport = service
			credential, err := test.in.Credential(test.vault)
			if err != nil {
				t.Fatal(err)
			}
			token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
			if err != nil || token.Token != "TOKEN" {
				t.Fatalf("got %v; asked %q", err, service.asked)
			}
			if !slices.ContainsFunc(service.asked, func(s string) bool { return strings.Contains(s, test.asked) }) {
				t.Errorf("asked %q, want one with %s", service.asked, test.asked)
			}
			for _, asked := range service.asked {
				if strings.Contains(asked, secret) && !strings.HasPrefix(asked, "POST https://"+test.host+"/contoso/oauth2/v2.0/token") {
					t.Errorf("the secret goes to %s", asked)
				}
			}
		})
	}
	if !strings.Contains(shown, "Enter ABC") {
		t.Errorf("the code was shown as %q", shown)
	}
	t.Run("azure-cli", func(t *testing.T) {
		fakeAz(t)
		credential, err := vault.SignIn{Kind: "azure-cli"}.Credential(contoso)
		if err != nil {
			t.Fatal(err)
		}
		token, err := credential.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
		if err != nil || token.Token != "TOKEN" {
			t.Errorf("got %v", err)
		}
	})
	for _, kind := range []string{"", "default", "browser"} { // they need a person or a machine of Azure to go on
		if _, err := (vault.SignIn{Kind: kind}).Credential(contoso); err != nil {
			t.Errorf("%q: %v", kind, err)
		}
	}
}

func TestSignInIsRefused(t *testing.T) {
	const id = "00000000-1111-2222-3333-444444444444"
	for _, test := range []struct {
		name, vault, env string
		in               vault.SignIn
		part             string
	}{
		{"unknown kind", contoso, "", vault.SignIn{Kind: "password"}, "password"},
		{"unknown cloud", contoso, "", vault.SignIn{Cloud: "germany"}, "germany"},
		{"another cloud", contoso, "", vault.SignIn{Cloud: "china"}, "public, not in china"},
		{"practice", "https://practice.vault.keyferry.test", "", vault.SignIn{}, "practice"},
		{"no tenant", contoso, "", vault.SignIn{Kind: "client-secret", Client: id, Secret: []byte("s")}, "tenant"},
		{"no client", contoso, "", vault.SignIn{Kind: "client-secret", Tenant: "t", Secret: []byte("s")}, "client ID"},
		{"no secret", contoso, "", vault.SignIn{Kind: "client-secret", Tenant: "t", Client: id}, "secret"},
		{"no certificate", contoso, "", vault.SignIn{Kind: "client-certificate", Tenant: "t", Client: id, Secret: []byte("none")}, "can't be made"},
		{"nobody to show to", contoso, "", vault.SignIn{Kind: "device-code"}, "show"},
		{"secret in the environment", contoso, "AZURE_CLIENT_SECRET", vault.SignIn{}, "AZURE_CLIENT_SECRET"},
		{"password in the environment", contoso, "AZURE_CLIENT_CERTIFICATE_PASSWORD", vault.SignIn{Kind: "default"}, "PASSWORD"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.env != "" {
				t.Setenv(test.env, "in-the-environment")
			}
			_, err := test.in.Credential(test.vault)
			holds(t, err, control.VaultCredential, test.part)
			if strings.Contains(err.Error(), "in-the-environment") {
				t.Error("the secret is in the error")
			}
		})
	}
	if _, err := (vault.SignIn{}).Credential("https://evil.example"); !control.Is(err, control.VaultURL) {
		t.Errorf("got %v", err)
	}
}
