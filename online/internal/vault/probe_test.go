// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
	"keyferry/test/faults"
)

// verdicts sums a probe up.
func verdicts(p *vault.Probe) string {
	var lines []string
	for _, c := range p.Checks {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s: %s %s", c.Name, c.Verdict, c.Control)))
	}
	return strings.Join(lines, "\n")
}

func TestProbe(t *testing.T) {
	endpoint := begin(t, t.TempDir())
	client := newClientOf(t, endpoint, endpoint.Transport())
	newKEK(t, client, "kek")
	newKEK(t, client, "gone")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, practice.URL+"/keys/gone?api-version=7.6", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+endpoint.Token())
	if answer, err := endpoint.Transport().Do(request); err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	p := client.Probe(t.Context(), "kek", "gone", "free")
	want := `reach the vault: ok
clock: ok
sign in: ok
right to list keys: ok
key kek: ok
key gone: failed KF-VAULT-KEY-DELETED
key free: ok
HSM: ok
soft delete: ok
right to create and import keys: unknown`
	if got := verdicts(p); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if p.Vault != practice.URL || p.Service != "practice vault" || p.Tenant != "practice" || !slices.Equal(p.Keys, []string{"kek"}) || !strings.Contains(p.RecoveryLevel, "Purgeable") {
		t.Errorf("got %+v", p)
	}
	doc, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(doc), `"clock_ahead":`) || strings.Contains(string(doc), endpoint.Token()) {
		t.Errorf("as JSON: %s, %v", doc, err)
	}
}

// TestProbeTellsWhatIsWrong: each thing that can be wrong before the day is
// told, and nothing is asked after it that it stands in the way of.
func TestProbeTellsWhatIsWrong(t *testing.T) {
	fault := func(name string) faults.Fault {
		i := slices.IndexFunc(faults.All, func(f faults.Fault) bool { return f.Name == name })
		return faults.All[i]
	}
	for _, test := range []struct {
		name  string
		fault faults.Fault
		at    int
		want  string
	}{
		{"network", fault("cut before"), 0, "reach the vault: failed KF-VAULT-UNREACHABLE"},
		{"not a vault", fault("garbage"), 0, "reach the vault: failed KF-VAULT-ANSWER"},
		{"firewall", fault("403 firewall"), 1, "reach the vault: failed KF-VAULT-FIREWALL"},
		{"sign-in", fault("401"), 1, "reach the vault: ok\nclock: unknown\nsign in: failed KF-VAULT-SIGN-IN"},
		{"rights", fault("403"), 1, `reach the vault: ok
clock: unknown
sign in: ok
right to list keys: failed KF-VAULT-RIGHTS
key kek: failed KF-VAULT-RIGHTS
HSM: ok
soft delete: unknown
right to create and import keys: unknown`},
	} {
		t.Run(test.name, func(t *testing.T) {
			endpoint := begin(t, t.TempDir())
			through := &faults.Transport{Next: endpoint.Transport(), Fault: test.fault, At: test.at, On: true}
			p := newClientOf(t, endpoint, through).Probe(faults.AtOnce(t.Context()), "kek")
			got := strings.ReplaceAll(verdicts(p), "clock: ok", "clock: unknown") // the vault's first answer may have had a date
			if got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// dated gives every answer a date.
type dated struct {
	azure
	date time.Time
}

func (d dated) Do(r *http.Request) (*http.Response, error) {
	answer, err := d.azure.Do(r)
	if err == nil {
		answer.Header.Set("Date", d.date.UTC().Format(http.TimeFormat))
	}
	return answer, err
}

func TestProbeClock(t *testing.T) {
	empty := azure(func(*http.Request) (int, string, error) { return 200, `{"value":[]}`, nil })
	for _, test := range []struct {
		off  time.Duration
		want string
	}{{0, "clock: ok"}, {time.Hour, "clock: failed KF-VAULT-SIGN-IN"}, {-time.Hour, "clock: failed KF-VAULT-SIGN-IN"}} {
		client := clientOf(t, dated{empty, time.Now().Add(-test.off)}, token{})
		p := client.Probe(t.Context())
		if !strings.Contains(verdicts(p), test.want) || p.ClockAhead < test.off.Seconds()-60 || p.ClockAhead > test.off.Seconds()+60 {
			t.Errorf("off by %v: %v ahead\n%s", test.off, p.ClockAhead, verdicts(p))
		}
	}
}

// TestManagedHSM: its hosts, its sign-in, its hints.
func TestManagedHSM(t *testing.T) {
	var scopes []string
	hsm := transport(func(r *http.Request) *http.Response {
		answer := respond(r, 401, "")
		if r.Header.Get("Authorization") == "" {
			answer.Header.Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/contoso", resource="https://managedhsm.azure.net"`)
			return answer
		}
		return respond(r, 403, said("Forbidden", "", "not granted by role definitions"))
	})
	client, err := vault.New("https://contoso.managedhsm.azure.net", scoped{&scopes}, hsm)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Key(t.Context(), "kek")
	holds(t, err, control.VaultRights, "not granted")
	if hint := hintOf(err); !strings.Contains(hint, "Managed HSM Crypto User") {
		t.Errorf("hint: %s", hint)
	}
	if !slices.Equal(scopes, []string{"https://managedhsm.azure.net/.default"}) {
		t.Errorf("signed in for %v", scopes)
	}
	p := client.Probe(t.Context())
	if p.Service != "Managed HSM" || p.Cloud != "public" || p.Tenant != "contoso" || !strings.Contains(verdicts(p), "HSM: ok") {
		t.Errorf("got %+v", p)
	}
}

// TestStrangeChallenge: what no vault says is refused, where the SDK would
// panic.
func TestStrangeChallenge(t *testing.T) {
	for _, challenge := range []string{
		`Bearer authorization="x", resource="https://vault.azure.net"`,
		`Bearer authorization="https://login.microsoftonline.com", resource="https://vault.azure.net"`,
		`Bearer authorization="http://login.microsoftonline.com/t", resource="https://vault.azure.net"`,
		`Negotiate`, `Bearer`,
	} {
		answers := transport(func(r *http.Request) *http.Response {
			answer := respond(r, 401, "")
			answer.Header.Set("WWW-Authenticate", challenge)
			return answer
		})
		_, err := clientOf(t, answers, token{}).Key(t.Context(), "kek")
		holds(t, err, control.VaultAnswer, "sign-in")
	}
}

// TestSlow: a try does not last for ever, and neither do the tries.
func TestSlow(t *testing.T) {
	asked := 0
	hangs := transportErr(func(r *http.Request) error {
		asked++
		<-r.Context().Done()
		return r.Context().Err()
	})
	client := clientOf(t, hangs, token{})
	var told []string
	client.Trouble = func(what string) { told = append(told, what) }
	_, err := client.Key(policyTimeout(t.Context(), 5*time.Millisecond), "kek")
	holds(t, err, control.VaultUnreachable, "in time")
	if asked != 4 || len(told) != asked {
		t.Errorf("asked %d times, told %q", asked, told)
	}
}
