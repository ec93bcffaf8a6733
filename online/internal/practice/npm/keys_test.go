// SPDX-License-Identifier: Apache-2.0

package npm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"keyferry/online/internal/blob"
	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/byok"
	"keyferry/test/vectors"
)

// client is the npm client of a practice vault that `online practice serve`
// serves.
type client struct {
	*testing.T
	vault served
	env   []string
}

// served is what the command says of the vault.
type served struct {
	Address, Token, Certificate string
}

// key is what the npm client saw of a key.
type key struct {
	KID, Kty, Platform, Recovery string
	Ops                          []string
	N, E                         []byte
	Expires                      time.Time
	Tags                         map[string]string
}

func (k key) public() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(new(big.Int).SetBytes(k.E).Int64())}
}

type failure struct {
	Status        int
	Code, Message string
}

func newClient(t *testing.T) *client {
	t.Helper()
	install(t)
	c := &client{T: t}
	dir := t.TempDir()
	state, certificate := filepath.Join(dir, "T"), filepath.Join(dir, "practice.pem")
	if out, err := exec.CommandContext(t.Context(), "online", "init", "--rehearsal", "--state", state).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("online", "practice", "serve", "--json", "--state", state, "--certificate-file", certificate)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
			t.Error(err)
		}
	})
	if err := json.NewDecoder(out).Decode(&c.vault); err != nil {
		t.Fatal(err)
	}
	c.env = []string{"NODE_EXTRA_CA_CERTS=" + certificate}
	return c
}

// Do sends a request of our own client, which names the vault's fixed host, to
// its address.
func (s served) Do(r *http.Request) (*http.Response, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.Certificate))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(s.Address, "https://"))
	}
	transport.DisableKeepAlives = true
	return transport.RoundTrip(r)
}

// GetToken signs our own client in.
func (s served) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: s.Token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// ask makes one call of the npm client. It returns what the vault refused with.
func (c *client) ask(call string, args map[string]any, result any) failure {
	c.Helper()
	request, err := json.Marshal(map[string]any{
		"url":   strings.Replace(c.vault.Address, "127.0.0.1", "localhost", 1),
		"token": c.vault.Token, "call": call, "args": args,
	})
	if err != nil {
		c.Fatal(err)
	}
	var answer struct {
		failure
		Result json.RawMessage
	}
	node(c.T, "keys.mjs", c.env, request, &answer)
	if answer.Status == 0 {
		if err := json.Unmarshal(answer.Result, result); err != nil {
			c.Fatalf("%s: %v: %s", call, err, answer.Result)
		}
	}
	return answer.failure
}

// must is ask for what the vault accepts.
func (c *client) must(call string, args map[string]any, result any) {
	c.Helper()
	if refused := c.ask(call, args, result); refused.Status != 0 {
		c.Fatalf("%s: %+v", call, refused)
	}
}

func (c *client) refused(call string, args map[string]any, status int, code, part string) {
	c.Helper()
	var result any
	if got := c.ask(call, args, &result); got.Status != status || got.Code != code || !strings.Contains(got.Message, part) {
		c.Errorf("%s: got %+v (%v), want %d %s with %q", call, got, result, status, code, part)
	}
}

