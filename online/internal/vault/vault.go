// SPDX-License-Identifier: Apache-2.0

// Package vault is the connected side's key vault: Azure Key Vault or Managed
// HSM through Microsoft's azkeys client, with the checks that client leaves to
// its caller.
//
// Three things happen there: a key exchange key (KEK) is made or fetched, a
// transfer blob is imported under it, and what the vault says of the imported
// key is compared with the key that travelled. That comparison is the only
// end-to-end check the service gives.
//
// Azure answers a create or an import for a name that is taken with a new
// version of that key. This package never asks for that: each name gets one
// key, and a name that is taken is refused (KF-VAULT-KEY-EXISTS) unless it
// holds what this very ceremony put there.
//
// Sources: "Bring your own key specification" of Azure Key Vault; its REST
// reference; azkeys v1.5.0.
package vault

import (
	"context"
	"crypto/rsa"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/pkg/control"
)

// Client talks to one vault.
type Client struct {
	address
	keys    *azkeys.Client
	changes policy.RetryOptions
	seen    *seen

	// Trouble, where set, is told of each try that got no good answer: whether
	// it is made again, the call's outcome shows.
	Trouble func(what string)
}

// Each call is tried a few times, each time for a limited time. A request that
// changes the vault may take the HSM longer, and is repeated only when the
// vault said that it did not take it (429): after a lost answer nobody knows
// whether the key was made, and a repetition would make a second version.
var (
	readTries   = policy.RetryOptions{MaxRetries: 3, TryTimeout: 30 * time.Second, MaxRetryDelay: time.Minute}
	changeTries = policy.RetryOptions{MaxRetries: 3, TryTimeout: 3 * time.Minute, MaxRetryDelay: time.Minute, ShouldRetry: notTaken}
)

func notTaken(answer *http.Response, err error) bool {
	return err == nil && answer.StatusCode == http.StatusTooManyRequests
}

// change is the context of a request that changes the vault.
func (c *Client) change(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, c.changes)
}

// New returns a client of the vault at vaultURL. The transport is nil for the
// network, or the practice vault's. Nothing is sent yet.
func New(vaultURL string, cred azcore.TokenCredential, transport policy.Transporter) (*Client, error) {
	return newClient(vaultURL, cred, transport, readTries, changeTries)
}

func newClient(vaultURL string, cred azcore.TokenCredential, transport policy.Transporter, reads, changes policy.RetryOptions) (*Client, error) {
	where, err := parseURL(vaultURL)
	if err != nil {
		return nil, err
	}
	c := &Client{address: where, changes: changes, seen: new(seen)}
	options := &azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport:        transport,
		Retry:            reads,
		PerRetryPolicies: []policy.Policy{watch{c}},
		Telemetry:        policy.TelemetryOptions{ApplicationID: "keyferry"},
	}}
	if c.keys, err = azkeys.NewClient(where.url, signIn{cred}, options); err != nil {
		return nil, control.VaultURL.Refuse("no client for the vault %s: %w", control.Quote(where.url), err)
	}
	return c, nil
}

// URL is the vault's, as [CleanURL] writes it.
func (c *Client) URL() string { return c.url }

// Key is a version of an RSA key as the vault describes it. Its identifier is
// of this vault and of the name that was asked for.
type Key struct {
	KID         string // https://host/keys/NAME/VERSION
	Name        string
	Version     string
	Type        string // kty, such as RSA-HSM
	Public      *rsa.PublicKey
	Ops         []string
	Enabled     bool
	NotBefore   time.Time // zero: no limit
	Expires     time.Time // zero: no limit
	HSMPlatform string    // "0" is software; empty where the vault does not say
	Tags        map[string]string
}

// Key looks up the current version of a key. A name that the vault does not
// have is KF-VAULT-KEY-MISSING.
func (c *Client) Key(ctx context.Context, name string) (*Key, error) {
	return c.get(ctx, name, "")
}

