// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/online/internal/blob"
	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

// What the practice vault never answers: Azure's refusals, a vault that lies,
// a network that fails.

const contoso = "https://contoso.vault.azure.net"

// azure answers each signed-in request by a function, the others by a
// challenge.
type azure func(r *http.Request) (status int, body string, err error)

func (a azure) Do(r *http.Request) (*http.Response, error) {
	answer := &http.Response{StatusCode: 401, Header: http.Header{}, Request: r, Body: http.NoBody}
	if r.Header.Get("Authorization") == "" {
		answer.Header.Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"`)
		return answer, nil
	}
	status, body, err := a(r)
	if err != nil {
		return nil, err
	}
	answer.StatusCode, answer.Status = status, http.StatusText(status)
	answer.Body = io.NopCloser(strings.NewReader(body))
	return answer, nil
}

type token struct{ err error }

func (c token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, c.err
}

func clientOf(t *testing.T, transport policy.Transporter, cred azcore.TokenCredential) *vault.Client {
	t.Helper()
	client, err := vault.New(contoso, cred, transport)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// atOnce turns off the SDK's waits between tries of a read.
func atOnce(t *testing.T) context.Context {
	return policy.WithRetryOptions(t.Context(), policy.RetryOptions{MaxRetries: -1})
}

func said(code, inner, message string) string {
	text, err := json.Marshal(map[string]any{"error": map[string]any{
		"code": code, "message": message, "innererror": map[string]any{"code": inner},
	}})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestAzureRefuses(t *testing.T) {
	lost := &url.Error{Op: "Get", URL: contoso, Err: errors.New("dial tcp: no such host")}
	for _, test := range []struct {
		name    string
		status  int
		body    string
		err     error
		control control.Control
		part    string
	}{
		{"401", 401, said("Unauthorized", "", "AKV10022: Invalid audience."), nil, control.VaultSignIn, "AKV10022"},
		{"403 rights", 403, said("Forbidden", "ForbiddenByRbac", "Caller is not authorized"), nil, control.VaultRights, "Caller is not authorized"},
		{"403 access policy", 403, said("Forbidden", "ForbiddenByPolicy", "no keys create permission"), nil, control.VaultRights, "no keys create"},
		{"403 firewall", 403, said("Forbidden", "ForbiddenByFirewall", "Client address is not authorized"), nil, control.VaultFirewall, "Client address"},
		{"403 private link", 403, said("Forbidden", "ForbiddenByConnection", "Public network access is disabled"), nil, control.VaultFirewall, "private endpoint alone"},
		{"404", 404, said("KeyNotFound", "", "A key was not found"), nil, control.VaultKeyMissing, "not found"},
		{"409", 409, said("Conflict", "ObjectIsDeletedButRecoverable", "Key is currently in a deleted but recoverable state"), nil, control.VaultKeyDeleted, "recoverable"},
		{"409, being recovered", 409, said("Conflict", "ObjectIsBeingRecovered", "The key is currently being recovered"), nil, control.VaultConflict, "under way"},
		{"409, at once", 409, said("Conflict", "", "There was a conflict"), nil, control.VaultConflict, "There was a conflict"},
		{"400, Standard vault", 400, said("BadParameter", "", "Hardware key operation not allowed on standard vault"), nil, control.VaultSKU, "contoso is a Standard vault"},
		{"403, Standard vault", 403, said("Forbidden", "", "Hardware key operation not allowed on standard vault"), nil, control.VaultSKU, "contoso is a Standard vault"},
		{"408", 408, "", nil, control.VaultUnreachable, "408"},
		{"slow", 0, "", &url.Error{Op: "Get", URL: contoso, Err: context.DeadlineExceeded}, control.VaultUnreachable, "in time"},
		{"429", 429, said("Throttled", "", "Request was not processed"), nil, control.VaultThrottled, "not processed"},
		{"500", 500, said("InternalServerError", "", "oops"), nil, control.VaultUnreachable, "oops"},
		{"503, no body", 503, "", nil, control.VaultUnreachable, "no reason given"},
		{"400", 400, said("BadParameter", "", "HSM keys need a \x1b[31mPremium vault"), nil, control.VaultRequest, `\x1b[31mPremium`},
		{"400, HTML", 400, "<html>", nil, control.VaultAnswer, "no JSON of the service"},
		{"403, block page", 403, "<html><title>Access &amp; more</title>", nil, control.VaultAnswer, `the title "Access & more"`},
		{"404, another's JSON", 404, `{"message":"no"}`, nil, control.VaultAnswer, "what answers is not the vault"},
		{"407", 407, "<html>", nil, control.VaultUnreachable, "the proxy wants a sign-in"},
		{"403, perimeter", 403, said("Forbidden", "ForbiddenByNsp", "Request was not allowed by NSP rules"), nil, control.VaultFirewall, "perimeter"},
		{"403, Azure Policy", 403, said("Forbidden", "", "Key 'kek' was disallowed by policy. Policy identifiers: []"), nil, control.VaultRequest, "a policy of Azure"},
		{"403, disabled", 403, said("Forbidden", "KeyDisabled", "Operation get is not allowed on a disabled key."), nil, control.VaultKeyState, "is disabled"},
		{"403, long", 403, said("Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid=1;oid=2\r\nAction: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '/subscriptions/3/vaults/contoso/keys/kek'\r\n"), nil, control.VaultRights, "Resource: '/subscriptions/3/vaults/contoso/keys/kek'"},
		{"clock", 0, "", &url.Error{Op: "Get", URL: contoso, Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2040 is after 2030"}}, control.VaultUnreachable, "the clock may be wrong"},
		{"TLS inspected", 0, "", &url.Error{Op: "Get", URL: contoso, Err: x509.UnknownAuthorityError{}}, control.VaultUnreachable, "nobody here trusts the certificate"},
		{"network", 0, "", lost, control.VaultUnreachable, "no such host"},
		{"not JSON", 200, "<html>", nil, control.VaultAnswer, "no sense"},
		{"empty JSON", 200, "{}", nil, control.VaultAnswer, "lacks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := clientOf(t, azure(func(*http.Request) (int, string, error) { return test.status, test.body, test.err }), token{})
			_, err := client.Key(atOnce(t), "kek")
			holds(t, err, test.control, test.part)
		})
	}
}

func TestSignInFails(t *testing.T) {
	client := clientOf(t, azure(func(*http.Request) (int, string, error) { return 200, "{}", nil }), token{errors.New("no account")})
	_, err := client.Key(t.Context(), "kek")
	holds(t, err, control.VaultSignIn, "no account")
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := clientOf(t, azure(func(*http.Request) (int, string, error) {
		cancel()
		return 0, "", context.Canceled
	}), token{})
	_, err := client.Key(ctx, "kek")
	holds(t, err, control.VaultUnreachable, "interrupted")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// TestForeignChallenge: the SDK's own check that a challenge is the vault's is
// on, so no token goes to another's.
func TestForeignChallenge(t *testing.T) {
	signedIn := false
	client, err := vault.New("https://contoso.vault.azure.cn", token{}, azure(func(*http.Request) (int, string, error) {
		signedIn = true
		return 200, "{}", nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Key(t.Context(), "kek")
	holds(t, err, control.VaultAnswer, "challenge resource")
	if signedIn {
		t.Error("a token was sent")
	}
}

// description is a vault's answer about a key, to be bent by a test.
type description map[string]any

func describe(t *testing.T, ops ...string) description {
	key := vectors.OneTPD(t, "contoso-mode2").Key
	b64 := base64.RawURLEncoding.EncodeToString
	return description{
		"kid": contoso + "/keys/kek/0123456789abcdef0123456789abcdef", "kty": "RSA-HSM", "key_ops": ops,
		"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
		"attributes": map[string]any{"enabled": true, "hsmPlatform": "2"},
	}
}

func (d description) answer(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"key": d, "attributes": d["attributes"]})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKEKChecks(t *testing.T) {
	short := vectors.OneTPD(t, "contoso-mode1").Key
	for _, test := range []struct {
		name    string
		bend    func(d description)
		control control.Control // none: it passes
		part    string
	}{
		{"good", func(d description) {}, control.Control{}, ""},
		{"names know no case", func(d description) { d["kid"] = "https://Contoso.vault.azure.net/keys/KEK/0a" }, control.Control{}, ""},
		{"software", func(d description) { d["kty"] = "RSA" }, control.VaultKEKType, "RSA"},
		{"software platform", func(d description) { d["attributes"] = map[string]any{"enabled": true, "hsmPlatform": "0"} }, control.VaultKEKType, "software"},
		{"two operations", func(d description) { d["key_ops"] = []string{"import", "decrypt"} }, control.VaultKEKOps, "decrypt"},
		{"no operation", func(d description) { d["key_ops"] = nil }, control.VaultKEKOps, "import"},
		{"size", func(d description) { d["n"] = base64.RawURLEncoding.EncodeToString(short.N.Bytes()) }, control.VaultKEKSize, "1024"},
		{"disabled", func(d description) { d["attributes"] = map[string]any{"enabled": false} }, control.VaultKEKValidity, "disabled"},
		{"expired", func(d description) { d["attributes"] = map[string]any{"enabled": true, "exp": 1} }, control.VaultKEKValidity, "1970-01-01"},
		{"not valid yet", func(d description) { d["attributes"] = map[string]any{"enabled": true, "nbf": 1 << 40} }, control.VaultKEKValidity, "before"},
		{"exponent", func(d description) { d["e"] = "Aw" }, control.VaultAnswer, "65537"},
		{"no modulus", func(d description) { delete(d, "n") }, control.VaultAnswer, "65537"},
		{"another vault's", func(d description) { d["kid"] = "https://evil.vault.azure.net/keys/kek/0a" }, control.VaultAnswer, "evil"},
		{"another name", func(d description) { d["kid"] = contoso + "/keys/other/0a" }, control.VaultAnswer, "other"},
		{"no version", func(d description) { d["kid"] = contoso + "/keys/kek/" }, control.VaultAnswer, "version"},
		{"no identifier", func(d description) { delete(d, "kid") }, control.VaultAnswer, "lacks"},
		{"no attributes", func(d description) { delete(d, "attributes") }, control.VaultAnswer, "lacks"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := describe(t, "import")
			test.bend(d)
			client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
				if strings.HasSuffix(r.URL.Path, "/attestation") {
					return 404, said("KeyNotFound", "", "no such key"), nil
				}
				return 200, d.answer(t), nil
			}), token{})
			_, err := client.FetchKEK(t.Context(), "kek", "")
			if test.control.ID == "" && err == nil {
				return
			}
			holds(t, err, test.control, test.part)
		})
	}
}

func TestKEKVersionAnswered(t *testing.T) {
	client := clientOf(t, azure(func(*http.Request) (int, string, error) { return 200, describe(t, "import").answer(t), nil }), token{})
	_, err := client.FetchKEK(t.Context(), "kek", "fedcba98765432100123456789abcdef")
	holds(t, err, control.VaultAnswer, "answered with version")
}

func TestKEKAttestation(t *testing.T) {
	for _, test := range []struct {
		name    string
		status  int
		given   any
		want    string
		control control.Control
	}{
		{"given", 200, map[string]any{"version": "1.0", "publicKeyAttestation": "AQID"}, `{"publicKeyAttestation":"AQID","version":"1.0"}`, control.Control{}},
		{"left out", 200, nil, "", control.Control{}},
		{"none", 404, nil, "", control.Control{}},
		{"not known", 400, nil, "", control.Control{}},
		{"too many requests", 429, nil, "", control.VaultThrottled},
		{"out of order", 500, nil, "", control.VaultUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
				d := describe(t, "import")
				if strings.HasSuffix(r.URL.Path, "/attestation") {
					d["attributes"] = map[string]any{"enabled": true, "attestation": test.given}
					return test.status, d.answer(t), nil
				}
				return 200, d.answer(t), nil
			}), token{})
			kek, err := client.FetchKEK(atOnce(t), "kek", "")
			if test.control.ID != "" {
				holds(t, err, test.control, "attestation")
			} else if err != nil || string(kek.Attestation) != test.want {
				t.Errorf("got %v, %v; want %s", kek, err, test.want)
			}
		})
	}
}

