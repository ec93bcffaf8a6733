// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
)

// patience is how long the endpoint waits for a client: longer than a 4096-bit
// KEK takes to make.
const patience = 30 * time.Second

// Endpoint is the practice vault, listening on this machine.
type Endpoint struct {
	client      *http.Client
	server      *http.Server
	address     string // host:port
	certificate *x509.Certificate
	token       string
	served      chan error
}

// Start lets the practice vault listen on a free loopback port, over TLS with
// a certificate made for this run. It fails with KF-RUN-MACHINE.
func (c *Cloud) Start() (*Endpoint, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, control.MachineFailed.Refuse("the practice vault cannot listen on this machine: %w", err)
	}
	return c.Serve(listener)
}

// Serve lets the practice vault answer on a listener, which it closes in the
// end. Other clients than ours reach it at [Endpoint.Address], trust
// [Endpoint.Certificate] and sign in with [Endpoint.Token]; key identifiers name
// [URL] all the same, so that a blob fits whoever made its KEK. Such a client
// has to leave out its check that the challenge is of the host it called:
// that is for the loopback alone, and so is the practice vault (KF-RUN-USAGE).
func (c *Cloud) Serve(listener net.Listener) (*Endpoint, error) {
	if address, ok := listener.Addr().(*net.TCPAddr); !ok || !address.IP.IsLoopback() {
		return nil, errors.Join(control.CommandLine.Refuse("the practice vault answers on this machine alone, not at %s", listener.Addr()).
			WithHint("name a port of 127.0.0.1"), listener.Close())
	}
	certificate, err := newCertificate()
	if err != nil {
		return nil, errors.Join(control.MachineFailed.Refuse("the practice vault has no certificate: %w", err), listener.Close())
	}
	token, address := randomHex(32), listener.Addr().String()
	e := &Endpoint{
		client: newClient(certificate.Leaf, address),
		server: &http.Server{
			Handler:           &vaultServer{cloud: c, token: token},
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
			ReadHeaderTimeout: patience,
			ErrorLog:          log.New(io.Discard, "", 0), // a library does not write to stderr
		},
		address:     address,
		certificate: certificate.Leaf,
		token:       token,
		served:      make(chan error, 1),
	}
	go func() { e.served <- e.server.ServeTLS(listener, "", "") }()
	return e, nil
}

// Address is the vault's address on this machine, for other clients.
func (e *Endpoint) Address() string { return "https://" + e.address }

// Certificate is this run's certificate in PEM, for other clients to trust.
func (e *Endpoint) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.certificate.Raw})
}

// Token is the bearer token that other clients sign in with, in this run.
func (e *Endpoint) Token() string { return e.token }

// URL is the vault's address for clients that use [Endpoint.Transport].
func (e *Endpoint) URL() string { return URL }

// Transport reaches this endpoint and nothing else, whatever host a request
// names; it trusts this run's certificate alone, which is for the practice
// vault and this machine alone.
func (e *Endpoint) Transport() policy.Transporter { return e.client }

// Credential signs in to this endpoint, and to no other vault.
func (e *Endpoint) Credential() azcore.TokenCredential { return credential(e.token) }

// Close ends the endpoint once it has answered what it was asked. An error is
// what stopped it before.
func (e *Endpoint) Close() error {
	e.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := e.server.Shutdown(ctx)
	if served := <-e.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(served, err)
	}
	return err
}

type credential string

func (c credential) GetToken(_ context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if want := []string{resource + "/.default"}; !slices.Equal(options.Scopes, want) {
		return azcore.AccessToken{}, fmt.Errorf("the practice sign-in is for %v, not for %v", want, options.Scopes)
	}
	token := string(c)
	if options.Claims != "" {
		token += withClaims
	}
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// newClient returns an HTTP client that dials address always.
func newClient(trusted *x509.Certificate, address string) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(trusted)
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address)
			},
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// newCertificate makes a self-signed certificate for the practice vault's
// host, under its fixed name and under this machine's, good for a day.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Keyferry practice vault"},
		DNSNames:     []string{vault.PracticeHost, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