func (c *Client) get(ctx context.Context, name, version string) (*Key, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if version != "" && !keyVersion.MatchString(version) {
		return nil, control.VaultKeyName.Refuse("%s is not the version of a key", control.Quote(version))
	}
	answer, err := c.keys.GetKey(ctx, name, version, nil)
	if err != nil {
		return nil, c.explain(ctx, "reading the key "+name+" from the vault", name, err)
	}
	key, err := c.read(name, answer.KeyBundle)
	if err == nil && version != "" && key.Version != version {
		return nil, control.VaultAnswer.Refuse("asked for version %s of the key %s, the vault answered with version %s", version, name, key.Version)
	}
	return key, err
}

func checkName(name string) error {
	if !keyName.MatchString(name) {
		return control.VaultKeyName.Refuse("%s cannot name a key in a vault", control.Quote(name))
	}
	return nil
}

// read checks that an answer of the vault describes an RSA key of that name
// and returns it.
func (c *Client) read(name string, bundle azkeys.KeyBundle) (*Key, error) {
	jwk, attributes := bundle.Key, bundle.Attributes
	if jwk == nil || jwk.KID == nil || jwk.Kty == nil || attributes == nil || attributes.Enabled == nil {
		return nil, control.VaultAnswer.Refuse("the vault's description of the key %s lacks its identifier, its type or its attributes", name)
	}
	kid := string(*jwk.KID)
	version, err := c.version(name, kid)
	if err != nil {
		return nil, err
	}
	public, err := publicKey(name, jwk)
	if err != nil {
		return nil, err
	}
	return &Key{
		KID: kid, Name: name, Version: version,
		Type: string(*jwk.Kty), Public: public, Ops: texts(jwk.KeyOps),
		Enabled: *attributes.Enabled, NotBefore: value(attributes.NotBefore), Expires: value(attributes.Expires),
		HSMPlatform: value(attributes.HSMPlatform), Tags: tagTexts(bundle.Tags),
	}, nil
}

// version returns the version in kid, which must be an identifier of the key
// in this vault.
func (c *Client) version(name, kid string) (string, error) {
	want := c.url + "/keys/" + name + "/"
	if startsWith(kid, want) && keyVersion.MatchString(kid[len(want):]) {
		return kid[len(want):], nil
	}
	return "", control.VaultAnswer.Refuse("the vault answers for the key %s with the identifier %s, not one of %s with a version", name, control.Quote(kid), want)
}

// startsWith compares as Azure compares names: without regard to case.
func startsWith(id, prefix string) bool {
	return len(id) >= len(prefix) && strings.EqualFold(id[:len(prefix)], prefix)
}

func publicKey(name string, jwk *azkeys.JSONWebKey) (*rsa.PublicKey, error) {
	n, e := new(big.Int).SetBytes(jwk.N), new(big.Int).SetBytes(jwk.E)
	if n.Bit(0) == 0 || !e.IsInt64() || e.Int64() != 65537 {
		return nil, control.VaultAnswer.Refuse("the vault's key %s (%s) is not an RSA key with the exponent 65537", name, control.Quote(string(*jwk.Kty)))
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// value returns what p points to, or the zero value for what the vault left
// out.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func texts[T ~string](in []*T) []string {
	var out []string
	for _, p := range in {
		out = append(out, string(value(p)))
	}
	return out
}

func tagTexts(in map[string]*string) map[string]string {
	out := map[string]string{}
	for name, p := range in {
		out[name] = value(p)
	}
	return out
}

// pointersOf is tagTexts' inverse.
func pointersOf(in map[string]string) map[string]*string {
	out := map[string]*string{}
	for name, text := range in {
		out[name] = &text
	}
	return out
}

// pointers is texts' inverse: the SDK takes every list by pointers.
func pointers[T ~string](in []string) []*T {
	var out []*T
	for _, s := range in {
		v := T(s)
		out = append(out, &v)
	}
	return out
}
