// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/pkg/control"
)

// challengeForm is what a vault answers to a request without a sign-in, or with one
// that it does not take any more. The SDK takes it apart without looking, and a
// strange one makes it panic.
var challengeForm = regexp.MustCompile(`^Bearer authorization="https://[^/" ]+/([^/" ]+)/?",? (?:scope="[^" ]*",? )?resource="https://[^" ]+"` +
	`(?:,? *(?:(?:error|claims|realm|client_id)="[^" ]*"|error_description="[^"=]*"))*$`)

// challengeOf sorts a challenge: it may name the Entra tenant to sign in to; or want
// claims for which the SDK signs in anew, as Conditional Access does while a sign-in
// lasts; or say why it does not take a sign-in. Anything else is no vault's.
func challengeOf(challenge string, signedIn bool) (tenant string, err error) {
	parts := challengeForm.FindStringSubmatch(challenge)
	switch {
	case parts != nil:
		return parts[1], nil
	case signedIn && strings.Contains(challenge, `error="insufficient_claims"`) && strings.Contains(challenge, `claims="`):
		return "", nil
	case signedIn && strings.HasPrefix(challenge, "Bearer ") && strings.Contains(challenge, `error="`):
		return "", final{control.VaultSignIn.Refuse("the vault does not accept the sign-in: %s", shown(challenge))}
	}
	return "", final{control.VaultAnswer.Refuse("the vault asks for a sign-in as no key vault does: %s", control.Quote(challenge))}
}

// watch stands between the SDK and the network: it sees each try's answer.
type watch struct{ client *Client }

func (w watch) Do(request *policy.Request) (*http.Response, error) {
	answer, err := request.Next()
	if err != nil {
		w.trouble("no answer from the vault: %s", control.Quote(err.Error()))
		if _, hint := between(err); hint != betweenHint { // no further try mends that
			err = final{err}
		}
		return answer, err
	}
	tenant := ""
	if challenge := answer.Header.Get("WWW-Authenticate"); answer.StatusCode == http.StatusUnauthorized && challenge != "" {
		if tenant, err = challengeOf(challenge, request.Raw().Header.Get("Authorization") != ""); err != nil {
			return nil, err
		}
	}
	w.client.seen.note(answer, tenant)
	if status := answer.StatusCode; status == http.StatusTooManyRequests || status >= 500 {
		w.trouble("the vault answers with HTTP status %d%s", status, wait(answer))
	}
	return answer, nil
}

func (w watch) trouble(format string, args ...any) {
	if w.client.Trouble != nil {
		w.client.Trouble(fmt.Sprintf(format, args...))
	}
}

// seen is what the vault's answers told beside what they were asked for.
type seen struct {
	mu       sync.Mutex
	answered bool
	tenant   string        // of Microsoft Entra, that the vault sends to for the sign-in
	dated    bool          // an answer had a date
	ahead    time.Duration // of this machine's clock, against the last date
}

func (s *seen) note(answer *http.Response, tenant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = true
	if tenant != "" {
		s.tenant = tenant
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		s.dated, s.ahead = true, time.Since(date)
	}
}
