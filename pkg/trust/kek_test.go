// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
)

func TestKEK(t *testing.T) {
	w, good := pinned(t)
	later := now.Add(time.Second)
	for name, change := range map[string]func(*KEK){
		"2048 bits":              func(*KEK) {},
		"3072 bits":              func(k *KEK) { k.PublicKey = kekPKIX(t, rsaKey(t, 3072)) },
		"4096 bits":              func(k *KEK) { k.PublicKey = kekPKIX(t, rsaKey(t, 4096)) },
		"it expires later":       func(k *KEK) { k.Expires = &later },
		"another number":         func(k *KEK) { k.Number = 7 },
		"with its attestation":   func(k *KEK) { k.Attestation = json.RawMessage(`{"certificates": ["<a&b>"]}`) },
		"upper case in its name": func(k *KEK) { k.KID = w.Vault + "/keys/KEK-1/ABC" },
	} {
		t.Run(name, func(t *testing.T) {
			k := good
			change(&k)
			v, err := w.OpenKEK(mustSeal(t, online, k), good.World, now)
			if err != nil {
				t.Fatal(err)
			}
			if v.KID() != k.KID || !bytes.Equal(kekPKIX(t, v.Public()), k.PublicKey) {
				t.Errorf("sealed %+v, opened %s", k, v.KID())
			}
			if (v.Attestation() != nil) != (k.Attestation != nil) || (v.Expires() != nil) != (k.Expires != nil) || v.Number() != k.Number {
				t.Errorf("sealed %+v, opened with attestation %s, expiring %v, number %d", k, v.Attestation(), v.Expires(), v.Number())
			}
		})
	}
}

// KEK packages that the online side signed, but that do not hold.
func TestKEKRefused(t *testing.T) {
	w, good := pinned(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := rsaKey(t, 1024)
	odd := rsaKey(t, 2048)
	odd.E = 3
	kid := func(kid string) func(*KEK) { return func(k *KEK) { k.KID = kid } }
	ops := func(ops ...string) func(*KEK) { return func(k *KEK) { k.KeyOps = ops } }
	key := func(der []byte) func(*KEK) { return func(k *KEK) { k.PublicKey = der } }
	attested := func(as string) func(*KEK) { return func(k *KEK) { k.Attestation = json.RawMessage(as) } }
	expires := func(at time.Time) func(*KEK) { return func(k *KEK) { k.Expires = &at } }
	path := strings.TrimPrefix(good.KID, w.Vault)
	for _, test := range []struct {
		name   string
		change func(*KEK)
		want   control.Control
	}{
		{"a rehearsal's", func(k *KEK) { k.Rehearsal = true }, control.TrustRehearsal},
		{"of another region", func(k *KEK) { k.Region = "NA" }, control.PackageRegion},
		{"of another security world", func(k *KEK) { k.World = fingerprint.Of(nil) }, control.PackageSignature},
		{"expired", expires(now.Add(-time.Second)), control.PackageExpired},
		{"expiring now", expires(now), control.PackageExpired},
		{"number 0", func(k *KEK) { k.Number = 0 }, control.PackageFormat},
		{"a number below 0", func(k *KEK) { k.Number = -1 }, control.PackageFormat},
		{"attested by false", attested("false"), control.PackageAttestation},
		{"attested by true", attested("true"), control.PackageAttestation},
		{"attested by a number", attested("1"), control.PackageAttestation},
		{"attested by a text", attested(`"AQID"`), control.PackageAttestation},
		{"attested by a list", attested(`[{"certificates":["x"]}]`), control.PackageAttestation},
		{"attested by nothing", attested(`{}`), control.PackageAttestation},
		{"no operation", ops(), control.PackageKEK},
		{"another operation", ops("wrapKey"), control.PackageKEK},
		{"one operation more", ops("import", "wrapKey"), control.PackageKEK},
		{"the operation twice", ops("import", "import"), control.PackageKEK},
		{"1024 bits", key(kekPKIX(t, small)), control.PackageKEK},
		{"2056 bits", key(kekPKIX(t, rsaKey(t, 2056))), control.PackageKEK},
		{"exponent 3", key(kekPKIX(t, odd)), control.PackageKEK},
		{"no RSA key", key(kekPKIX(t, ec.Public())), control.PackageKEK},
		{"no key", key(nil), control.PackageKEK},
		{"a byte behind the key", key(append(bytes.Clone(good.PublicKey), 0)), control.PackageKEK},
		{"another vault", kid("https://evil.vault.azure.net" + path), control.PackageVault},
		{"a vault whose name goes on", kid(w.Vault + ".evil.example" + path), control.PackageVault},
		{"a vault behind a user", kid("https://contoso.vault.azure.net@evil.example" + path), control.PackageVault},
		{"another port", kid(w.Vault + ":8443" + path), control.PackageVault},
		{"without TLS", kid("http://contoso.vault.azure.net" + path), control.PackageVault},
		{"no version", kid(w.Vault + "/keys/kek"), control.PackageVault},
		{"an empty version", kid(w.Vault + "/keys/kek/"), control.PackageVault},
		{"a version too many", kid(good.KID + "/x"), control.PackageVault},
		{"no key name", kid(w.Vault + "/keys//0123"), control.PackageVault},
		{"a secret", kid(w.Vault + "/secrets/kek/0123"), control.PackageVault},
		{"a query", kid(good.KID + "?api-version=7.4"), control.PackageVault},
		{"an empty query", kid(good.KID + "?"), control.PackageVault},
		{"a fragment", kid(good.KID + "#x"), control.PackageVault},
		{"an escape", kid(w.Vault + "/keys/k%65k/0123"), control.PackageVault},
		{"no identifier", kid(""), control.PackageVault},
		{"no URL", kid("kek\x00"), control.PackageVault},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := good
			test.change(&k)
			v, err := w.OpenKEK(mustSeal(t, online, k), good.World, now)
			refused(t, err, test.want)
			if v != nil {
				t.Error("a refused KEK is returned")
			}
		})
	}
}

