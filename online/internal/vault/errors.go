// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keyferry/pkg/control"
)

// signIn marks what a credential fails with, so that no sign-in reads as a
// fault of the vault.
type signIn struct{ azcore.TokenCredential }

func (s signIn) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := s.TokenCredential.GetToken(ctx, options)
	if err != nil {
		return token, final{control.VaultSignIn.Refuse("the sign-in to Azure failed: %s", control.Quote(err.Error()))}
	}
	return token, nil
}

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
		return control.VaultUnreachable.Refuse("%s: the vault cannot be reached: %s", doing, control.Quote(transport.Err.Error()))
	}
	return control.VaultAnswer.Refuse("%s: the vault's answer makes no sense: %s", doing, control.Quote(err.Error()))
}

// explainAnswer tells the service's refusals apart.
func (c *Client) explainAnswer(doing, name string, answer *azcore.ResponseError) error {
	e := serviceError(answer)
	said := control.Quote(strings.TrimSpace(e.Code + ": " + e.Message))
	if e.Message == "" {
		said = "no reason given"
	}
	switch status := answer.StatusCode; {
	case status == http.StatusUnauthorized:
		return control.VaultSignIn.Refuse("%s: the vault does not accept the sign-in: %s", doing, said)
	case onStandardVault(e.Message):
		return control.VaultSKU.Refuse("%s: the vault %s is a Standard vault, which has no HSM: %s", doing, c.name, said)
	case status == http.StatusForbidden && (e.InnerError.Code == "ForbiddenByFirewall" || e.InnerError.Code == "ForbiddenByConnection"):
		return control.VaultFirewall.Refuse("%s: the vault does not let this machine in: %s", doing, said)
	case status == http.StatusForbidden && c.hsm:
		return control.VaultRights.Refuse("%s: the signed-in account may not do that: %s", doing, said).
			WithHint("the signed-in account needs a local role of the Managed HSM: Managed HSM Crypto User, and Managed HSM Crypto Officer for deleted keys")
	case status == http.StatusForbidden:
		return control.VaultRights.Refuse("%s: the signed-in account may not do that: %s", doing, said)
	case status == http.StatusNotFound:
		return control.VaultKeyMissing.Refuse("%s: the vault does not have it: %s", doing, said)
	case status == http.StatusConflict:
		return c.explainConflict(doing, name, said, e.InnerError.Code)
	case status == http.StatusTooManyRequests:
		return control.VaultThrottled.Refuse("%s: the vault has too many requests%s: %s", doing, wait(answer.RawResponse), said)
	case status == http.StatusRequestTimeout || status >= 500:
		return control.VaultUnreachable.Refuse("%s: the vault is out of order (HTTP status %d): %s", doing, status, said)
	default:
		return control.VaultRequest.Refuse("%s: the vault refuses (HTTP status %d): %s", doing, status, said)
	}
}

// explainConflict tells a deleted key from a change that is under way.
func (c *Client) explainConflict(doing, name, said, inner string) error {
	if inner != "ObjectIsDeletedButRecoverable" {
		return control.VaultConflict.Refuse("%s: another change of the key %s is under way: %s", doing, name, said)
	}
	return control.VaultKeyDeleted.Refuse("%s: the name is taken by a deleted key: %s", doing, said).
		WithHint("choose another name, recover the key (`az keyvault key recover %s --name %s`), or purge it (`az keyvault key purge`) where purge protection is off", c.az(), name)
}

// onStandardVault recognises how Azure refuses HSM keys in a vault without
// HSM. Its words are all that tells: "Hardware key operation not allowed on
// standard vault".
func onStandardVault(message string) bool {
	message = strings.ToLower(message)
	return slices.ContainsFunc([]string{"standard vault", "standard sku"}, func(s string) bool { return strings.Contains(message, s) })
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
