// SPDX-License-Identifier: Apache-2.0

// Package entra is test support: Microsoft Entra and a key vault as a program meets
// them from a company's network, behind a proxy that inspects TLS. The proxy has a CA
// of its own, so the real binaries go through it as they are: HTTPS_PROXY and
// SSL_CERT_FILE are all that they are told.
//
// It answers as the services document, and otherwise on demand: see [Azure.Answer].
package entra

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"time"
)

// The tenant, an application of it, and its secret.
const (
	Tenant = "11111111-2222-3333-4444-555555555555"
	Client = "66666666-7777-8888-9999-000000000000"
	Secret = "s3cr3t~of-the_application"

	login = "login.microsoftonline.com"
)

// Azure is the proxy and what lies behind it.
type Azure struct {
	Proxy string // http://127.0.0.1:port
	CA    []byte // the proxy's, in PEM

	// Exchange, where set, is told of each exchange with its number from 1, before it
	// takes effect and after; without an answer the connection is cut.
	Exchange func(n int, what string, after bool) (answer bool)

	mu        sync.Mutex
	listener  net.Listener
	ca, other *authority
	how       string // see Answer
	exchanges []string
	tokens    map[string]string // and the claims that they were asked for with
	keys      map[string][]*version
}

// Start lets it listen.
func Start() (*Azure, error) {
	a := &Azure{tokens: map[string]string{}, keys: map[string][]*version{}}
	var err error
	if a.ca, err = newAuthority("Contoso TLS inspection"); err != nil {
		return nil, err
	}
	if a.other, err = newAuthority("Nobody knows this CA"); err != nil {
		return nil, err
	}
	a.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.certificate.Raw})
	return a, a.listen()
}

func (a *Azure) listen() (err error) {
	if a.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	a.Proxy = "http://" + a.listener.Addr().String()
	go (&http.Server{Handler: http.HandlerFunc(a.connect), ErrorLog: log.New(io.Discard, "", 0)}).Serve(a.listener) // ends with Close
	return nil
}

// Fork is another proxy with the same CA, before a vault with the keys that this one
// has now.
func (a *Azure) Fork() (*Azure, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := &Azure{CA: a.CA, ca: a.ca, other: a.other, tokens: map[string]string{}, keys: maps.Clone(a.keys)}
	return f, f.listen()
}

// Close ends the proxy.
func (a *Azure) Close() error { return a.listener.Close() }

// Environment is what a program needs to be told; the CA is in that file.
func (a *Azure) Environment(ca string) []string {
	return []string{"HTTPS_PROXY=" + a.Proxy, "SSL_CERT_FILE=" + ca, "NO_PROXY="}
}

// Answer says how to answer from now on; nothing is as the services do.
//
//	407             the proxy wants a sign-in
//	untrusted       the certificates are of a CA that nobody knows
//	clock           the certificates are not valid any more
//	login-page      a portal answers in Entra's place
//	AADSTS…         Entra refuses a sign-in with that code
//	cae             the vault wants claims once the sign-in is there
//	invalid-token   the vault does not take a token that it was given
//	policy          no key is made without an expiry and the tag owner
//	block-page      a page of the proxy answers in the vault's place
//
// The rest are of refusals: rights, access-policy, firewall, private-link, perimeter,
// disabled, inactive, throttled.
func (a *Azure) Answer(how string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.how = how
}

// Exchanges are those that were made, such as "GET contoso.vault.azure.net/keys/kek/".
func (a *Azure) Exchanges() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.exchanges...)
}

func (a *Azure) is(how string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.how == how
}