// TestKeyVaultClient: Microsoft's client for JavaScript makes a KEK, imports a
// blob of ours, reads the key back; ours finds all that in its place.
func TestKeyVaultClient(t *testing.T) {
	c := newClient(t)
	var kek, done, again key
	expires := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	c.must("create", map[string]any{"name": "kek", "bits": 3072, "expires": expires}, &kek)
	if kek.public().N.BitLen() != 3072 || kek.Kty != "RSA-HSM" || !slices.Equal(kek.Ops, []string{"import"}) || !kek.Expires.Equal(expires) {
		t.Errorf("the KEK: %+v", kek)
	}

	tenant := vectors.OneTPD(t, "contoso-mode2").Key
	ciphertext, err := byok.Wrap(rand.Reader, tenant, kek.public())
	if err != nil {
		t.Fatal(err)
	}
	file, err := blob.Marshal(kek.KID, ciphertext, "test")
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]any{"name": "tenant", "blob": file, "ops": []string{"sign", "decrypt"}, "tags": map[string]string{"a": "b"}}
	c.must("import", in, &done)
	c.must("get", map[string]any{"name": "tenant"}, &again)
	for what, k := range map[string]key{"imported": done, "read back": again} {
		if !k.public().Equal(&tenant.PublicKey) || k.Kty != "RSA-HSM" || k.Platform != "practice" || k.Tags["a"] != "b" || k.KID != done.KID {
			t.Errorf("%s: %+v", what, k)
		}
	}
	version := done.KID[strings.LastIndex(done.KID, "/")+1:]
	c.must("get", map[string]any{"name": "tenant", "version": version}, &again)
	var ids []string
	if c.must("versions", map[string]any{"name": "tenant"}, &ids); !slices.Equal(ids, []string{done.KID}) {
		t.Errorf("versions: %v", ids)
	}
	if c.must("list", nil, &ids); !slices.Equal(ids, []string{practice.URL + "/keys/kek", practice.URL + "/keys/tenant"}) {
		t.Errorf("keys: %v", ids)
	}
	c.refused("attestation", map[string]any{"name": "kek"}, 404, "KeyNotFound", "attest")

	c.refusesAltered(in, file)
	c.seenByOurs(kek, done)
}

// refusesAltered: a blob that was altered in a field is refused for that field.
func (c *client) refusesAltered(in map[string]any, blob []byte) {
	c.Helper()
	for _, test := range []struct{ from, to, reason string }{
		{`"1.0.0"`, `"2.0.0"`, "schema_version"},
		{"/keys/kek/", "/keys/key/", "kid: this vault has no key"},
		{`"dir"`, `"none"`, "alg"},
		{`"CKM_RSA_AES_KEY_WRAP"`, `"CKM_AES_KEY_WRAP"`, "enc"},
		{`"ciphertext": "`, `"ciphertext": "AAAA`, "OAEP"},
		{`"generator"`, `"generated_by"`, "generated_by"},
		{`}`, ``, "transfer blob"},
	} {
		altered := bytes.Replace(blob, []byte(test.from), []byte(test.to), 1)
		if bytes.Equal(altered, blob) {
			c.Fatalf("nothing to alter: %s", test.from)
		}
		in["name"], in["blob"] = "altered", altered
		c.refused("import", in, 400, "BadParameter", test.reason)
	}
	var free key
	c.refused("get", map[string]any{"name": "altered"}, 404, "KeyNotFound", "altered")
	in["name"], in["blob"] = "tenant-2", bytes.Replace(blob, []byte(`"generator": "`), []byte(`"generator": "not `), 1)
	c.must("import", in, &free) // free text
}

// seenByOurs: our client finds what the npm client put there.
func (c *client) seenByOurs(kek, tenant key) {
	c.Helper()
	ours, err := vault.New(practice.URL, c.vault, c.vault)
	if err != nil {
		c.Fatal(err)
	}
	if k, err := ours.FetchKEK(c.Context(), "kek", ""); err != nil || k.KID != kek.KID || !k.Expires.Equal(kek.Expires) {
		c.Errorf("our client fetches the KEK as %+v, %v", k, err)
	}
	if k, err := ours.Key(c.Context(), "tenant"); err != nil || k.KID != tenant.KID || !k.Public.Equal(tenant.public()) {
		c.Errorf("our client reads the key as %+v, %v", k, err)
	}
}

// TestSoftDeleteByTheClient: its pollers take the practice vault's soft delete
// for Azure's.
func TestSoftDeleteByTheClient(t *testing.T) {
	c := newClient(t)
	var kek key
	create := map[string]any{"name": "kek", "bits": 2048, "expires": time.Now().Add(time.Hour)}
	c.must("create", create, &kek)
	var id string
	if c.must("remove", map[string]any{"name": "kek"}, &id); id != practice.URL+"/deletedkeys/kek" {
		t.Errorf("recovery id: %q", id)
	}
	c.refused("create", create, 409, "Conflict", "deleted but recoverable")
	c.refused("get", map[string]any{"name": "kek"}, 404, "KeyNotFound", "kek")
	c.must("recover", map[string]any{"name": "kek"}, &id)
	var again key
	if c.must("get", map[string]any{"name": "kek"}, &again); again.KID != kek.KID || id != kek.KID {
		t.Errorf("recovered as %s and %s, want %s", again.KID, id, kek.KID)
	}
}