// TestImportedKeyIsCompared: a vault that keeps something else than what
// travelled is found out.
func TestImportedKeyIsCompared(t *testing.T) {
	key, other := vectors.OneTPD(t, "contoso-mode2").Key, vectors.OneTPD(t, "contoso-anyone").Key
	file, err := blob.Marshal(contoso+"/keys/kek/0a", []byte("sealed"), "test")
	if err != nil {
		t.Fatal(err)
	}
	in := vault.Import{Name: "kek", Blob: file, Want: &key.PublicKey, Tags: map[string]string{"a": "b"}}
	six := []string{"wrapKey", "unwrapKey", "encrypt", "decrypt", "sign", "verify"}
	for _, test := range []struct {
		name    string
		bend    func(d description)
		control control.Control
	}{
		{"good", func(d description) {}, control.Control{}},
		{"modulus", func(d description) { d["n"] = base64.RawURLEncoding.EncodeToString(other.N.Bytes()) }, control.VaultKeyMismatch},
		{"exponent", func(d description) { d["e"] = "Aw" }, control.VaultAnswer},
		{"type", func(d description) { d["kty"] = "RSA" }, control.VaultNotHSM},
		{"platform", func(d description) { d["attributes"] = map[string]any{"enabled": true, "hsmPlatform": "0"} }, control.VaultNotHSM},
		{"operations", func(d description) { d["key_ops"] = []string{"sign"} }, control.VaultKeyState},
		{"disabled", func(d description) { d["attributes"] = map[string]any{"enabled": false} }, control.VaultKeyState},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := describe(t, six...)
			test.bend(d)
			client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
				switch {
				case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/0a"): // the KEK
					kek := describe(t, "import")
					kek["kid"] = contoso + "/keys/kek/0a"
					return 200, kek.answer(t), nil
				case r.Method == http.MethodGet:
					return 404, said("KeyNotFound", "", "no such key"), nil
				}
				return 200, d.answer(t), nil
			}), token{})
			done, err := client.ImportKey(t.Context(), in)
			if test.control.ID == "" {
				if err != nil || done.Resumed {
					t.Errorf("got %+v, %v", done, err)
				}
				return
			}
			holds(t, err, test.control, "")
		})
	}
}

