// SPDX-License-Identifier: Apache-2.0

package practice

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"hash"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/pkg/byok"
	"keyferry/test/vectors"
)

// layout is a ciphertext with each choice of the specification open.
type layout struct {
	oaep   hash.Hash
	aesLen int
	der    []byte
}

func (l layout) seal(t *testing.T, kek *rsa.PublicKey) []byte {
	t.Helper()
	aesKey := make([]byte, l.aesLen)
	rand.Read(aesKey)
	head, err := rsa.EncryptOAEP(l.oaep, rand.Reader, kek, aesKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	kwp, err := subtle.NewKWP(aesKey)
	if err != nil {
		t.Fatal(err)
	}
	body, err := kwp.Wrap(l.der)
	if err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// withCRT is the PKCS#8 of key with one value for all CRT members.
func withCRT(t *testing.T, key *rsa.PrivateKey, value int64) []byte {
	t.Helper()
	crt := big.NewInt(value)
	inner, err := asn1.Marshal(struct {
		Version             int
		N                   *big.Int
		E                   int
		D, P, Q, DP, DQ, QI *big.Int
	}{0, key.N, key.E, key.D, key.Primes[0], key.Primes[1], crt, crt, crt})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue}, inner})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func flipped(data []byte, at int) []byte {
	data = append([]byte(nil), data...)
	data[at] ^= 1
	return data
}

func TestVaultOpensStrictly(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	kid, kek := r.create("kek", 2048, nil, "import")
	key := vectors.OneTPD(t, "contoso-mode2").Key
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := pkcs8(t, key)
	good := layout{sha1.New(), 32, der}.seal(t, kek)
	for _, test := range []struct {
		name       string
		ciphertext []byte
		reason     string // empty: it opens
	}{
		{"as specified", good, ""},
		{"OAEP with SHA-256", layout{sha256.New(), 32, der}.seal(t, kek), byok.ErrOAEP.Error()},
		{"AES-128", layout{sha1.New(), 16, der}.seal(t, kek), byok.ErrAESSize.Error()},
		{"a byte after the DER", layout{sha1.New(), 32, append(der[:len(der):len(der)], 0)}.seal(t, kek), byok.ErrStray.Error()},
		{"no CRT members", layout{sha1.New(), 32, withCRT(t, key, 0)}.seal(t, kek), "PKCS#8"},
		{"wrong CRT members", layout{sha1.New(), 32, withCRT(t, key, 3)}.seal(t, kek), "PKCS#8"},
		{"PKCS#1", layout{sha1.New(), 32, x509.MarshalPKCS1PrivateKey(key)}.seal(t, kek), byok.ErrPKCS8.Error()},
		{"not RSA", layout{sha1.New(), 32, pkcs8(t, ec)}.seal(t, kek), byok.ErrPKCS8.Error()},
		{"1024 bits", layout{sha1.New(), 32, pkcs8(t, vectors.OneTPD(t, "contoso-mode1").Key)}.seal(t, kek), "has 1024 bits"},
		{"first part changed", flipped(good, 0), byok.ErrOAEP.Error()},
		{"second part changed", flipped(good, len(good)-1), byok.ErrKWP.Error()},
		{"second part cut", good[:len(good)-8], byok.ErrKWP.Error()},
		{"first part alone", good[:256], byok.ErrShort.Error()},
		{"empty", nil, byok.ErrShort.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := r.importBlob("target", marshal(t, kid, test.ciphertext))
			if test.reason != "" {
				refused(t, err, 400, "BadParameter", test.reason)
			} else if err != nil || !jwkPublic(answer.Key).Equal(&key.PublicKey) {
				t.Errorf("got %v, %v", answer.Key, err)
			}
		})
	}
}

