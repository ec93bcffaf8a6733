// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"keyferry/online/internal/blob"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

// rehearsal is a practice cloud that listens, and Microsoft's client of it.
type rehearsal struct {
	*testing.T
	cloud    *Cloud
	endpoint *Endpoint
	keys     *azkeys.Client
}

func newRehearsal(t *testing.T, dir string) *rehearsal {
	t.Helper()
	cloud, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := cloud.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := endpoint.Close(); err != nil {
			t.Error(err)
		}
	})
	// The SDK's own check of the challenge's resource stays on.
	keys, err := azkeys.NewClient(endpoint.URL(), endpoint.Credential(), &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: endpoint.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &rehearsal{t, cloud, endpoint, keys}
}

func ops(names ...string) []*azkeys.KeyOperation {
	var out []*azkeys.KeyOperation
	for _, name := range names {
		out = append(out, to.Ptr(azkeys.KeyOperation(name)))
	}
	return out
}

// create makes a key in the vault and returns its identifier and public half.
func (r *rehearsal) create(name string, bits int32, attributes *azkeys.KeyAttributes, may ...string) (string, *rsa.PublicKey) {
	r.Helper()
	answer, err := r.keys.CreateKey(r.Context(), name, azkeys.CreateKeyParameters{
		Kty: to.Ptr(azkeys.KeyTypeRSAHSM), KeySize: &bits, KeyOps: ops(may...), KeyAttributes: attributes,
	}, nil)
	if err != nil {
		r.Fatal(err)
	}
	return string(*answer.Key.KID), jwkPublic(answer.Key)
}

func (r *rehearsal) importBlob(name string, file []byte) (azkeys.ImportKeyResponse, error) {
	return r.keys.ImportKey(r.Context(), name, azkeys.ImportKeyParameters{
		Key: &azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeRSAHSM), KeyOps: ops(tenantOps...), T: file},
		HSM: to.Ptr(true),
	}, nil)
}

func jwkPublic(jwk *azkeys.JSONWebKey) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(jwk.N), E: int(new(big.Int).SetBytes(jwk.E).Int64())}
}

func wrapped(t *testing.T, kid string, kek *rsa.PublicKey, key *rsa.PrivateKey) []byte {
	t.Helper()
	ciphertext, err := byok.Wrap(rand.Reader, key, kek)
	if err != nil {
		t.Fatal(err)
	}
	return marshal(t, kid, ciphertext)
}

func marshal(t *testing.T, kid string, ciphertext []byte) []byte {
	t.Helper()
	file, err := blob.Marshal(kid, ciphertext, "test")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// refused fails the test unless err is the REST interface's error with that
// status, code and reason.
func refused(t *testing.T, err error, status int, code, reason string) {
	t.Helper()
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want HTTP status %d", err, status)
	}
	if e.StatusCode != status || e.ErrorCode != code || !strings.Contains(e.Error(), reason) {
		t.Errorf("got %d %s, want %d %s with %q:\n%v", e.StatusCode, e.ErrorCode, status, code, reason, e)
	}
}

func TestKeysTravelAndStay(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "practice")
	r := newRehearsal(t, dir)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is there before the first change: %v", err)
	}
	for _, bits := range []int32{2048, 3072, 4096} {
		kid, kek := r.create("kek", bits, nil, "import")
		if kek.N.BitLen() != int(bits) || !strings.HasPrefix(kid, "https://practice.vault.keyferry.test/keys/kek/") {
			t.Errorf("asked for %d bits: got %d, %s", bits, kek.N.BitLen(), kid)
		}
		key := vectors.OneTPD(t, "contoso-mode2").Key
		answer, err := r.importBlob("tenant", wrapped(t, kid, kek, key))
		if err != nil {
			t.Fatal(err)
		}
		if !jwkPublic(answer.Key).Equal(&key.PublicKey) || *answer.Key.Kty != azkeys.KeyTypeRSAHSM || *answer.Attributes.HSMPlatform != "practice" {
			t.Errorf("the vault answered with another key: %+v", answer.Key)
		}
	}

	again := newRehearsal(t, dir) // another run of the program
	current, err := again.keys.GetKey(t.Context(), "TENANT", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	byVersion, err := again.keys.GetKey(t.Context(), "tenant", current.Key.KID.Version(), nil)
	if err != nil || *byVersion.Key.KID != *current.Key.KID {
		t.Errorf("by version: %v, %v", byVersion.Key, err)
	}
	page, err := again.keys.NewListKeyPropertiesVersionsPager("tenant", nil).NextPage(t.Context())
	if err != nil || len(page.Value) != 3 || *page.Value[2].KID != *current.Key.KID {
		t.Errorf("versions: %v, %v", page.Value, err)
	}
	checkFiles(t, dir)
}