// connect is the proxy: it opens the TLS connection in the host's place.
func (a *Azure) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	if a.is("407") {
		w.Header().Set("Proxy-Authenticate", "Negotiate")
		http.Error(w, "", http.StatusProxyAuthRequired)
		return
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil || host != login && !strings.HasSuffix(host, ".vault.azure.net") && !strings.HasSuffix(host, ".managedhsm.azure.net") {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	plain, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer plain.Close()
	signer, end := a.ca, time.Now().Add(time.Hour)
	if a.is("untrusted") {
		signer = a.other
	} else if a.is("clock") {
		end = time.Now().Add(-time.Hour)
	}
	certificate, err := signer.sign(host, end)
	if err != nil {
		return
	}
	if _, err := io.WriteString(plain, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	conn := tls.Server(plain, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	for in := bufio.NewReader(conn); ; {
		request, err := http.ReadRequest(in)
		if err != nil || !a.exchange(conn, host, request) {
			return
		}
	}
}

// exchange answers one request.
func (a *Azure) exchange(conn net.Conn, host string, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	a.mu.Lock()
	what := r.Method + " " + host + r.URL.Path
	a.exchanges = append(a.exchanges, what)
	n := len(a.exchanges)
	a.mu.Unlock()
	if a.Exchange != nil && !a.Exchange(n, what, false) {
		return false
	}
	w := httptest.NewRecorder()
	if host == login {
		a.entra(w, r, string(body))
	} else {
		a.vault(w, r, host, body)
	}
	if a.Exchange != nil && !a.Exchange(n, what, true) {
		return false
	}
	answer := w.Result()
	answer.ContentLength = int64(w.Body.Len())
	return answer.Write(conn) == nil
}

func reply(w http.ResponseWriter, status int, document any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(document) // into memory
}

func page(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!DOCTYPE html><html><head><title>%s</title></head><body>Ask the help desk.</body></html>", title)
}

// entra is login.microsoftonline.com, for an application that signs in.
func (a *Azure) entra(w http.ResponseWriter, r *http.Request, body string) {
	base := "https://" + login + "/" + Tenant
	form := func(name string) string {
		found := regexp.MustCompile(`(?:^|&)` + name + `=([^&]*)`).FindStringSubmatch(body)
		if found == nil {
			return ""
		}
		text, err := unescape(found[1])
		if err != nil {
			return ""
		}
		return text
	}
	a.mu.Lock()
	how := a.how
	a.mu.Unlock()
	switch {
	case how == "login-page":
		page(w, http.StatusOK, "Guest network: sign in")
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		reply(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration",
			"metadata":                  []any{map[string]any{"preferred_network": login, "preferred_cache": "login.windows.net", "aliases": []string{login, "login.windows.net"}}},
		})
	case how == "AADSTS90002": // from the first question on
		refuse(w, how, descriptions[how])
	case r.URL.Path == "/"+Tenant+"/v2.0/.well-known/openid-configuration":
		reply(w, http.StatusOK, map[string]any{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize",
			"device_authorization_endpoint": base + "/oauth2/v2.0/devicecode", "issuer": base + "/v2.0",
		})
	case strings.HasPrefix(how, "AADSTS"):
		refuse(w, how, descriptions[how])
	case r.URL.Path != "/"+Tenant+"/oauth2/v2.0/token":
		refuse(w, "AADSTS90002", descriptions["AADSTS90002"])
	case form("client_id") != Client:
		refuse(w, "AADSTS700016", descriptions["AADSTS700016"])
	case form("client_secret") != Secret && strings.Count(form("client_assertion"), ".") != 2:
		refuse(w, "AADSTS7000215", descriptions["AADSTS7000215"])
	case !strings.Contains(form("scope"), "azure.net/.default"):
		refuse(w, "AADSTS70011", "The provided value for the input parameter 'scope' is not valid.")
	default:
		token := "eyJ0eXAiOiJKV1QifQ." + random() + "." + random()
		a.mu.Lock()
		a.tokens[token] = form("claims")
		a.mu.Unlock()
		reply(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token})
	}
}

// descriptions are Entra's, shortened.
var descriptions = map[string]string{
	"AADSTS50076":   "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access 'cfa8b339-82a2-471a-a3c9-0fc0be7a4093'.",
	"AADSTS50079":   "Due to a configuration change made by your administrator, or because you moved to a new location, you must enroll in multi-factor authentication to access 'cfa8b339-82a2-471a-a3c9-0fc0be7a4093'.",
	"AADSTS53003":   "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
	"AADSTS700016":  "Application with identifier '" + Client + "' was not found in the directory 'Contoso'. This can happen if the application has not been installed by the administrator of the tenant.",
	"AADSTS7000215": "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '" + Client + "'.",
	"AADSTS7000222": "The provided client secret keys for app '" + Client + "' are expired. Visit the Azure portal to create new keys for your app.",
	"AADSTS90002":   "Tenant '" + Tenant + "' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.",
}

func refuse(w http.ResponseWriter, code, description string) {
	const ids = " Trace ID: 4e6d1b0e-0000-4000-8000-3f1d5f2b1f00 Correlation ID: 5fd5b4a6-0b1d-4f6d-9a2c-1c1f2b0d5a11 Timestamp: 2026-01-02 03:04:05Z"
	reply(w, http.StatusUnauthorized, map[string]any{
		"error": "invalid_client", "error_description": code + ": " + description + ids, "error_codes": []json.Number{json.Number(strings.TrimPrefix(code, "AADSTS"))},
		"correlation_id": "5fd5b4a6-0b1d-4f6d-9a2c-1c1f2b0d5a11",
	})
}

// claims are what the vault wants of a sign-in with cae.
const claims = `{"access_token":{"nbf":{"essential":true,"value":"1702682181"}}}`

// signedIn checks a request's token, and asks for one or for a better one.
func (a *Azure) signedIn(w http.ResponseWriter, r *http.Request, host string) bool {
	_, domain, _ := strings.Cut(host, ".")
	challenge := fmt.Sprintf(`Bearer authorization="https://%s/%s", resource="https://%s"`, login, Tenant, domain)
	token, signed := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a.mu.Lock()
	got, known := a.tokens[token]
	a.mu.Unlock()
	switch {
	case signed && a.is("invalid-token"):
		challenge += `, error="invalid_token", error_description="The access token expired or is invalid"`
	case known && a.is("cae") && !strings.Contains(got, "1702682181"):
		challenge = fmt.Sprintf(`Bearer realm="", authorization_uri="https://%s/common/oauth2/authorize", error="insufficient_claims", claims="%s"`, login, base64.StdEncoding.EncodeToString([]byte(claims)))
	case known:
		return true
	}
	w.Header().Set("WWW-Authenticate", challenge)
	fail(w, http.StatusUnauthorized, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")
	return false
}

func random() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// authority is a CA.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{key, certificate}, err
}

func (a *authority) sign(host string, end time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	return &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key}, err
}
