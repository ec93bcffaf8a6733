// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/state"
)

// signIn says how a command signs in to Azure.
type signIn struct {
	vault.SignIn
	secret   *cli.SecretFlags
	password *cli.SecretFlags // of the certificate
	file     string           // that --azure-secret-file names
}

// signInHelp explains the flags of addSignIn.
const signInHelp = `
Signing in to Azure, in a real ceremony:
  --credential KIND       default, browser, device-code, azure-cli,
                          client-secret, client-certificate, managed-identity
                          or workload-identity
  --cloud NAME            public, china or usgov: must be the vault's
  --azure-tenant ID       where the account belongs, if that is not clear
  --azure-client ID       the application's or managed identity's GUID
  --azure-secret-file F   the application's secret (or --azure-secret-fd N), or
                          its certificate with key: PEM, or PKCS#12 (PFX)
  --azure-certificate-password-file F
                          the password of that PFX (or
                          --azure-certificate-password-fd N)

HTTPS_PROXY names a proxy, NO_PROXY hosts that go past it. The CA of a proxy
that inspects TLS belongs into the system's store; SSL_CERT_FILE names a PEM
file with CAs instead of it (not on Windows).
`

func addSignIn(flags *pflag.FlagSet) *signIn {
	s := &signIn{
		secret:   cli.AddSecretFlags(flags, "azure-secret", "application's secret", false),
		password: cli.AddSecretFlags(flags, "azure-certificate-password", "certificate's password", false),
	}
	file := flags.Lookup("azure-secret-file")
	file.Value = noted{file.Value, &s.file}
	flags.StringVar(&s.Kind, "credential", "", "")
	flags.StringVar(&s.Cloud, "cloud", "", "")
	flags.StringVar(&s.Tenant, "azure-tenant", "", "")
	flags.StringVar(&s.Client, "azure-client", "", "")
	return s
}

// noted notes a flag's value too: a certificate's file is no secret of one line.
type noted struct {
	pflag.Value
	text *string
}

func (n noted) Set(text string) error {
	*n.text = text
	return n.Value.Set(text)
}

// client signs in to Azure's vault.
func (s *signIn) client(ctx context.Context, io *cli.IO, url string) (*vault.Client, error) {
	var err error
	switch {
	case s.Kind == "client-certificate" && s.file != "":
		s.Secret, err = cli.ReadInput(s.file)
	case s.secret.Given():
		s.Secret, err = s.secret.ReadOne(ctx, io)
	}
	if err == nil && s.password.Given() {
		s.Password, err = s.password.ReadOne(ctx, io)
	}
	defer func() { clear(s.Secret); clear(s.Password) }()
	if err != nil {
		return nil, err
	}
	s.Prompt = func(text string) error {
		io.Note("%s", text)
		return nil
	}
	credential, err := s.Credential(url)
	if err != nil {
		return nil, err
	}
	return vault.New(url, credential, nil)
}

// withCloud runs f against the state directory's cloud: the practice cloud,
// served for as long as f runs, where the vault is its, else Azure.
func withCloud(ctx context.Context, io *cli.IO, s *state.State, in *signIn, f func(c ceremony.Cloud) error) error {
	w, _, err := ceremony.OwnWorld(s)
	if err != nil {
		return err
	}
	if w.Vault == practice.URL {
		return withPractice(io, s, w.Vault, f)
	}
	client, err := in.client(ctx, io, w.Vault)
	if err != nil {
		return err
	}
	client.Trouble = func(text string) { io.Note("%s", text) }
	azure, err := vault.CloudOf(w.Vault)
	if err != nil {
		return err
	}
	return f(ceremony.Cloud{Vault: client, Azure: azure})
}

func withPractice(io *cli.IO, s *state.State, url string, f func(c ceremony.Cloud) error) (err error) {
	practiceCloud, err := practice.Open(s.Path("practice"))
	if err != nil {
		return err
	}
	endpoint, err := practiceCloud.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endpoint.Close()) }()
	client, err := vault.New(url, endpoint.Credential(), endpoint.Transport())
	if err != nil {
		return err
	}
	client.Trouble = func(text string) { io.Note("%s", text) }
	return f(ceremony.Cloud{Vault: client, Tenant: practiceCloud.Tenant()})
}
