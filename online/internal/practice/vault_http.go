// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/strictjson"
)

// The challenge, with the names that Azure uses, of the practice cloud.
const (
	resource  = "https://vault.keyferry.test"
	challenge = `Bearer authorization="https://login.keyferry.test/practice", resource="` + resource + `"`
)

// maxBody bounds a request in bytes. An import of a 4096-bit key takes 8 KiB.
const maxBody = 128 << 10

// apiVersions are the versions of the REST interface that know RSA-HSM keys
// and key_hsm.
var apiVersions = []string{"7.0", "7.1", "7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01"}

var keyName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// apiError is an error as the REST interface reports it.
type apiError struct {
	status        int
	code, message string
	inner         string // code of the inner error, where there is one
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func badParameter(format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, code: "BadParameter", message: fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &apiError{status: http.StatusNotFound, code: "KeyNotFound", message: fmt.Sprintf(format, args...)}
}

func noRoute(path string) error {
	return &apiError{status: http.StatusNotFound, code: "NotFound", message: "The practice vault has no " + control.Quote(path) + "."}
}

// body is the error as JSON.
func (e *apiError) body() any {
	said := map[string]any{"code": e.code, "message": e.message}
	if e.inner != "" {
		said["innererror"] = map[string]string{"code": e.inner}
	}
	return map[string]any{"error": said}
}

// vaultServer is the practice vault's REST interface.
type vaultServer struct {
	cloud *Cloud
	token string
}

func (s *vaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Keyferry practice vault")
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	answered, err := s.troubled(w, r)
	if answered {
		return
	}
	var answer any
	if err == nil {
		answer, err = s.answer(w, r)
	}
	status := http.StatusOK
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{status: http.StatusInternalServerError, code: "InternalServerError", message: err.Error()}
		}
		status, answer = e.status, e.body()
	} else if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer) // a client that hangs up is its own affair
}

// answer checks the sign-in, then the route, then the interface's version.
func (s *vaultServer) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	got := []byte(strings.TrimSuffix(r.Header.Get("Authorization"), withClaims))
	if subtle.ConstantTimeCompare(got, []byte("Bearer "+s.token)) != 1 {
		w.Header().Set("WWW-Authenticate", challenge)
		return nil, &apiError{status: http.StatusUnauthorized, code: "Unauthorized", message: "AKV10000: Request is missing a Bearer token that the practice vault knows."}
	}
	methods, err := s.route(r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	handle, ok := methods[r.Method]
	if !ok {
		allowed := []string{}
		for method := range methods {
			allowed = append(allowed, method)
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return nil, &apiError{status: http.StatusMethodNotAllowed, code: "MethodNotAllowed", message: "The method " + r.Method + " is not allowed here."}
	}
	switch asked := r.URL.Query()["api-version"]; {
	case len(asked) != 1:
		return nil, badParameter("api-version must be specified, once")
	case !slices.Contains(apiVersions, asked[0]):
		return nil, badParameter("the api-version %s is not one of %s", control.Quote(asked[0]), strings.Join(apiVersions, ", "))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, code: "RequestEntityTooLarge", message: err.Error()}
	} else if err != nil {
		return nil, err
	}
	s.cloud.mu.Lock()
	defer s.cloud.mu.Unlock()
	return handle(body)
}

type handler func(body []byte) (any, error)

// route finds what a path offers, by method. A final slash does not count: the
// SDK writes /keys/NAME/ for a key's current version.
func (s *vaultServer) route(path string) (map[string]handler, error) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	if len(parts) > 1 && !keyName.MatchString(parts[1]) {
		return nil, badParameter("the key name %s is not 1 to 127 letters, digits and dashes", control.Quote(parts[1]))
	}
	switch {
	case parts[0] == "keys":
		return s.cloud.keysRoute(path, parts[1:])
	case parts[0] == "deletedkeys" && len(parts) > 1:
		return s.cloud.deletedRoute(path, parts[1], parts[2:])
	}
	return nil, noRoute(path)
}

func (c *Cloud) keysRoute(path string, parts []string) (map[string]handler, error) {
	switch {
	case len(parts) == 0:
		return map[string]handler{http.MethodGet: func([]byte) (any, error) { return c.listKeys() }}, nil
	case len(parts) == 1:
		return map[string]handler{
			http.MethodGet:    func([]byte) (any, error) { return c.getKey(parts[0], "") },
			http.MethodPut:    func(body []byte) (any, error) { return c.importKey(parts[0], body) },
			http.MethodDelete: func([]byte) (any, error) { return c.deleteKey(parts[0]) },
		}, nil
	case len(parts) == 2 && parts[1] == "create":
		return map[string]handler{http.MethodPost: func(body []byte) (any, error) { return c.createKey(parts[0], body) }}, nil
	case len(parts) == 2 && parts[1] == "versions":
		return map[string]handler{http.MethodGet: func([]byte) (any, error) { return c.listVersions(parts[0]) }}, nil
	case len(parts) == 2:
		return map[string]handler{http.MethodGet: func([]byte) (any, error) { return c.getKey(parts[0], parts[1]) }}, nil
	case len(parts) == 3 && parts[2] == "attestation":
		return map[string]handler{http.MethodGet: func([]byte) (any, error) {
			return nil, notFound("The practice vault has no HSM that could attest a key.")
		}}, nil
	}
	return nil, noRoute(path)
}

func (c *Cloud) deletedRoute(path, name string, parts []string) (map[string]handler, error) {
	switch {
	case len(parts) == 0:
		return map[string]handler{
			http.MethodGet:    func([]byte) (any, error) { return c.getDeleted(name) },
			http.MethodDelete: func([]byte) (any, error) { return nil, c.purgeDeleted(name) },
		}, nil
	case len(parts) == 1 && parts[0] == "recover":
		return map[string]handler{http.MethodPost: func([]byte) (any, error) { return c.recoverDeleted(name) }}, nil
	}
	return nil, noRoute(path)
}

// decode reads a request's body strictly: a field that the practice vault does
// not know is refused rather than ignored.
func decode(body []byte, v any) error {
	if err := strictjson.Unmarshal(body, maxBody, v); err != nil {
		return badParameter("the body of the request: %v", err)
	}
	return nil
}
