// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/test/aipservice"
	"keyferry/test/entra"
	"keyferry/test/judges"
	"keyferry/test/scripttest"
	"keyferry/test/vectors"
)

// TestRealCeremony: online.exe signs in, makes the KEK, uploads and seals the receipt in
// a ceremony that is no rehearsal, with the tenant by a real PowerShell where Windows
// has its own; and the kit runs there, with a typed password, from a folder of any name.
func TestRealCeremony(t *testing.T) {
	if _, err := os.Stat(scripttest.Module); err != nil {
		t.Skipf("SoftHSM is not installed (Debian: softhsm2): %v", err)
	}
	placed := judges.Find(t, "wine-powershell")
	module := aipservice.New(t, aipservice.Version)
	m := newMachine(t)
	if out, err := exec.Command(placed, filepath.Join(m.bin, "prefix")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	azure, err := entra.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { azure.Close() })
	m.trust(azure.CA)
	m.env = append(m.env, azure.Environment("")...)
	m.env = append(m.env, "SSL_CERT_FILE=", "DOTNET_EnableWriteXorExecute=0", "WINEDLLOVERRIDES=mshtml=", "JUDGE_MODULES=Z:"+strings.ReplaceAll(module.Root, "/", `\`), "SOFTHSM2_CONF="+filepath.Join(m.dir, "softhsm2.conf"))
	m.write("softhsm2.conf", "directories.tokendir = "+m.dir+"/tokens\n")
	m.write("pin", "123456\n")
	m.write("secret", entra.Secret+"\r\n")
	v := vectors.OneTPD(t, "contoso-mode2")
	const bundle = " stick/keyferry-offline-1.kfb"
	signIn := " --credential client-secret --azure-secret-file secret --azure-tenant " + entra.Tenant + " --azure-client " + entra.Client

	m.done("mkdir stick tokens", "")
	m.done("softhsm2-util --init-token --free --label hsm --pin 123456 --so-pin 123456", "")
	m.done("offline init --state S --hsm-module "+scripttest.Module+" --hsm-token hsm --hsm-pin-file pin --out stick", "")
	m.done("online.exe init --state T --vault-url https://contoso.vault.azure.net --region EU --tenant powershell", "")
	m.done("online.exe kek create --state T --size 2048 --out stick"+signIn, "import only")
	m.done("online.exe trust --state T stick/offline-card-offline.json --fingerprint "+m.sum("stick/offline-card-offline.json"), "Pinned")
	m.done("offline trust --state S stick/BYOK-SecurityWorld-pkg-EU-1 --fingerprint "+m.sum("stick/BYOK-SecurityWorld-pkg-EU-1"), "Pinned")
	kek, err := x509.MarshalPKIXPublicKey(&azure.Key("keyferry-kek").PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	m.done("offline import --state S --hsm-pin-file pin --wrap software --unsafe-network-present --exchange-key-package stick/BYOK-KEK-pkg-EU-1 --out stick --tpd-file-path tpd.xml"+
		" --key-identifier contoso-slc --protection-password-file pw --kek-fingerprint "+fmt.Sprintf("SHA256:%x", sha256.Sum256(kek)), "")
	m.done("online.exe package --state T --out transfer"+bundle, "")
	keyless, err := os.ReadFile(filepath.Join(m.dir, "transfer", "no_key_tpd_contoso-slc.xml"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&v.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	module.Knows(aipservice.TPD{File: keyless, GUID: strings.ToLower(strings.Trim(v.GUID, "{}")), Password: string(v.Password), PublicKey: public, KeyURL: aipservice.AnyKeyURL})

	// The kit, which nobody tells the ledger of.
	kit := filepath.Join(m.dir, "it's [1] é")
	cmd := exec.Command(wine, filepath.Join(m.bin, "online.exe"), "upload", "--state", "T", "--yes", "--active", "contoso-slc", "--protection-password-file", "pw", "--tenant", "kit", "--out", "it's [1] é", "stick/keyferry-offline-1.kfb",
		"--credential", "client-secret", "--azure-secret-file", "secret", "--azure-tenant", entra.Tenant, "--azure-client", entra.Client)
	cmd.Dir, cmd.Env = m.dir, m.env
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command(wine, `C:\windows\system32\WindowsPowerShell\v1.0\powershell.exe`, "-NoProfile", "-ExecutionPolicy", "RemoteSigned", "-File", "import-tpds.ps1")
	cmd.Dir, cmd.Env = kit, append(m.env, "TERM=xterm")
	shown, code := aipservice.Typed(t, cmd, "password:", func(string) string { return string(v.Password) })
	if _, err := os.Stat(filepath.Join(kit, "keyferry-result.json")); code != 0 || err != nil || strings.Count(module.Calls(), "activate ") != 1 {
		t.Errorf("the kit ends with %d, %v:\n%s\n%s", code, err, shown, module.Calls())
	}
	module.Forget()

	upload := "online.exe upload --state T --yes --active contoso-slc --protection-password-file pw" + bundle + signIn
	m.done(upload, "active in the tenant")
	m.done(upload, "nothing was changed")
	m.done("online.exe receipt --state T --out stick"+bundle, "Receipt: ")
	m.done("offline receipt --state S stick/keyferry-online-1.kfb", "")
	if ids := azure.Versions("contoso-slc"); len(ids) != 1 || !azure.Key("contoso-slc").Equal(v.Key) || strings.Count(module.Calls(), "import ") != 1 {
		t.Errorf("the vault has %q; calls:\n%s", ids, module.Calls())
	}
}

func (m *machine) sum(name string) string {
	m.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.Fatal(err)
	}
	return fmt.Sprintf("SHA256:%x", sha256.Sum256(data))
}

// trust puts a CA into this Windows' trusted roots, as certutil would: into the
// registry, as a serialised certificate.
func (m *machine) trust(ca []byte) {
	m.Helper()
	block, _ := pem.Decode(ca)
	blob := binary.LittleEndian.AppendUint32(nil, 32) // CERT_CERT_PROP_ID
	blob = binary.LittleEndian.AppendUint32(blob, 1)
	blob = binary.LittleEndian.AppendUint32(blob, uint32(len(block.Bytes)))
	blob = append(blob, block.Bytes...)
	key := fmt.Sprintf(`HKLM\Software\Microsoft\SystemCertificates\Root\Certificates\%X`, sha1.Sum(block.Bytes))
	m.local(wine, "reg", "add", key, "/v", "Blob", "/t", "REG_BINARY", "/d", fmt.Sprintf("%x", blob), "/f")
}
