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
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func badParameter(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "BadParameter", fmt.Sprintf(format, args...)}
}

func notFound(format string, args ...any) error {
	return &apiError{http.StatusNotFound, "KeyNotFound", fmt.Sprintf(format, args...)}
}

// vaultServer is the practice vault's REST interface.
type vaultServer struct {
	cloud *Cloud
	token string
}

func (s *vaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Keyferry practice vault")
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	answer, err := s.answer(w, r)
	status := http.StatusOK
	if err != nil {
		var e *apiError
		if !errors.As(err, &e) {
			e = &apiError{http.StatusInternalServerError, "InternalServerError", err.Error()}
		}
		status = e.status
		answer = map[string]any{"error": map[string]string{"code": e.code, "message": e.message}}
	}
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer) // a client that hangs up is its own affair
}

// answer checks the sign-in, then the route, then the interface's version.
func (s *vaultServer) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	got := []byte(r.Header.Get("Authorization"))
	if subtle.ConstantTimeCompare(got, []byte("Bearer "+s.token)) != 1 {
		w.Header().Set("WWW-Authenticate", challenge)
		return nil, &apiError{http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer token that the practice vault knows."}
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
		return nil, &apiError{http.StatusMethodNotAllowed, "MethodNotAllowed", "The method " + r.Method + " is not allowed here."}
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
		return nil, &apiError{http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", err.Error()}
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
	c := s.cloud
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/")
	if len(parts) < 2 || len(parts) > 4 || parts[0] != "keys" {
		return nil, &apiError{http.StatusNotFound, "NotFound", "The practice vault has no " + control.Quote(path) + "."}
	}
	name := parts[1]
	if !keyName.MatchString(name) {
		return nil, badParameter("the key name %s is not 1 to 127 letters, digits and dashes", control.Quote(name))
	}
	switch {
	case len(parts) == 2:
		return map[string]handler{
			http.MethodGet: func([]byte) (any, error) { return c.getKey(name, "") },
			http.MethodPut: func(body []byte) (any, error) { return c.importKey(name, body) },
		}, nil
	case len(parts) == 3 && parts[2] == "create":
		return map[string]handler{http.MethodPost: func(body []byte) (any, error) { return c.createKey(name, body) }}, nil
	case len(parts) == 3 && parts[2] == "versions":
		return map[string]handler{http.MethodGet: func([]byte) (any, error) { return c.listVersions(name) }}, nil
	case len(parts) == 3:
		return map[string]handler{http.MethodGet: func([]byte) (any, error) { return c.getKey(name, parts[2]) }}, nil
	case parts[3] == "attestation":
		return map[string]handler{http.MethodGet: func([]byte) (any, error) {
			return nil, notFound("The practice vault has no HSM that could attest a key.")
		}}, nil
	}
	return nil, &apiError{http.StatusNotFound, "NotFound", "The practice vault has no " + control.Quote(path) + "."}
}

// decode reads a request's body strictly: a field that the practice vault does
// not know is refused rather than ignored.
func decode(body []byte, v any) error {
	if err := strictjson.Unmarshal(body, maxBody, v); err != nil {
		return badParameter("the body of the request: %v", err)
	}
	return nil
}
