// SPDX-License-Identifier: Apache-2.0

// Package faults stands between a client and a vault in tests, and lets one
// HTTP exchange go wrong: the connection is cut, a proxy or the service refuses,
// the answer is late or rubbish. [Table] plays a piece of work with every fault
// at every exchange.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// Fault is one way in which an exchange goes wrong.
type Fault struct {
	Name    string
	Reaches bool                                                           // the request takes effect all the same
	answer  func(r *http.Request) (answer *http.Response, err error)       // instead of the vault's
	spoil   func(answer *http.Response) (spoilt *http.Response, err error) // what becomes of the vault's own
}

// All are the faults.
var All = []Fault{
	{Name: "cut before", answer: func(r *http.Request) (*http.Response, error) { return nil, lost(r, syscall.ECONNRESET) }},
	{Name: "cut after the effect", Reaches: true, spoil: func(a *http.Response) (*http.Response, error) {
		return nil, lost(a.Request, io.ErrUnexpectedEOF)
	}},
	{Name: "cut amid the answer", Reaches: true, spoil: func(a *http.Response) (*http.Response, error) {
		a.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"key":{"ki`), broken{}))
		return a, nil
	}},
	Answer("401", 401, "Unauthorized", "", "AKV10022: Invalid audience."),
	Answer("403", 403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource."),
	Answer("403 firewall", 403, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted service."),
	Answer("409", 409, "Conflict", "ObjectIsBeingRecovered", "The key is currently being recovered and cannot be re-created; retry later."),
	Answer("429", 429, "Throttled", "", "Request was not processed because too many requests were received."),
	Answer("500", 500, "InternalServerError", "", "The service is having trouble."),
	{Name: "slow, not taken", answer: func(r *http.Request) (*http.Response, error) { return nil, lost(r, context.DeadlineExceeded) }},
	{Name: "slow, taken", Reaches: true, spoil: func(a *http.Response) (*http.Response, error) {
		return nil, lost(a.Request, context.DeadlineExceeded)
	}},
	{Name: "garbage", answer: func(r *http.Request) (*http.Response, error) { return page(r), nil }},
	{Name: "garbage after the effect", Reaches: true, spoil: func(a *http.Response) (*http.Response, error) { return page(a.Request), nil }},
}

// Answer is the fault of a vault that answers with an error, in Azure's shape.
func Answer(name string, status int, code, inner, message string) Fault {
	return Fault{Name: name, answer: func(r *http.Request) (*http.Response, error) {
		a := respond(r, status, fmt.Sprintf(`{"error":{"code":%q,"message":%q,"innererror":{"code":%q}}}`, code, message, inner))
		a.Header.Set("Content-Type", "application/json")
		if status == http.StatusTooManyRequests {
			a.Header.Set("Retry-After-Ms", "1")
		}
		return a, nil
	}}
}

func lost(r *http.Request, err error) error {
	return &url.Error{Op: r.Method[:1] + strings.ToLower(r.Method[1:]), URL: r.URL.String(), Err: err}
}

func respond(r *http.Request, status int, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}
}

// page is what a proxy's sign-in page looks like to a client.
func page(r *http.Request) *http.Response {
	return respond(r, http.StatusOK, "<html><title>Sign in to the network</title>")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Transport lets the exchange numbered At, from 0, go wrong; with On, the ones
// after it, too. The zero Fault lets all pass.
type Transport struct {
	Next  policy.Transporter
	Fault Fault
	At    int
	On    bool
	Seen  []string // method and path of each exchange
}

func (t *Transport) Do(r *http.Request) (*http.Response, error) {
	n := len(t.Seen)
	t.Seen = append(t.Seen, r.Method+" "+r.URL.Path)
	hit := n == t.At || t.On && n > t.At
	if hit && t.Fault.answer != nil {
		return t.Fault.answer(r)
	}
	answer, err := t.Next.Do(r)
	if err != nil || !hit || t.Fault.spoil == nil {
		return answer, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	return t.Fault.spoil(answer)
}

// AtOnce makes the waits between the SDK's tries short. (A negative delay, which
// should mean none, means the longest in azcore 1.24.)
func AtOnce(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{RetryDelay: time.Microsecond})
}

// World is where a piece of work is done.
type World struct {
	Next  policy.Transporter                     // to the vault
	Work  func(through policy.Transporter) error // one run; it can be repeated
	State func() string                          // what there is in the end, without what is random
}

// Table does the work in a new world for each fault at each exchange, met once
// and from there on, and again without it: the end is to be the same as without
// any fault. It returns the number of cases.
func Table(t *testing.T, begin func(t *testing.T) World) int {
	t.Helper()
	clean := begin(t)
	count := &Transport{Next: clean.Next}
	if err := clean.Work(count); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	want := clean.State()
	cases, mended := 0, 0
	for at, exchange := range count.Seen {
		for _, fault := range All {
			for _, on := range []bool{false, true} {
				name := fmt.Sprintf("%d %s, %s, on %v", at, exchange, fault.Name, on)
				world := begin(t)
				faulty := &Transport{Next: world.Next, Fault: fault, At: at, On: on}
				first := world.Work(faulty)
				if len(faulty.Seen) <= at {
					t.Errorf("%s: the fault was not met: %v", name, first)
				}
				if first == nil {
					mended++
				}
				if err := world.Work(world.Next); err != nil {
					t.Errorf("%s: the second run: %v (the first: %v)", name, err, first)
				} else if got := world.State(); got != want {
					t.Errorf("%s: the end differs:\n%s\nwant:\n%s", name, got, want)
				}
				cases++
			}
		}
	}
	t.Logf("count: %d exchanges %v, %d faults, once and on: %d cases, %d of them done in the first run", len(count.Seen), count.Seen, len(All), cases, mended)
	return cases
}
