// SPDX-License-Identifier: Apache-2.0

package entra

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

func unescape(text string) (string, error) { return url.QueryUnescape(text) }

// version is one version of a key.
type version struct {
	id         string // https://host/keys/name/version
	ops        []string
	attributes map[string]any
	tags       map[string]string
	private    *rsa.PrivateKey // also of an imported key: this vault keeps what it unwraps
}

// Versions are the keys' identifiers, oldest first, with their moduli's lengths.
func (a *Azure) Versions(name string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var ids []string
	for _, v := range a.keys[name] {
		ids = append(ids, v.id)
	}
	return ids
}

// Key is the newest version's private key, nil where there is none.
func (a *Azure) Key(name string) *rsa.PrivateKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	if all := a.keys[name]; len(all) > 0 {
		return all[len(all)-1].private
	}
	return nil
}

// Rotate makes a new version of a key, with what is the newest one's but the key itself.
func (a *Azure) Rotate(name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.keys[name]
	if len(all) == 0 {
		return fmt.Errorf("no key %s", name)
	}
	next := *all[len(all)-1]
	next.id = next.id[:strings.LastIndexByte(next.id, '/')+1] + random()
	private, err := rsa.GenerateKey(rand.Reader, next.private.N.BitLen())
	next.private = private
	a.keys[name] = append(all, &next)
	return err
}

// Of describes a key's newest version: its attributes and tags.
func (a *Azure) Of(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.keys[name]
	if len(all) == 0 {
		return "none"
	}
	v := all[len(all)-1]
	return fmt.Sprint(v.attributes, v.tags)
}

// fail answers in Key Vault's form.
func fail(w http.ResponseWriter, status int, code, inner, message string) {
	said := map[string]any{"code": code, "message": message}
	if inner != "" {
		said["innererror"] = map[string]string{"code": inner}
	}
	reply(w, status, map[string]any{"error": said})
}

// refusals are the vault's, on demand.
var refusals = map[string]struct {
	status               int
	code, inner, message string
}{
	"rights":        {403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or role definitions were changed recently, please observe propagation time.\r\nCaller: appid=" + Client + ";oid=99999999-0000-4000-8000-000000000001;iss=https://sts.windows.net/" + Tenant + "/\r\nAction: 'Microsoft.KeyVault/vaults/keys/read'\r\nResource: '/subscriptions/22222222-0000-4000-8000-000000000002/resourcegroups/rms/providers/microsoft.keyvault/vaults/contoso/keys/keyferry-kek'\r\nAssignment: (not found)\r\nDenyAssignmentId: null\r\nDecisionReason: null \r\nVault: contoso;location=westeurope\r\n"},
	"access-policy": {403, "Forbidden", "AccessDenied", "The user, group or application 'appid=" + Client + "' does not have keys get permission on key vault 'contoso;location=westeurope'."},
	"firewall":      {403, "Forbidden", "ForbiddenByFirewall", "Client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.7\r\nVault: contoso;location=westeurope"},
	"private-link":  {403, "Forbidden", "ForbiddenByConnection", "Public network access is disabled and request is not from a trusted service nor via an approved private link.\r\nVault: contoso;location=westeurope"},
	"perimeter":     {403, "Forbidden", "ForbiddenByNsp", "Request was not allowed by NSP rules and the client address is not authorized and caller is not a trusted service.\r\nClient address: 192.0.2.7"},
	"disabled":      {403, "Forbidden", "KeyDisabled", "Operation get is not allowed on a disabled key."},
	"inactive":      {403, "Forbidden", "", "Managed HSM is not activated. Download the security domain first."},
	"throttled":     {429, "Throttled", "", "Request was not processed because too many requests were received. Reason: VaultRequestTypeLimitReached"},
}

// vault is Key Vault's REST interface, as far as a ceremony goes.
func (a *Azure) vault(w http.ResponseWriter, r *http.Request, host string, body []byte) {
	if a.is("block-page") {
		page(w, http.StatusForbidden, "Access denied by Contoso Web Security")
		return
	}
	if !a.signedIn(w, r, host) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if said, on := refusals[a.how]; on {
		if said.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "0")
		}
		fail(w, said.status, said.code, said.inner, said.message)
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	missing := func() {
		fail(w, http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) "+strings.Join(parts[1:], "/")+" was not found in this key vault.")
	}
	switch {
	case len(parts) == 1 && parts[0] == "keys":
		a.list(w, r, host)
	case parts[0] != "keys" || len(parts) > 3: // deleted keys, attestations
		missing()
	case len(parts) == 3 && parts[2] == "create" && r.Method == http.MethodPost, len(parts) == 2 && r.Method == http.MethodPut:
		if v, status, message := a.make(host, parts[1], body); v != nil {
			a.keys[parts[1]] = append(a.keys[parts[1]], v)
			reply(w, http.StatusOK, v.bundle())
		} else {
			fail(w, status, map[int]string{400: "BadParameter", 403: "Forbidden"}[status], "", message)
		}
	default:
		all := a.keys[parts[1]]
		at := len(all) - 1
		if len(parts) == 3 {
			at = slices.IndexFunc(all, func(v *version) bool { return strings.HasSuffix(v.id, "/"+parts[2]) })
		}
		if at < 0 {
			missing()
			return
		}
		reply(w, http.StatusOK, all[at].bundle())
	}
}

