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

	"keyferry/pkg/control"
	"keyferry/pkg/vault"
)

// patience is how long the endpoint waits for a client: longer than a 4096-bit
// KEK takes to make.
const patience = 30 * time.Second

// Endpoint is the practice vault, listening on a loopback port.
type Endpoint struct {
	client *http.Client
	server *http.Server
	token  string
	served chan error
}

// Start lets the practice vault listen on a free loopback port, over TLS with
// a certificate made for this run. It fails with KF-RUN-MACHINE.
func (c *Cloud) Start() (*Endpoint, error) {
	certificate, err := newCertificate()
	if err != nil {
		return nil, control.MachineFailed.Refuse("the practice vault has no certificate: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, control.MachineFailed.Refuse("the practice vault cannot listen on this machine: %w", err)
	}
	token := randomHex(32)
	e := &Endpoint{
		client: newClient(certificate.Leaf, listener.Addr().String()),
		server: &http.Server{
			Handler:           &vaultServer{cloud: c, token: token},
			TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13},
			ReadHeaderTimeout: patience,
			ErrorLog:          log.New(io.Discard, "", 0), // a library does not write to stderr
		},
		token:  token,
		served: make(chan error, 1),
	}
	go func() { e.served <- e.server.ServeTLS(listener, "", "") }()
	return e, nil
}

// URL is the vault's address for clients that use [Endpoint.Transport].
func (e *Endpoint) URL() string { return URL }

// Transport reaches this endpoint and nothing else, whatever host a request
// names; it trusts this run's certificate alone, which is for the practice
// vault's host alone.
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
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
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
// host, good for a day.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "Keyferry practice vault"},
		DNSNames:     []string{vault.PracticeHost},
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
