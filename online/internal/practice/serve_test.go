// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// TestServeOtherClients: a client that knows the address, the certificate and
// the token alone is served, under each of this machine's names.
func TestServeOtherClients(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	kid, _ := r.create("kek", 2048, nil, "import")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(r.endpoint.Certificate()) {
		t.Fatal("the certificate can't be read")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport}
	for _, address := range []string{r.endpoint.Address(), strings.Replace(r.endpoint.Address(), "127.0.0.1", "localhost", 1)} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+strings.TrimPrefix(kid, URL)+"?api-version=7.4", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+r.endpoint.Token())
		answer, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != 200 {
			t.Errorf("%s: %s", address, answer.Status)
		}
	}
}

// TestServeTheLoopbackAlone: nobody beyond this machine reaches the practice
// vault.
func TestServeTheLoopbackAlone(t *testing.T) {
	cloud, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cloud.Serve(listener); !control.Is(err, control.CommandLine) {
		t.Errorf("got %v, want %s", err, control.CommandLine.ID)
	}
	if _, err := listener.Accept(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the listener stays open: %v", err)
	}
}

func TestSoftDelete(t *testing.T) {
	dir := t.TempDir()
	r := newRehearsal(t, dir)
	kid, _ := r.create("kek", 2048, nil, "import")
	step := func(what, method, path string, status int, want string) {
		t.Helper()
		got, _, text := r.do(method, path+"?api-version=7.4", "{}", true)
		if got != status || !strings.Contains(text, want) {
			t.Errorf("%s: got %d %s, want %d with %q", what, got, text, status, want)
		}
	}
	step("not deleted yet", "GET", "/deletedkeys/kek", 404, "KeyNotFound")
	step("recover what is there", "POST", "/deletedkeys/kek/recover", 404, "KeyNotFound")
	step("delete", "DELETE", "/keys/kek", 200, URL+"/deletedkeys/kek")
	step("delete again", "DELETE", "/keys/kek", 404, "KeyNotFound")
	step("get", "GET", "/keys/kek", 404, "KeyNotFound")
	step("versions", "GET", "/keys/kek/versions", 200, `"value":[]`)
	step("list", "GET", "/keys", 200, `"value":[]`)
	step("get deleted", "GET", "/deletedkeys/KEK", 200, "scheduledPurgeDate")
	status, _, text := r.do("POST", "/keys/kek/create?api-version=7.4", `{"kty":"RSA-HSM","key_ops":["import"]}`, true)
	if status != 409 || !strings.Contains(text, "ObjectIsDeletedButRecoverable") {
		t.Errorf("a deleted key's name was given away: %d %s", status, text)
	}
	step("recover", "POST", "/deletedkeys/kek/recover", 200, kid)
	step("get again", "GET", "/keys/kek", 200, kid)
	step("list again", "GET", "/keys", 200, `/keys/kek"`)

	step("delete for good", "DELETE", "/keys/kek", 200, "recoveryId")
	request, err := http.NewRequestWithContext(t.Context(), "DELETE", URL+"/deletedkeys/kek?api-version=7.4", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.endpoint.Token())
	if answer, err := r.endpoint.Transport().Do(request); err != nil || answer.StatusCode != 204 {
		t.Errorf("purge: %v, %v", answer, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "vault")); err != nil || len(left) != 0 {
		t.Errorf("the purge left %v, %v", left, err)
	}
	r.create("kek", 2048, nil, "import")
}