// TestChangesAreAskedForOnce: after an answer that leaves open whether a key
// was made, nothing is sent again; a request that was not taken is.
func TestChangesAreAskedForOnce(t *testing.T) {
	lost := &url.Error{Op: "Post", URL: contoso, Err: errors.New("connection reset")}
	for _, test := range []struct {
		name   string
		first  int
		err    error
		asked  int
		passes bool
	}{
		{"lost answer", 0, lost, 1, false},
		{"500", 500, nil, 1, false},
		{"503", 503, nil, 1, false},
		{"429", 429, nil, 2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := 0
			client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
				if r.Method == http.MethodGet {
					return 404, said("KeyNotFound", "", "no such key"), nil
				}
				if asked++; asked == 1 {
					return test.first, "", test.err
				}
				return 200, describe(t, "import").answer(t), nil
			}), token{})
			_, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek", Bits: 2048})
			if asked != test.asked || (err == nil) != test.passes {
				t.Errorf("asked %d times, want %d: %v", asked, test.asked, err)
			}
		})
	}
}

func TestDeletedKeyHoldsTheName(t *testing.T) {
	client := clientOf(t, azure(func(r *http.Request) (int, string, error) {
		if r.Method == http.MethodGet {
			return 404, said("KeyNotFound", "", "not found"), nil
		}
		return 409, said("Conflict", "ObjectIsDeletedButRecoverable", "in a deleted but recoverable state"), nil
	}), token{})
	_, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek", Bits: 2048})
	holds(t, err, control.VaultKeyDeleted, "recoverable")
}
