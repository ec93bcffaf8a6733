// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/pkg/control"
)

// transport answers every request by a function.
type transport func(r *http.Request) *http.Response

func (t transport) Do(r *http.Request) (*http.Response, error) { return t(r), nil }

// transportErr fails every request.
type transportErr func(r *http.Request) error

func (t transportErr) Do(r *http.Request) (*http.Response, error) { return nil, t(r) }

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Header: http.Header{"Content-Type": {"application/json"}},
		Request: r, Body: io.NopCloser(strings.NewReader(body)),
	}
}

// scoped notes what a sign-in is asked for.
type scoped struct{ scopes *[]string }

func (s scoped) GetToken(_ context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*s.scopes = options.Scopes
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func hintOf(err error) string {
	var refusal *control.Refusal
	if errors.As(err, &refusal) {
		return refusal.Hint
	}
	return ""
}

// policyTimeout bounds each of the SDK's tries.
func policyTimeout(ctx context.Context, each time.Duration) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{RetryDelay: time.Microsecond, TryTimeout: each})
}
