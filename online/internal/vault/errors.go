// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keyferry/pkg/control"
)

// final is a failure that the SDK does not try again.
type final struct{ error }

func (final) NonRetriable()   {}
func (f final) Unwrap() error { return f.error }

// landed says how a change ended of which failure is the answer. Where that
// leaves open whether the key was made, look finds out: it returns the key that
// was asked for, nil when there is none.
func landed[T any](failure error, look func() (*T, error)) (*T, error) {
	if !leavesOpen(failure) {
		return nil, failure
	}
	switch done, err := look(); {
	case done != nil:
		return done, nil
	case err != nil && !leavesOpen(err):
		return nil, err
	}
	return nil, failure
}

// leavesOpen: no answer came, or none that makes sense.
func leavesOpen(failure error) bool {
	return control.Is(failure, control.VaultUnreachable) || control.Is(failure, control.VaultAnswer)
}

// explain turns what the SDK failed with while doing something with the key of
// that name into a refusal that says what a person can do about it.
func (c *Client) explain(ctx context.Context, doing, name string, err error) error {
	var refusal *control.Refusal
	var answer *azcore.ResponseError
	var transport *url.Error
	switch {
	case ctx.Err() != nil:
		return control.VaultUnreachable.Refuse("%s was interrupted: %w", doing, ctx.Err())
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &answer):
		return c.explainAnswer(doing, name, answer)
	case errors.Is(err, context.DeadlineExceeded):
		return control.VaultUnreachable.Refuse("%s: the vault did not answer in time", doing)
	case errors.As(err, &transport):
		what, hint := between(transport.Err)
		return control.VaultUnreachable.Refuse("%s: the vault cannot be reached: %s", doing, what).WithHint("%s", hint)
	}
	return control.VaultAnswer.Refuse("%s: the vault's answer makes no sense: %s", doing, control.Quote(err.Error()))
}

// explainAnswer tells the service's refusals apart. Only what it says in its own
// JSON is its word: pages of proxies and portals have the same statuses.
func (c *Client) explainAnswer(doing, name string, answer *azcore.ResponseError) error {
	e, status := serviceError(answer), answer.StatusCode
	said, refuse := "no reason given", func(k control.Control, format string, args ...any) *control.Refusal {
		return k.Refuse("%s: %s", doing, fmt.Sprintf(format, args...))
	}
	if e.Code != "" {
		said = control.Line(e.Code + ": " + e.Message)
	} else if status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests {
		what, hint := notTheService(answer.RawResponse)
		if status == http.StatusProxyAuthRequired {
			return refuse(control.VaultUnreachable, "%s", what).WithHint("%s", hint)
		}
		return refuse(control.VaultAnswer, "what answers is not the vault: %s", what).WithHint("%s", hint)
	}
	is := func(parts ...string) bool { // codes first, then texts, which are all that tells in places
		all := strings.ToLower(e.InnerError.Code + " " + e.Code + " " + e.Message)
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(all, part) })
	}
	switch {
	case status == http.StatusTooManyRequests:
		return refuse(control.VaultThrottled, "the vault has too many requests%s: %s", wait(answer.RawResponse), said)
	case c.hsm && is("not activated", "notactivated", "security domain"):
		return refuse(control.VaultUnreachable, "the Managed HSM %s is not activated yet: %s", c.name, said).
			WithHint("activate it first, which downloads its security domain: `az keyvault security-domain download --hsm-name %s --sd-wrapping-keys … --sd-quorum … --security-domain-file …`", c.name)
	case status == http.StatusUnauthorized:
		return refuse(control.VaultSignIn, "the vault does not accept the sign-in: %s", said)
	case is("standard vault", "standard sku"): // "Hardware key operation not allowed on standard vault"
		return refuse(control.VaultSKU, "the vault %s is a Standard vault, which has no HSM: %s", c.name, said)
	case is("disallowed by policy", "requestdisallowedbypolicy", "policy identifiers", "policyassignment"):
		return refuse(control.VaultRequest, "a policy of Azure (not a missing role) forbids such a key: %s", said).
			WithHint("the text names the policy and what it demands: an expiry and tags are given with --expires and --key-tag of `online kek create`, --key-expires and --key-tag of `online upload`; else ask who administers the policy for an exemption of this vault")
	case is("keydisabled", "disabled key", "key is disabled", "keynotyetvalid", "keyexpired"):
		return refuse(control.VaultKeyState, "the key %s is disabled, or not within its validity: %s", name, said).
			WithHint("enable it: `az keyvault key set-attributes %s --name %s --enabled true`, then run the same command again", c.az(), name)
	case status == http.StatusForbidden && is("perimeter", "nsp"):
		return refuse(control.VaultFirewall, "the network security perimeter around the vault does not let this machine in: %s", said).
			WithHint("ask who administers the perimeter for an inbound access rule for this machine's address or subscription, or use a machine within it; the vault's own firewall does not count there")
	case status == http.StatusForbidden && is("forbiddenbyconnection", "public network access is disabled", "private link", "private endpoint"):
		return refuse(control.VaultFirewall, "the vault is reached by its private endpoint alone: %s", said).
			WithHint("use a machine in the network of the private endpoint, whose DNS resolves the vault's name to the private address; adding this machine's address to the firewall does not help")
	case status == http.StatusForbidden && is("forbiddenbyfirewall"):
		return refuse(control.VaultFirewall, "the vault's firewall does not let this machine in: %s", said)
	case status == http.StatusForbidden && c.hsm:
		return refuse(control.VaultRights, "the signed-in account may not do that: %s", said).
			WithHint("the signed-in account needs a local role of the Managed HSM: Managed HSM Crypto User, and Managed HSM Crypto Officer for deleted keys")
	case status == http.StatusForbidden:
		return refuse(control.VaultRights, "the signed-in account may not do that: %s", said)
	case status == http.StatusNotFound:
		return refuse(control.VaultKeyMissing, "the vault does not have it: %s", said)
	case status == http.StatusConflict:
		return c.explainConflict(doing, name, said, e.InnerError.Code)
	case status == http.StatusRequestTimeout || status >= 500:
		return refuse(control.VaultUnreachable, "the vault is out of order (HTTP status %d): %s", status, said)
	}
	return refuse(control.VaultRequest, "the vault refuses (HTTP status %d): %s", status, said)
}

// explainConflict tells a deleted key from a change that is under way.
func (c *Client) explainConflict(doing, name, said, inner string) error {
	if inner != "ObjectIsDeletedButRecoverable" {
		return control.VaultConflict.Refuse("%s: another change of the key %s is under way: %s", doing, name, said)
	}
	return control.VaultKeyDeleted.Refuse("%s: the name is taken by a deleted key: %s", doing, said).
		WithHint("choose another name, recover the key (`az keyvault key recover %s --name %s`), or purge it (`az keyvault key purge`) where purge protection is off", c.az(), name)
}

// wait is how long a vault asks to wait.
func wait(answer *http.Response) string {
	if after := answer.Header.Get("Retry-After"); after != "" {
		return " (try again after " + control.Quote(after) + ")"
	}
	return ""
}

// saidError is an error of the service, from its body; zero where there is none.
type saidError struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	InnerError struct {
		Code string `json:"code"` // tells the kinds of Forbidden and Conflict apart
	} `json:"innererror"`
}

func serviceError(answer *azcore.ResponseError) saidError {
	var body struct {
		Error saidError `json:"error"`
	}
	text, err := runtime.Payload(answer.RawResponse) // read and kept by the SDK
	if err != nil || json.Unmarshal(text, &body) != nil {
		return saidError{}
	}
	return body.Error
}