// checkFiles: the KEKs' private halves are there, those of imported keys not;
// nobody else may read them.
func checkFiles(t *testing.T, dir string) {
	t.Helper()
	pems, err := filepath.Glob(filepath.Join(dir, "vault", "*.pem"))
	if err != nil || len(pems) != 3 {
		t.Errorf("private keys on disk: %v, %v", pems, err)
	}
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		if strings.Contains(path, "tenant-") {
			t.Errorf("the private half of an imported key was kept: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestVaultRefusesToCreate(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	for _, test := range []struct{ name, body, reason string }{
		{"type", `{"kty":"RSA","key_ops":["import"]}`, "kty"},
		{"no type", `{}`, "kty"},
		{"size", `{"kty":"RSA-HSM","key_size":1024}`, "key_size is 1024"},
		{"exponent", `{"kty":"RSA-HSM","public_exponent":3}`, "public_exponent"},
		{"import is not alone", `{"kty":"RSA-HSM","key_ops":["import","sign"]}`, "import stands alone"},
		{"unknown operation", `{"kty":"RSA-HSM","key_ops":["print"]}`, "key_ops"},
		{"no operation", `{"kty":"RSA-HSM","key_ops":[]}`, "key_ops"},
		{"exportable", `{"kty":"RSA-HSM","attributes":{"exportable":true}}`, "exportable"},
		{"validity", `{"kty":"RSA-HSM","attributes":{"nbf":2,"exp":1}}`, "nbf"},
		{"unknown field", `{"kty":"RSA-HSM","curve":"P-256"}`, "curve"},
		{"not JSON", `kty=RSA-HSM`, "body"},
		{"no body", ``, "body"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, _, text := r.do(http.MethodPost, "/keys/k/create?api-version=7.4", test.body, true)
			if status != http.StatusBadRequest || !strings.Contains(text, `"BadParameter"`) || !strings.Contains(text, test.reason) {
				t.Errorf("got %d %s, want 400 with %q", status, text, test.reason)
			}
		})
	}
	if entries, err := os.ReadDir(r.cloud.dir); err != nil || len(entries) != 0 {
		t.Errorf("a refusal left something behind: %v, %v", entries, err)
	}
}

// do makes one request by hand and returns status, headers and body.
func (r *rehearsal) do(method, path, body string, signedIn bool) (int, http.Header, string) {
	r.Helper()
	request, err := http.NewRequestWithContext(r.Context(), method, URL+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if signedIn {
		request.Header.Set("Authorization", "Bearer "+r.endpoint.token)
	}
	answer, err := r.endpoint.Transport().Do(request)
	if err != nil {
		r.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.Fatal(err)
	}
	if !json.Valid(text) {
		r.Errorf("%s %s: the answer is not JSON: %s", method, path, text)
	}
	return answer.StatusCode, answer.Header, string(bytes.TrimSpace(text))
}

func TestREST(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	kid, _ := r.create("kek", 2048, nil, "import")
	version := kid[strings.LastIndex(kid, "/")+1:]
	for _, test := range []struct {
		name, method, path, body string
		signedIn                 bool
		status                   int
		want                     string
	}{
		{"signed in", "GET", "/keys/kek?api-version=7.4", "", true, 200, kid},
		{"current version, final slash", "GET", "/keys/kek/?api-version=7.4", "", true, 200, kid},
		{"by version", "GET", "/keys/kek/" + version + "?api-version=7.4", "", true, 200, kid},
		{"by version, final slash", "GET", "/keys/kek/" + version + "/?api-version=7.4", "", true, 200, kid},
		{"encoded name of the query", "GET", "/keys/kek?api%2Dversion=7.4", "", true, 200, kid},
		{"versions", "GET", "/keys/kek/versions?api-version=7.4", "", true, 200, kid},
		{"versions of no key", "GET", "/keys/none/versions?api-version=7.4", "", true, 200, `"value":[]`},
		{"no sign-in", "GET", "/keys/kek?api-version=7.4", "", false, 401, "Unauthorized"},
		{"no sign-in, unknown route", "GET", "/secrets", "", false, 401, "Unauthorized"},
		{"no api-version", "GET", "/keys/kek", "", true, 400, "api-version"},
		{"unknown api-version", "GET", "/keys/kek?api-version=1.0", "", true, 400, "api-version"},
		{"two api-versions", "GET", "/keys/kek?api-version=7.4&api%2Dversion=7.3", "", true, 400, "api-version"},
		{"no such key", "GET", "/keys/none?api-version=7.4", "", true, 404, "KeyNotFound"},
		{"no such version", "GET", "/keys/kek/0?api-version=7.4", "", true, 404, "KeyNotFound"},
		{"attestation", "GET", "/keys/kek/" + version + "/attestation?api-version=7.4", "", true, 404, "attest"},
		{"bad name", "GET", "/keys/a_b?api-version=7.4", "", true, 400, "BadParameter"},
		{"escaped slash in the name", "GET", "/keys/..%2Ftenant?api-version=7.4", "", true, 400, "BadParameter"},
		{"long name", "GET", "/keys/" + strings.Repeat("a", 128) + "?api-version=7.4", "", true, 400, "BadParameter"},
		{"unknown route", "GET", "/secrets/a?api-version=7.4", "", true, 404, "NotFound"},
		{"unknown operation", "POST", "/keys/kek/" + version + "/sign?api-version=7.4", "", true, 404, "NotFound"},
		{"list", "GET", "/keys?api-version=7.4", "", true, 200, "/keys/kek"},
		{"deleted keys", "GET", "/deletedkeys?api-version=7.4", "", true, 404, "NotFound"},
		{"root", "GET", "/?api-version=7.4", "", true, 404, "NotFound"},
		{"method", "PATCH", "/keys/kek?api-version=7.4", "", true, 405, "MethodNotAllowed"},
		{"method of create", "GET", "/keys/kek/create?api-version=7.4", "", true, 405, "MethodNotAllowed"},
		{"large", "PUT", "/keys/k?api-version=7.4", strings.Repeat("x", maxBody+1), true, 413, "RequestEntityTooLarge"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, header, text := r.do(test.method, test.path, test.body, test.signedIn)
			if status != test.status || !strings.Contains(text, test.want) {
				t.Errorf("got %d %s, want %d with %q", status, text, test.status, test.want)
			}
			if challenged := strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer authorization="); challenged != (status == 401) {
				t.Errorf("WWW-Authenticate with status %d: %q", status, header.Get("WWW-Authenticate"))
			}
			if (header.Get("Allow") != "") != (status == 405) {
				t.Errorf("Allow with status %d: %q", status, header.Get("Allow"))
			}
		})
	}
}