func TestVaultRefusesABlobAlteredInAnyField(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	kid, kek := r.create("kek", 2048, nil, "import")
	good := wrapped(t, kid, kek, vectors.OneTPD(t, "contoso-mode2").Key)
	replace := func(from, to string) []byte {
		altered := strings.Replace(string(good), from, to, 1)
		if altered == string(good) {
			t.Fatalf("nothing to alter: %q", from)
		}
		return []byte(altered)
	}
	for _, test := range []struct {
		name   string
		file   []byte
		reason string
	}{
		{"schema_version", replace(`"1.0.0"`, `"1.0.1"`), "schema_version"},
		{"alg", replace(`"dir"`, `"RSA-OAEP"`), "alg"},
		{"enc", replace(`"CKM_RSA_AES_KEY_WRAP"`, `"CKM_AES_KEY_WRAP"`), "enc"},
		{"kid, unversioned", replace(kid, kid[:strings.LastIndex(kid, "/")]), "with version"},
		{"kid, empty version", replace(kid, kid[:strings.LastIndex(kid, "/")+1]), "with version"},
		{"kid, unknown version", replace(kid, kid[:len(kid)-1]+"z"), "has no key"},
		{"kid, other name", replace("/keys/kek/", "/keys/other/"), "has no key"},
		{"kid, other case", replace("/keys/kek/", "/keys/KEK/"), "writes it"},
		{"kid, other vault", replace("https://practice.", "https://contoso."), "in this vault"},
		{"kid, path", replace("/keys/kek/", "/keys/../kek/"), "in this vault"},
		{"kid, none", replace(kid, ""), "names no KEK"},
		{"ciphertext, padded", replace("\",\n  \"generator\"", "=\",\n  \"generator\""), "unpadded base64url"},
		{"ciphertext, standard alphabet", replace(`"ciphertext": "`, `"ciphertext": "+/`), "unpadded base64url"},
		{"an unknown field", replace(`"generator"`, `"extra": 1, "generator"`), "extra"},
		{"a field twice", replace(`"alg"`, `"alg": "dir", "alg"`), "twice"},
		{"data after it", append(append([]byte(nil), good...), "{}"...), "follows"},
		{"not JSON", []byte("key"), "not a transfer blob"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := r.importBlob("target", test.file)
			refused(t, err, 400, "BadParameter", test.reason)
		})
	}
	_, err := r.keys.GetKey(t.Context(), "target", "", nil)
	refused(t, err, 404, "KeyNotFound", "target") // no refusal left a key
	if _, err := r.importBlob("target", good); err != nil {
		t.Error(err)
	}
}

