// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
)

// troubleFile, in the practice cloud's directory, holds the name of a trouble. While it
// is there the cloud answers so, as Azure would: what the day may bring can be rehearsed.
const troubleFile = "trouble"

// withClaims ends the token of a sign-in that was asked for with claims.
const withClaims = "+claims"

const (
	blockPage    = "block-page"    // a page of a proxy answers in the vault's place
	invalidToken = "invalid-token" // the vault does not take the token any more
	claimsWanted = "claims"        // Conditional Access wants claims while the sign-in lasts
)

// ofChanges are the refusals that a vault gives to a new key alone, not to who reads one.
var ofChanges = []string{"policy", "standard"}

// vaultTroubles are the vault's refusals.
var vaultTroubles = map[string]apiError{
	"rights": {http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource.\r\nCaller: appid=practice\r\n" +
		"Action: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '/subscriptions/practice/vaults/practice/keys'", "ForbiddenByRbac"},
	"firewall":     {http.StatusForbidden, "Forbidden", "Client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.7", "ForbiddenByFirewall"},
	"private-link": {http.StatusForbidden, "Forbidden", "Public network access is disabled and request is not from a trusted service nor via an approved private link.", "ForbiddenByConnection"},
	"perimeter":    {http.StatusForbidden, "Forbidden", "Request was not allowed by NSP rules and the client address is not authorized and caller is not a trusted service.", "ForbiddenByNsp"},
	"policy":       {http.StatusForbidden, "Forbidden", "The key was disallowed by policy. Policy identifiers: '[]'.", ""},
	"disabled":     {http.StatusForbidden, "Forbidden", "Operation get is not allowed on a disabled key.", "KeyDisabled"},
	"standard":     {http.StatusBadRequest, "BadParameter", "Hardware key operation not allowed on standard vault.", ""},
	"throttled":    {http.StatusTooManyRequests, "Throttled", "Request was not processed because too many requests were received.", ""},
}

// tenantTroubles are the tenant's.
var tenantTroubles = map[string]func() error{
	"tenant-sign-in": func() error {
		return control.RMSSignIn.Refuse("the practice tenant says \"You must call the Connect-AipService cmdlet before calling any other cmdlet.\"")
	},
	"tenant-rights": func() error { return control.RMSRights.Refuse("the practice tenant says \"Access is denied.\"") },
	"tenant-key-url": func() error {
		return control.RMSKeyURL.Refuse("Failure to access Azure KeyVault: the practice tenant may not get, decrypt and sign with the key").WithHint("%s", tenant.Grant)
	},
}

// trouble is the one that was ordered, empty where there is none.
func (c *Cloud) trouble() (string, error) {
	path := filepath.Join(c.dir, troubleFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(data))
	_, ofVault := vaultTroubles[name]
	_, ofTenant := tenantTroubles[name]
	if !ofVault && !ofTenant && name != blockPage && name != invalidToken && name != claimsWanted {
		return "", damaged(path, errors.New("it names no trouble that the practice cloud knows"))
	}
	return name, nil
}

// troubled answers as the trouble says, and reports whether it did.
func (s *vaultServer) troubled(w http.ResponseWriter, r *http.Request) (answered bool, err error) {
	name, err := s.cloud.trouble()
	if err != nil || name == "" {
		return false, err
	}
	said, ofVault := vaultTroubles[name]
	signedIn := r.Header.Get("Authorization") != ""
	switch {
	case name == blockPage:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte("<html><title>Access denied by a proxy</title></html>")) // a client that hangs up is its own affair
		return true, nil
	case name == invalidToken && signedIn:
		w.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token", error_description="The access token expired"`)
		return false, &apiError{status: http.StatusUnauthorized, code: "Unauthorized", message: "AKV10022: The token has expired."}
	case name == claimsWanted && signedIn && !strings.HasSuffix(r.Header.Get("Authorization"), withClaims):
		claims := base64.StdEncoding.EncodeToString([]byte(`{"access_token":{"nbf":{"essential":true,"value":"1"}}}`))
		w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="https://login.keyferry.test/practice", error="insufficient_claims", claims="`+claims+`"`)
		return false, &apiError{status: http.StatusUnauthorized, code: "Unauthorized", message: "AKV10000: Continuous access evaluation wants claims."}
	case ofVault && signedIn && (r.Method != http.MethodGet || !slices.Contains(ofChanges, name)):
		w.Header().Set("Retry-After", "0")
		return false, &said
	}
	return false, nil
}
