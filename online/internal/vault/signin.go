// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"keyferry/pkg/control"
)

// signIn marks what a credential fails with, so that no sign-in reads as a
// fault of the vault.
type signIn struct{ azcore.TokenCredential }

func (s signIn) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := s.TokenCredential.GetToken(ctx, options)
	if err != nil {
		return token, final{signInFailed(err)}
	}
	return token, nil
}

// entraHints say what to do for the codes of Microsoft Entra that people meet most.
var entraHints = map[string]string{
	"AADSTS50034":   "the account is not in this tenant: name the tenant with --azure-tenant, or sign in with another account",
	"AADSTS50076":   "the sign-in needs multi-factor authentication: use --credential browser or device-code, or `az login` again with --tenant",
	"AADSTS50079":   "the account has to register for multi-factor authentication first: https://aka.ms/mfasetup in a browser, then sign in with --credential browser",
	"AADSTS53003":   "a Conditional Access policy blocks this sign-in: use a device and a network that it allows, or ask who administers Microsoft Entra, who finds the policy by the correlation ID in the sign-in log",
	"AADSTS65001":   "nobody has consented to the application: ask an administrator of the tenant for the consent, or use --credential azure-cli",
	"AADSTS700016":  "the application is not in this tenant: compare --azure-client (the application's client ID, not its object ID) and --azure-tenant",
	"AADSTS700027":  "the certificate is not the application's: add its public half to the application's registration, or give the right file",
	"AADSTS700082":  "the sign-in is too old: `az login` again",
	"AADSTS7000215": "the secret is wrong: give the secret's value, not its ID, in the file",
	"AADSTS7000222": "the application's secret has expired: make a new one in its registration and give that",
	"AADSTS90002":   "there is no such tenant: compare --azure-tenant, and for a sovereign cloud --cloud and the vault's URL",
}

var (
	entraCode = regexp.MustCompile(`AADSTS[0-9]+`)
	// tokens are what no text may show, whoever puts it there: JSON Web Tokens, and
	// secrets in forms that are echoed.
	tokens = regexp.MustCompile(`eyJ[\w-]{10,}\.[\w-]+(\.[\w-]*)*|(client_secret|client_assertion|refresh_token|access_token)("?\s*[=:]\s*"?)[^&"\s]+`)
	// guides are of the SDK, for programmers.
	guides = regexp.MustCompile(`\.?\s*To (troubleshoot|mitigate this issue), (visit|please refer to)\S*[^.]*https://aka\.ms/\S+`)
)

// elsewhere is how the SDK says that the vault's tenant is not the one it was given.
var elsewhere = regexp.MustCompile(`isn't configured to acquire tokens for tenant "([0-9A-Za-z.-]+)"`)

// shown makes one line of a text from elsewhere, without tokens.
func shown(text string) string {
	return control.Line(tokens.ReplaceAllString(guides.ReplaceAllString(text, ""), "(a token, not shown)"))
}

// signInFailed says why a credential gives no token: for Microsoft Entra with its
// code and its whole description, in which the correlation ID is; for several
// credentials in turn with a line for each.
func signInFailed(err error) *control.Refusal {
	var lines []string
	hint := ""
	add := func(line, itsHint string) {
		if line != "" && !slices.Contains(lines, line) {
			lines, hint = append(lines, line), cmp.Or(hint, itsHint)
		}
	}
	for _, one := range apart(err) {
		var answered *azidentity.AuthenticationFailedError
		var said struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		if chain := attempts(one); !errors.As(one, &answered) || answered.RawResponse == nil || len(chain) > 0 {
			what, itsHint := between(one)
			if vaults := elsewhere.FindStringSubmatch(what); vaults != nil {
				what, itsHint = "the vault sends to the tenant "+vaults[1]+" for the sign-in, and --azure-tenant names another", "give --azure-tenant "+vaults[1]+", or compare the vault's URL"
			}
			if itsHint == betweenHint {
				itsHint = ""
			}
			if len(chain) == 0 {
				chain = []string{what}
			}
			for _, line := range chain {
				aHint := cmp.Or(entraHints[entraCode.FindString(line)], itsHint)
				if strings.HasPrefix(line, "ManagedIdentityCredential authentication failed") {
					aHint = "sign in with `az login`, or choose with --credential: something answers on this machine for a managed identity, and it may be none"
				}
				add(shown(line), aHint)
			}
			continue
		}
		body, bodyErr := runtime.Payload(answered.RawResponse)
		switch status := answered.RawResponse.StatusCode; {
		case bodyErr == nil && json.Unmarshal(body, &said) == nil && said.Error != "":
			description := cmp.Or(said.Description, said.Error)
			add(shown(description), entraHints[entraCode.FindString(description)])
		case status == http.StatusTooManyRequests:
			return control.VaultThrottled.Refuse("the sign-in to Azure failed: Microsoft Entra has too many requests%s", wait(answered.RawResponse))
		default:
			what, itsHint := notTheService(answered.RawResponse)
			add("what answers is not Microsoft Entra: "+what, itsHint)
		}
	}
	text := strings.Join(lines, "\n")
	if len(lines) > 1 {
		text = "each credential in turn:\n" + text
	}
	refusal := control.VaultSignIn.Refuse("the sign-in to Azure failed: %s", text)
	if hint != "" {
		refusal = refusal.WithHint("%s", hint)
	}
	return refusal
}