func TestVaultWantsAUsableKEK(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	now := time.Now()
	r.cloud.now = func() time.Time { return now }
	key := vectors.OneTPD(t, "contoso-mode2").Key
	for _, test := range []struct {
		name       string
		attributes *azkeys.KeyAttributes
		ops        string
		reason     string
	}{
		{"usable", &azkeys.KeyAttributes{NotBefore: to.Ptr(now.Add(-time.Hour)), Expires: to.Ptr(now.Add(time.Hour))}, "import", ""},
		{"not import-only", nil, "unwrapKey", "not for import alone"},
		{"disabled", &azkeys.KeyAttributes{Enabled: to.Ptr(false)}, "import", "is disabled"},
		{"expired", &azkeys.KeyAttributes{Expires: to.Ptr(now)}, "import", "has expired"},
		{"not valid yet", &azkeys.KeyAttributes{NotBefore: to.Ptr(now.Add(time.Hour))}, "import", "not valid yet"},
	} {
		t.Run(test.name, func(t *testing.T) {
			kid, kek := r.create("kek", 2048, test.attributes, test.ops)
			_, err := r.importBlob("target", wrapped(t, kid, kek, key))
			if test.reason != "" {
				refused(t, err, 400, "BadParameter", test.reason)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestVaultRefusesTheImportRequest(t *testing.T) {
	r := newRehearsal(t, t.TempDir())
	kid, kek := r.create("kek", 2048, nil, "import")
	blob := base64.RawURLEncoding.EncodeToString(wrapped(t, kid, kek, vectors.OneTPD(t, "contoso-mode2").Key))
	for _, test := range []struct{ name, key, rest, reason string }{
		{"good", `"kty":"RSA-HSM","key_ops":["sign"],"key_hsm":"` + blob + `"`, ``, ""},
		{"type", `"kty":"RSA","key_ops":["sign"],"key_hsm":"` + blob + `"`, ``, "kty"},
		{"no operations", `"kty":"RSA-HSM","key_hsm":"` + blob + `"`, ``, "key_ops"},
		{"import as operation", `"kty":"RSA-HSM","key_ops":["import"],"key_hsm":"` + blob + `"`, ``, "key_ops"},
		{"operation twice", `"kty":"RSA-HSM","key_ops":["sign","sign"],"key_hsm":"` + blob + `"`, ``, "key_ops"},
		{"padded", `"kty":"RSA-HSM","key_ops":["sign"],"key_hsm":"` + blob + `="`, ``, "unpadded base64url"},
		{"no blob", `"kty":"RSA-HSM","key_ops":["sign"]`, ``, "not a transfer blob"},
		{"clear key", `"kty":"RSA-HSM","key_ops":["sign"],"n":"AQAB","d":"AQAB"`, ``, "unknown"},
		{"software", `"kty":"RSA-HSM","key_ops":["sign"],"key_hsm":"` + blob + `"`, `,"Hsm":false`, "Hsm"},
		{"exportable", `"kty":"RSA-HSM","key_ops":["sign"],"key_hsm":"` + blob + `"`, `,"attributes":{"exportable":true}`, "exportable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, _, text := r.do(http.MethodPut, "/keys/target?api-version=7.4", `{"key":{`+test.key+`}`+test.rest+`}`, true)
			if test.reason == "" && status != 200 || test.reason != "" && (status != 400 || !strings.Contains(text, test.reason)) {
				t.Errorf("got %d %s, want a refusal with %q", status, text, test.reason)
			}
		})
	}
}

// TestOpenSSLOpensTheBlob: an auditor opens a rehearsal's blob with the KEK's
// PEM file and the openssl command alone.
func TestOpenSSLOpensTheBlob(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: no openssl command: install openssl")
	}
	dir, work := t.TempDir(), t.TempDir()
	r := newRehearsal(t, dir)
	kid, kek := r.create("kek", 3072, nil, "import")
	key := vectors.OneTPD(t, "contoso-mode2").Key
	var blob struct{ Ciphertext string }
	if err := json.Unmarshal(wrapped(t, kid, kek, key), &blob); err != nil {
		t.Fatal(err)
	}
	ciphertext, err := base64.RawURLEncoding.DecodeString(blob.Ciphertext)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) []byte {
		out, err := exec.CommandContext(t.Context(), openssl, args...).Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		return out
	}
	keyFile := filepath.Join(dir, "vault", "kek-"+kid[strings.LastIndex(kid, "/")+1:]+".pem")
	head, tail := write("head", ciphertext[:384]), write("tail", ciphertext[384:])
	aesKey := run("pkeyutl", "-decrypt", "-inkey", keyFile, "-in", head, "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1", "-pkeyopt", "rsa_mgf1_md:sha1")
	der := run("enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(aesKey), "-iv", "A65959A6", "-in", tail)
	if string(der) != string(pkcs8(t, key)) {
		t.Error("openssl found another key in the blob")
	}
}

// TestPrivateHalfIsChecked: a PEM file that was put in another's place opens
// nothing.
func TestPrivateHalfIsChecked(t *testing.T) {
	dir := t.TempDir()
	r := newRehearsal(t, dir)
	kid, kek := r.create("kek", 2048, nil, "import")
	body := `{"key":{"kty":"RSA-HSM","key_ops":["sign"],"key_hsm":"` +
		base64.RawURLEncoding.EncodeToString(wrapped(t, kid, kek, vectors.OneTPD(t, "contoso-mode2").Key)) + `"}}`
	other := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, vectors.OneTPD(t, "contoso-anyone").Key)})
	path := filepath.Join(dir, "vault", "kek-"+kid[strings.LastIndex(kid, "/")+1:]+".pem")
	for _, content := range [][]byte{other, other[:100], []byte("not PEM")} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		status, _, text := r.do(http.MethodPut, "/keys/target?api-version=7.4", body, true)
		if status != http.StatusInternalServerError || !strings.Contains(text, "damaged") {
			t.Errorf("got %d %s, want 500 with \"damaged\"", status, text)
		}
	}
}