// list lists the keys, one on a page.
func (a *Azure) list(w http.ResponseWriter, r *http.Request, host string) {
	var names []string
	for name := range a.keys {
		names = append(names, name)
	}
	slices.Sort(names)
	from := r.URL.Query().Get("$skiptoken")
	at, _ := slices.BinarySearch(names, from)
	document := map[string]any{"value": []any{}, "nextLink": nil}
	if at < len(names) {
		all := a.keys[names[at]]
		document["value"] = []any{map[string]any{"kid": "https://" + host + "/keys/" + names[at], "attributes": all[len(all)-1].attributes, "tags": all[len(all)-1].tags}}
	}
	if at+1 < len(names) {
		document["nextLink"] = "https://" + host + "/keys?api-version=" + r.URL.Query().Get("api-version") + "&$skiptoken=" + url.QueryEscape(names[at+1])
	}
	reply(w, http.StatusOK, document)
}

func (v *version) bundle() map[string]any {
	public := v.private.PublicKey
	e := binary.BigEndian.AppendUint32(nil, uint32(public.E))
	return map[string]any{
		"key":        map[string]any{"kid": v.id, "kty": "RSA-HSM", "key_ops": v.ops, "n": base64.RawURLEncoding.EncodeToString(public.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(bytes.TrimLeft(e, "\x00"))},
		"attributes": v.attributes, "tags": v.tags,
	}
}

// make makes a key, or unwraps the one that is imported.
func (a *Azure) make(host, name string, body []byte) (v *version, status int, message string) {
	var in struct {
		Kty    string   `json:"kty"`
		Size   int      `json:"key_size"`
		KeyOps []string `json:"key_ops"`
		HSM    bool     `json:"Hsm"`
		Key    struct {
			Kty    string   `json:"kty"`
			KeyOps []string `json:"key_ops"`
			Blob   string   `json:"key_hsm"`
		} `json:"key"`
		Attributes struct {
			Expires int64 `json:"exp"`
		} `json:"attributes"`
		Tags map[string]string `json:"tags"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, http.StatusBadRequest, err.Error()
	}
	if a.how == "policy" && (in.Attributes.Expires == 0 || in.Tags["owner"] == "") {
		return nil, http.StatusForbidden, "Key '" + name + "' was disallowed by policy. Policy identifiers: '[{\"policyAssignment\":{\"name\":\"Keys should have an expiration date and the tag owner\"}}]'."
	}
	now := time.Now().Unix()
	v = &version{
		id: "https://" + host + "/keys/" + name + "/" + random(), ops: in.KeyOps, tags: in.Tags,
		attributes: map[string]any{"enabled": true, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90, "exportable": false, "hsmPlatform": "2"},
	}
	if in.Attributes.Expires != 0 {
		v.attributes["exp"] = in.Attributes.Expires
	}
	var err error
	switch {
	case in.Kty == "RSA-HSM":
		v.private, err = rsa.GenerateKey(rand.Reader, in.Size)
	case in.Key.Kty == "RSA-HSM" && in.HSM:
		v.ops = in.Key.KeyOps
		v.private, err = a.unwrap(in.Key.Blob)
	default:
		err = errors.New("neither an RSA-HSM key to be made nor one to be imported")
	}
	if err != nil {
		return nil, http.StatusBadRequest, err.Error()
	}
	return v, 0, ""
}

// unwrap opens a transfer blob as Microsoft's specification says: CKM_RSA_AES_KEY_WRAP.
func (a *Azure) unwrap(encoded string) (*rsa.PrivateKey, error) {
	var blob struct {
		Header struct {
			KID string `json:"kid"`
			Alg string `json:"alg"`
			Enc string `json:"enc"`
		} `json:"header"`
		Ciphertext string `json:"ciphertext"`
	}
	file, err := base64.RawURLEncoding.DecodeString(encoded)
	if err == nil {
		err = json.Unmarshal(file, &blob)
	}
	if err != nil {
		return nil, err
	}
	var kek *version
	for _, all := range a.keys {
		for _, v := range all {
			if v.id == blob.Header.KID && slices.Equal(v.ops, []string{"import"}) {
				kek = v
			}
		}
	}
	wrapped, err := base64.RawURLEncoding.DecodeString(blob.Ciphertext)
	if kek == nil || err != nil || blob.Header.Enc != "CKM_RSA_AES_KEY_WRAP" || blob.Header.Alg != "dir" || len(wrapped) < kek.private.Size()+24 {
		return nil, fmt.Errorf("the blob names no KEK of this vault, or is not in its form: %v", err)
	}
	key, err := rsa.DecryptOAEP(sha1.New(), nil, kek.private, wrapped[:kek.private.Size()], nil)
	if err != nil {
		return nil, err
	}
	der, err := kwp(key, wrapped[kek.private.Size():])
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if private, ok := parsed.(*rsa.PrivateKey); ok && private.N.BitLen() >= 2048 {
		return private, nil
	}
	return nil, fmt.Errorf("no RSA key of 2048 bits or more is within: %v", err)
}

// kwp unwraps by AES with padding, RFC 5649.
func kwp(key, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, fmt.Errorf("not wrapped: %v", err)
	}
	r, n := bytes.Clone(wrapped), len(wrapped)/8-1
	a, b := r[:8], make([]byte, 16)
	for t := 6 * n; t > 0; t-- {
		part := r[8+(t-1)%n*8:][:8]
		binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(a)^uint64(t))
		copy(b[8:], part)
		block.Decrypt(b, b)
		copy(a, b)
		copy(part, b[8:])
	}
	length := int(binary.BigEndian.Uint32(r[4:]))
	if !bytes.Equal(r[:4], []byte{0xa6, 0x59, 0x59, 0xa6}) || length > len(r)-8 || length <= len(r)-16 {
		return nil, errors.New("the integrity check fails")
	}
	return r[8 : 8+length], nil
}