// TestSignInIsForThisEndpoint: neither another run's token nor the practice
// token for another service opens anything.
func TestSignInIsForThisEndpoint(t *testing.T) {
	r, other := newRehearsal(t, t.TempDir()), newRehearsal(t, t.TempDir())
	mixed, err := azkeys.NewClient(URL, other.endpoint.Credential(), &azkeys.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: r.endpoint.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = mixed.GetKey(t.Context(), "kek", "", nil)
	refused(t, err, 401, "Unauthorized", "Bearer")

	_, err = r.endpoint.Credential().GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"https://vault.azure.net/.default"}})
	if err == nil || !strings.Contains(err.Error(), "practice") {
		t.Errorf("the practice sign-in is given to Azure: %v", err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://contoso.vault.azure.net/keys/kek", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.endpoint.Transport().Do(request); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the practice transport took a request for another host: %v", err)
	}
}

func TestDamagedStateIsRefused(t *testing.T) {
	good := t.TempDir()
	newRehearsal(t, good).create("kek", 2048, nil, "import")
	record, err := os.ReadFile(filepath.Join(good, "vault", "kek.json"))
	if err != nil {
		t.Fatal(err)
	}
	listed := func(guid, status string) string {
		return `{"format":"` + tenantFormat + `","key":{"key_identifier":"` + guid + `","status":"` + status + `"}}`
	}
	for name, files := range map[string]map[string]string{
		"cut":                {"vault/kek.json": string(record[:len(record)/2])},
		"other name":         {"vault/other.json": string(record)},
		"other format":       {"vault/kek.json": strings.Replace(string(record), "practice-key-v1", "practice-key-v2", 1)},
		"bad key":            {"vault/kek.json": strings.Replace(string(record), `"public_key": "MI`, `"public_key": "AA`, 1)},
		"tenant, format":     {"tenant/a.json": "{}"},
		"tenant, two active": {"tenant/a.json": listed("a", "Active"), "tenant/b.json": listed("b", "Active")},
		"tenant, status":     {"tenant/a.json": listed("a", "active")},
		"tenant, other name": {"tenant/a.json": listed("b", "Archived")},
		"tenant, cut":        {"tenant/a.json": listed("a", "Archived")[:40]},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, part := range []string{"vault", "tenant"} {
				if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Open(dir); !control.Is(err, control.StateDamaged) {
				t.Errorf("got %v, want %s", err, control.StateDamaged.ID)
			}
		})
	}
	if _, err := Open(good); err != nil {
		t.Error(err)
	}
}

// TestDiskFails: what the disk refuses is the service's failure, and no key is
// half there.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	r := newRehearsal(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "vault"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, text := r.do(http.MethodPost, "/keys/kek/create?api-version=7.4", `{"kty":"RSA-HSM","key_ops":["import"]}`, true)
	if status != http.StatusInternalServerError || !strings.Contains(text, "InternalServerError") {
		t.Errorf("got %d %s", status, text)
	}
	if err := os.Remove(filepath.Join(dir, "vault")); err != nil {
		t.Fatal(err)
	}
	r.create("kek", 2048, nil, "import")
}

// TestOrphansAreSwept: a create that was killed before the record left no key,
// and its private half does not stay.
func TestOrphansAreSwept(t *testing.T) {
	dir := t.TempDir()
	r := newRehearsal(t, dir)
	r.create("kek", 2048, nil, "import")
	r.create("other", 2048, nil, "import")
	if err := os.Remove(filepath.Join(dir, "vault", "kek.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "vault", ".kek-00.pem.part"), []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := newRehearsal(t, dir)
	_, err := again.keys.GetKey(t.Context(), "kek", "", nil)
	refused(t, err, 404, "KeyNotFound", "kek")
	left, err := os.ReadDir(filepath.Join(dir, "vault"))
	if err != nil || len(left) != 2 {
		t.Errorf("left of one key: %v, %v", left, err)
	}
	again.create("kek", 2048, nil, "import")
}