// KEK packages that are not what the online side made.
func TestKEKPackageRefused(t *testing.T) {
	w, kek := pinned(t)
	good := mustSeal(t, online, kek)
	other := func(namespace string) []byte {
		var e envelope
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		signature, err := sshsig.Sign(online, namespace, []byte(e.Content))
		if err != nil {
			t.Fatal(err)
		}
		file, err := json.Marshal(envelope{e.Content, string(signature)})
		if err != nil {
			t.Fatal(err)
		}
		return append(file, '\n')
	}
	for _, test := range []struct {
		name string
		file []byte
		pin  fingerprint.Fingerprint
		want control.Control // none: it opens
	}{
		{"as it was made", good, kek.World, control.Control{}},
		{"signed once more", other(namespace), kek.World, control.Control{}},
		{"signed for another purpose", other("keyferry-bundle-v2"), kek.World, control.PackageSignature},
		{"signed by somebody else", mustSeal(t, stranger, kek), kek.World, control.PackageSignature},
		{"signed by an approver", mustSeal(t, offline, kek), kek.World, control.PackageSignature},
		{"another security world pinned", good, fingerprint.Of([]byte("x")), control.PackageSignature},
		{"a security world", mustSeal(t, online, *w), kek.World, control.PackageFormat},
		{"another format", resign(t, online, good, replaced(t, "keyferry-kek-v1", "keyferry-kek-v2")), kek.World, control.PackageFormat},
		{"an unknown field", resign(t, online, good, replaced(t, `{"format"`, `{"x":1,"format"`)), kek.World, control.PackageFormat},
		{"a duplicate field", resign(t, online, good, replaced(t, `"key_ops"`, `"key_ops":[],"key_ops"`)), kek.World, control.PackageFormat},
		{"a field left out", resign(t, online, good, replaced(t, `"expires":null,`, ``)), kek.World, control.PackageFormat},
		{"changed after it was signed", replaced(t, `"kid\`, `"kiD\`)(good), kek.World, control.PackageSignature},
		{"another key after it was signed", replaced(t, `keys/kek`, `keys/keq`)(good), kek.World, control.PackageSignature},
		{"too large", append(bytes.Clone(good), bytes.Repeat([]byte{' '}, maxPackage)...), kek.World, control.PackageFormat},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := w.OpenKEK(test.file, test.pin, now)
			if test.want.ID == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, test.want)
			if v != nil {
				t.Error("a refused KEK is returned")
			}
		})
	}
}

func TestEveryFlipIsRefused(t *testing.T) {
	w, kek := pinned(t)
	for name, good := range map[string][]byte{"KEK": mustSeal(t, online, kek), "world": mustSeal(t, online, world(t))} {
		openIt := func(file []byte) error {
			if name == "world" {
				_, err := OpenWorld(file)
				return err
			}
			_, err := w.OpenKEK(file, kek.World, now)
			return err
		}
		if err := openIt(good); err != nil {
			t.Fatal(err)
		}
		count := 0
		try := func(file []byte, i int) {
			t.Helper()
			if r := new(control.Refusal); !errors.As(openIt(file), &r) {
				t.Fatalf("%s, byte %d: not refused", name, i)
			}
			count++
		}
		for i := range good {
			try(good[:i], i)
			for _, pattern := range []byte{0x01, 0x07, 0x20, 0x80} { // 0x07 makes a carriage return of a line feed
				bad := bytes.Clone(good)
				bad[i] ^= pattern
				try(bad, i)
			}
		}
		t.Logf("count: %s: %d flips and cuts, all refused", name, count)
	}
}

func TestSealWithoutAKey(t *testing.T) {
	w := world(t)
	w.Signer = sshsig.PublicKey{}
	if _, err := w.Seal(online); err == nil {
		t.Error("a security world that names no key")
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := world(t).Seal(weak); !errors.Is(err, sshsig.ErrKey) {
		t.Errorf("a weak signing key: %v", err)
	}
}
