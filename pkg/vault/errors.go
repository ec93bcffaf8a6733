// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
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
		return token, control.VaultSignIn.Refuse("the sign-in to Azure failed: %s", control.Quote(err.Error()))
	}
	return token, nil
}

// explain turns what the SDK failed with while doing into a refusal that says
// what a person can do about it.
func explain(ctx context.Context, doing string, err error) error {
	var refusal *control.Refusal
	var answer *azcore.ResponseError
	var transport *url.Error
	switch {
	case ctx.Err() != nil:
		return control.VaultUnreachable.Refuse("%s was interrupted: %w", doing, ctx.Err())
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &answer):
		return explainAnswer(doing, answer)
	case errors.As(err, &transport):
		return control.VaultUnreachable.Refuse("%s: the vault cannot be reached: %s", doing, control.Quote(transport.Err.Error()))
	}
	return control.VaultAnswer.Refuse("%s: the vault's answer makes no sense: %s", doing, control.Quote(err.Error()))
}

// serviceError is the body of Key Vault's errors.
type serviceError struct {
	Error struct {
		Code       string `json:"code"`
		Message    string `json:"message"`
		InnerError struct {
			Code string `json:"code"`
		} `json:"innererror"`
	} `json:"error"`
}

func explainAnswer(doing string, answer *azcore.ResponseError) error {
	said, inner := serviceMessage(answer)
	status := answer.StatusCode
	switch {
	case status == http.StatusUnauthorized:
		return control.VaultSignIn.Refuse("%s: the vault does not accept the sign-in: %s", doing, said)
	case status == http.StatusForbidden && (inner == "ForbiddenByFirewall" || inner == "ForbiddenByConnection"):
		return control.VaultFirewall.Refuse("%s: the vault does not let this machine in: %s", doing, said)
	case status == http.StatusForbidden:
		return control.VaultRights.Refuse("%s: the signed-in account may not do that: %s", doing, said)
	case status == http.StatusNotFound:
		return control.VaultKeyMissing.Refuse("%s: the vault does not have it: %s", doing, said)
	case status == http.StatusConflict:
		return control.VaultKeyDeleted.Refuse("%s: the name is taken by a deleted key: %s", doing, said)
	case status == http.StatusTooManyRequests:
		return control.VaultThrottled.Refuse("%s: the vault has too many requests: %s", doing, said)
	case status >= 500:
		return control.VaultUnreachable.Refuse("%s: the vault is out of order (HTTP status %d): %s", doing, status, said)
	}
	return control.VaultRequest.Refuse("%s: the vault refuses (HTTP status %d): %s", doing, status, said)
}

// serviceMessage returns the service's own words, quoted, and the code that
// tells its kinds of Forbidden apart.
func serviceMessage(answer *azcore.ResponseError) (said, inner string) {
	body, err := runtime.Payload(answer.RawResponse) // read and kept by the SDK
	var e serviceError
	if err != nil || json.Unmarshal(body, &e) != nil || e.Error.Message == "" {
		return "no reason given", ""
	}
	return control.Quote(strings.TrimSpace(e.Error.Code + ": " + e.Error.Message)), e.Error.InnerError.Code
}

// once lets the SDK repeat a request that changes the vault only when the
// vault said that it did not take it (429). After a lost answer nobody knows
// whether the key was made, and a repetition would make a second version.
func once(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{
		ShouldRetry: func(answer *http.Response, err error) bool {
			return err == nil && answer.StatusCode == http.StatusTooManyRequests
		},
	})
}