// attempts are the credentials that the SDK's own chain has tried, each with what it
// failed with; none of another error.
func attempts(err error) []string {
	_, list, isChain := strings.Cut(err.Error(), "Attempted credentials:\n\t")
	if !isChain {
		return nil
	}
	return strings.Split(rules.ReplaceAllString(strings.ReplaceAll(list, "\n\t\t", " "), ""), "\n\t")
}

// rules are lines that the SDK draws.
var rules = regexp.MustCompile(`-{10,}`)

// apart takes joined errors apart.
func apart(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// betweenHint is what to look at where nothing more is known of what stands
// between this machine and Azure.
const betweenHint = "check the network and the vault's URL; a proxy is named in HTTPS_PROXY, hosts that go past it in NO_PROXY; then run the same command again"

const (
	proxyHint = "let who runs the proxy let this machine pass without a sign-in to the vault's host and login.microsoftonline.com, or name in HTTPS_PROXY a proxy on this machine that signs in to it: this program speaks neither NTLM nor Kerberos; NO_PROXY names hosts that go past the proxy"
	tlsHint   = "a proxy that inspects TLS signs with a CA of its own: have it put in the system's store (on Windows the machine's trusted roots), or name its PEM file in SSL_CERT_FILE (not on Windows); or go past the proxy with NO_PROXY"
	clockHint = "set this machine's clock, its time zone too, then run the same command again"
)

// between says what stands between this machine and Azure, as far as an error of
// the network tells. The SDK passes some on as texts alone.
func between(err error) (what, hint string) {
	text := err.Error()
	says := func(part string) bool { return strings.Contains(text, part) }
	unknown := x509.UnknownAuthorityError{}
	switch {
	case says("Proxy Authentication Required"):
		return "the proxy wants a sign-in of its own (HTTP status 407)", proxyHint
	case says("proxyconnect"):
		return "the proxy that HTTPS_PROXY names does not let this through: " + shown(text), betweenHint
	case says("expired or is not yet valid"):
		return "the certificate that answers is not valid at this machine's time, so the clock may be wrong: " + shown(text), clockHint
	case errors.As(err, &unknown) && unknown.Cert != nil:
		return fmt.Sprintf("nobody here trusts the certificate that answers, of %s: %s", control.Quote(unknown.Cert.Issuer.String()), shown(text)), tlsHint
	case says("x509: certificate signed by unknown authority"):
		return "nobody here trusts the certificate that answers: " + shown(text), tlsHint
	case says("x509: certificate is valid for"), says("x509: certificate is not valid for"):
		return "another host answers in its place: " + shown(text), tlsHint
	}
	return text, betweenHint
}

var pageTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)

// notTheService says what answered in a service's place: a proxy, a block page, a
// portal.
func notTheService(answer *http.Response) (what, hint string) {
	if answer.StatusCode == http.StatusProxyAuthRequired {
		return "the proxy wants a sign-in of its own (HTTP status 407)", proxyHint
	}
	what = fmt.Sprintf("HTTP status %d, and no JSON of the service", answer.StatusCode)
	body, err := runtime.Payload(answer)
	if title := pageTitle.FindSubmatch(body); err == nil && title != nil {
		what = fmt.Sprintf("HTTP status %d, a page with the title %s", answer.StatusCode, control.Quote(shown(html.UnescapeString(string(title[1])))))
	}
	return what, "a proxy or a portal stands between: open the address in a browser on this machine to see what it wants, or ask who runs the network to let the host through; HTTPS_PROXY and NO_PROXY say which way is taken"
}
