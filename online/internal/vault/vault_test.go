// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/online/internal/blob"
	"keyferry/online/internal/practice"
	"keyferry/online/internal/vault"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

func practiceVault(t *testing.T) *vault.Client {
	t.Helper()
	cloud, err := practice.Open(t.TempDir())
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
	client, err := vault.New(endpoint.URL(), endpoint.Credential(), endpoint.Transport())
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// holds fails the test unless err is the refusal of that control.
func holds(t *testing.T, err error, want control.Control, part string) {
	t.Helper()
	if !control.Is(err, want) || !strings.Contains(err.Error(), part) {
		t.Errorf("got %v, want %s with %q", err, want.ID, part)
	}
}

func newKEK(t *testing.T, client *vault.Client, name string) *vault.KEK {
	t.Helper()
	kek, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: name, Bits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func blobFor(t *testing.T, kek *vault.KEK, key *rsa.PrivateKey) []byte {
	t.Helper()
	ciphertext, err := byok.Wrap(rand.Reader, key, kek.Public)
	if err != nil {
		t.Fatal(err)
	}
	file, err := blob.Marshal(kek.KID, ciphertext, "test")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKEK(t *testing.T) {
	client := practiceVault(t)
	for _, bits := range []int{2048, 3072, 4096} {
		name := "kek-" + map[int]string{2048: "a", 3072: "b", 4096: "c"}[bits]
		kek, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: name, Bits: bits})
		if err != nil {
			t.Fatal(err)
		}
		fetched, err := client.FetchKEK(t.Context(), name, "")
		if err != nil {
			t.Fatal(err)
		}
		if kek.Public.N.BitLen() != bits || !fetched.Public.Equal(kek.Public) || fetched.KID != kek.KID {
			t.Errorf("made %v, fetched %v", kek.KID, fetched.KID)
		}
		if byVersion, err := client.FetchKEK(t.Context(), name, kek.Version); err != nil || byVersion.KID != kek.KID {
			t.Errorf("by version: %v, %v", byVersion, err)
		}
		if kek.Attestation != nil {
			t.Errorf("the practice vault attests nothing, got %s", kek.Attestation)
		}
	}
	_, err := client.CreateKEK(t.Context(), vault.NewKEK{Name: "KEK-A", Bits: 2048})
	holds(t, err, control.VaultKeyExists, "already")
	_, err = client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek-d", Bits: 1024})
	holds(t, err, control.VaultKEKSize, "1024")
	_, err = client.CreateKEK(t.Context(), vault.NewKEK{Name: "kek_d", Bits: 2048})
	holds(t, err, control.VaultKeyName, "kek_d")
	_, err = client.FetchKEK(t.Context(), "kek-d", "")
	holds(t, err, control.VaultKeyMissing, "kek-d")
	_, err = client.FetchKEK(t.Context(), "kek-a", "0123456789abcdef0123456789abcdef")
	holds(t, err, control.VaultKeyMissing, "kek-a")
	_, err = client.FetchKEK(t.Context(), "kek-a", "../kek-b")
	holds(t, err, control.VaultKeyName, "version")
}

// TestKEKTakenUpAgain: the same KEK for the same purpose is taken up; another,
// or one for nobody knows what, is not.
func TestKEKTakenUpAgain(t *testing.T) {
	client := practiceVault(t)
	expires := time.Now().Add(time.Hour)
	in := vault.NewKEK{Name: "kek", Bits: 2048, Expires: expires, Tags: map[string]string{"package": "NA-1"}}
	made, err := client.CreateKEK(t.Context(), in)
	if err != nil || made.Resumed || !made.Expires.Equal(expires.Truncate(time.Second)) || made.Tags["package"] != "NA-1" {
		t.Fatalf("made %+v, %v", made, err)
	}
	again, err := client.CreateKEK(t.Context(), in)
	if err != nil || !again.Resumed || again.KID != made.KID {
		t.Errorf("again: %+v, %v", again, err)
	}
	for name, change := range map[string]func(in *vault.NewKEK){
		"another package": func(in *vault.NewKEK) { in.Tags = map[string]string{"package": "NA-2"} },
		"no tags":         func(in *vault.NewKEK) { in.Tags = nil },
		"size":            func(in *vault.NewKEK) { in.Bits = 3072 },
		"expiry":          func(in *vault.NewKEK) { in.Expires = expires.Add(time.Hour) },
		"no expiry":       func(in *vault.NewKEK) { in.Expires = time.Time{} },
	} {
		in := in
		change(&in)
		_, err := client.CreateKEK(t.Context(), in)
		holds(t, err, control.VaultKeyExists, "already")
		if hint := hintOf(err); !strings.Contains(hint, "--kek-name;") || !strings.Contains(hint, "`online kek fetch --kek-name kek`") {
			t.Errorf("%s: hint: %s", name, hint)
		}
	}
	in.Name, in.Expires = "kek-2", time.Now()
	_, err = client.CreateKEK(t.Context(), in)
	holds(t, err, control.VaultKEKValidity, "no use")
}

func TestGrantCommands(t *testing.T) {
	for url, want := range map[string][]string{
		"https://contoso.vault.azure.net": {
			`az role assignment create --role "Key Vault Crypto User" --assignee P --scope "$(az keyvault show --name contoso --query id --output tsv)/keys/k"  # in a vault with roles`,
			"az keyvault set-policy --name contoso --spn P --key-permissions get decrypt sign  # in one with access policies",
			"az keyvault update --name contoso --bypass AzureServices  # where it has a firewall: Azure RMS is a trusted service",
		},
		"https://contoso.managedhsm.azure.net": {`az keyvault role assignment create --hsm-name contoso --role "Managed HSM Crypto User" --assignee P --scope /keys/k`,
			"az keyvault update-hsm --hsm-name contoso --bypass AzureServices  # where it has a firewall: Azure RMS is a trusted service"},
	} {
		client, err := vault.New(url, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := client.GrantCommands("P", "k"); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		part := strings.Replace(strings.TrimPrefix(url, "https://"), ".vault.azure.net", "", 1)
		part, isHSM := strings.CutSuffix(part, ".managedhsm.azure.net")
		name := map[bool]string{false: "--vault-name ", true: "--hsm-name "}[isHSM] + part
		if got := client.RemoveCommands("k"); !slices.Equal(got, []string{"az keyvault key delete " + name + " --name k", "az keyvault key purge " + name + " --name k"}) {
			t.Errorf("got %q", got)
		}
	}
}

func TestImportKey(t *testing.T) {
	client := practiceVault(t)
	kek := newKEK(t, client, "kek")
	key := vectors.OneTPD(t, "contoso-mode2").Key
	in := vault.Import{Name: "tenant-key", Blob: blobFor(t, kek, key), Want: &key.PublicKey, Tags: map[string]string{"keyferry-bundle": "b1"}}

	if planned, err := client.CheckImport(t.Context(), in); planned != nil || err != nil {
		t.Fatalf("before the import: %v, %v", planned, err)
	}
	done, err := client.ImportKey(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if done.Resumed || !done.Public.Equal(&key.PublicKey) || done.Type != "RSA-HSM" || done.Tags["keyferry-bundle"] != "b1" {
		t.Errorf("imported: %+v", done)
	}
	again, err := client.ImportKey(t.Context(), in)
	if err != nil || !again.Resumed || again.KID != done.KID {
		t.Errorf("again: %+v, %v; want the same key, resumed", again, err)
	}
	if planned, err := client.CheckImport(t.Context(), in); err != nil || planned == nil || planned.KID != done.KID {
		t.Errorf("after the import: %+v, %v", planned, err)
	}

	other := vectors.OneTPD(t, "contoso-anyone").Key
	for _, test := range []struct {
		name    string
		change  func(in *vault.Import)
		control control.Control
		part    string
	}{
		{"another key under the name", func(in *vault.Import) { in.Blob, in.Want = blobFor(t, kek, other), &other.PublicKey }, control.VaultKeyExists, "another key"},
		{"another ceremony", func(in *vault.Import) { in.Tags = map[string]string{"keyferry-bundle": "b2"} }, control.VaultKeyExists, "not from this ceremony"},
		{"no tags", func(in *vault.Import) { in.Tags = nil }, control.VaultKeyExists, "not from this ceremony"},
		{"bad name", func(in *vault.Import) { in.Name = "a b" }, control.VaultKeyName, "a b"},
		{"not a blob", func(in *vault.Import) { in.Blob = []byte("{}") }, control.BlobFormat, ""},
		{"KEK of another vault", func(in *vault.Import) {
			in.Blob = []byte(strings.Replace(string(in.Blob), "practice.", "contoso.", 1))
		}, control.VaultKEKForeign, "contoso"},
		{"a KEK that the vault does not have", func(in *vault.Import) {
			in.Name, in.Blob = "fresh", blobFor(t, &vault.KEK{Key: vault.Key{KID: kek.KID + "0", Public: kek.Public}}, key)
		}, control.VaultKEKForeign, "does not have"},
		{"no KEK at all", func(in *vault.Import) {
			in.Name, in.Blob = "fresh", blobFor(t, &vault.KEK{Key: vault.Key{KID: practice.URL + "/keys/kek", Public: kek.Public}}, key)
		}, control.VaultKEKForeign, "with its version"},
		{"a key as KEK", func(in *vault.Import) {
			in.Name, in.Blob = "fresh", blobFor(t, &vault.KEK{Key: vault.Key{KID: done.KID, Public: kek.Public}}, key)
		}, control.VaultKEKOps, "import alone"},
		{"a blob that the vault cannot open", func(in *vault.Import) {
			in.Name, in.Blob = "fresh", blobFor(t, &vault.KEK{Key: vault.Key{KID: kek.KID, Public: &other.PublicKey}}, key)
		}, control.VaultRequest, "OAEP"},
		{"a key other than the one that travelled", func(in *vault.Import) { in.Name, in.Want = "fresh-2", &other.PublicKey }, control.VaultKeyMismatch, "another modulus"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := in
			test.change(&in)
			_, err := client.ImportKey(t.Context(), in)
			holds(t, err, test.control, test.part)
		})
	}
	if _, err := client.FetchKEK(t.Context(), "tenant-key", ""); !control.Is(err, control.VaultKEKOps) {
		t.Errorf("a tenant key passes as a KEK: %v", err)
	}
}

func TestURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://contoso.vault.azure.net":               "https://contoso.vault.azure.net",
		"https://Contoso.Vault.Azure.net/":              "https://contoso.vault.azure.net",
		"https://contoso.managedhsm.azure.net":          "https://contoso.managedhsm.azure.net",
		"https://contoso-1.vault.azure.cn/":             "https://contoso-1.vault.azure.cn",
		"https://contoso.managedhsm.azure.cn":           "https://contoso.managedhsm.azure.cn",
		"https://contoso.vault.usgovcloudapi.net":       "https://contoso.vault.usgovcloudapi.net",
		"https://contoso.managedhsm.usgovcloudapi.net/": "https://contoso.managedhsm.usgovcloudapi.net",
		"https://practice.vault.keyferry.test":          "https://practice.vault.keyferry.test",
		"http://contoso.vault.azure.net":                "",
		"https://contoso.vault.azure.net:8443":          "",
		"https://contoso.vault.azure.net/keys":          "",
		"https://contoso.vault.azure.net?a=b":           "",
		"https://contoso.vault.azure.net#a":             "",
		"https://user@contoso.vault.azure.net":          "",
		"https://contoso.vault.azure.net.evil.example":  "",
		"https://evil.example/.vault.azure.net":         "",
		"https://a.b.vault.azure.net":                   "",
		"https://vault.azure.net":                       "",
		"https://.vault.azure.net":                      "",
		"https://contosovault.azure.net":                "",
		"https://127.0.0.1":                             "",
		"https://other.vault.keyferry.test":             "",
		"contoso.vault.azure.net":                       "",
		"https://%zz":                                   "",
		"":                                              "",
	} {
		got, err := vault.CleanURL(given)
		if got != want || (want == "") != control.Is(err, control.VaultURL) {
			t.Errorf("%q: got %q, %v; want %q", given, got, err, want)
		}
		if _, err := vault.New(given, nil, nil); (want == "") != control.Is(err, control.VaultURL) {
			t.Errorf("%q: New: %v", given, err)
		}
	}
}
