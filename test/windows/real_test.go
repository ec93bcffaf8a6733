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
	"keyferry/test/testbin"
	"keyferry/test/vectors"
)

// TestRealCeremony is one that is no rehearsal, both sides, with typed secrets: on a
// machine that nothing connects, offline.exe wants no override and brings the key into
// a token of SoftHSM's DLL; online.exe signs in and makes the KEK. Then, where there is a
// PowerShell for Windows, the tenant by it and by the kit, from a folder of any name.
func TestRealCeremony(t *testing.T) {
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		t.Skipf("SoftHSM is not installed (Debian: softhsm2): %v", err)
	}
	testbin.NeedAlone(t)
	m := newMachine(t)
	m.softHSM()
	azure, err := entra.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { azure.Close() })
	m.trust(azure.CA)
	m.env = append(m.env, azure.Environment("")...)
	m.env = append(m.env, "SSL_CERT_FILE=", "SOFTHSM2_CONF=Z:"+filepath.Join(m.dir, "windows.conf"))
	m.write("linux.conf", "directories.tokendir = "+m.dir+"/tokens\n")
	m.write("windows.conf", "directories.tokendir = Z:"+strings.ReplaceAll(m.dir, "/", `\`)+`\tokens`+"\r\n")
	m.write("secret", entra.Secret+"\r\n")
	v := vectors.OneTPD(t, "contoso-mode2")
	const bundle = " stick/keyferry-offline-1.kfb"
	signIn := " --credential client-secret --azure-secret-file secret --azure-tenant " + entra.Tenant + " --azure-client " + entra.Client

	m.done("mkdir stick tokens transfer", "")
	m.done("chmod 755 transfer", "")
	m.done("env SOFTHSM2_CONF="+m.dir+"/linux.conf softhsm2-util --init-token --free --label hsm --pin 123456 --so-pin 123456", "")
	m.asked("Carry on the stick", []keys{{"PIN:", "123456\r"}}, "offline.exe", "init", "--state", "S", "--hsm-module", module, "--hsm-token", "hsm", "--out", "stick")
	m.done("online.exe init --state T --vault-url https://contoso.vault.azure.net --region EU --tenant powershell", "")
	m.done("online.exe kek create --state T --size 2048 --out stick"+signIn, "import only")
	m.done("online.exe trust --state T stick/offline-card-offline.json --fingerprint "+m.sum("stick/offline-card-offline.json"), "Pinned")
	m.done("offline.exe trust --state S stick/BYOK-SecurityWorld-pkg-EU-1 --fingerprint "+m.sum("stick/BYOK-SecurityWorld-pkg-EU-1"), "Pinned")
	kek, err := x509.MarshalPKIXPublicKey(&azure.Key("keyferry-kek").PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	m.asked("Staged in the outbox", []keys{{"reads them from the vault:", fmt.Sprintf("SHA256:%x\r", sha256.Sum256(kek))}, {"protection password:", string(v.Password) + "\r"}, {"PIN:", "123456\r"}},
		"offline.exe", "import", "--state", "S", "--wrap", "software", "--keyless-password", "fresh", "--exchange-key-package", "stick/BYOK-KEK-pkg-EU-1", "--tpd-file-path", "tpd.xml", "--key-identifier", "contoso-slc")
	m.asked("Sealed", []keys{{"PIN:", "123456\r"}}, "offline.exe", "seal", "--state", "S", "--out", "stick")
	m.done("offline.exe status --state S", "contoso-slc")
	m.done("online.exe package --state T --out transfer"+bundle, "")
	m.closed(filepath.Join(m.dir, "transfer", "one_time_password_contoso-slc.txt"))
	oneTime, err := os.ReadFile(filepath.Join(m.dir, "transfer", "one_time_password_contoso-slc.txt"))
	m.must(err)
	password := strings.TrimSpace(string(oneTime))
	t.Run("tenant", func(t *testing.T) { m.T = t; m.tenant(azure, v, password, signIn) })
}

// asked runs a program of Keyferry's at a console, and types.
func (m *machine) asked(says string, person []keys, program string, args ...string) {
	m.Helper()
	cmd := exec.Command(wine, append([]string{filepath.Join(m.bin, program)}, args...)...)
	cmd.Dir = m.dir
	code, shown := m.at(cmd, person...)
	if code != 0 || !strings.Contains(shown, says) || strings.Contains(shown, "Passw0rd!") || strings.Contains(shown, "123456\r") {
		m.Fatalf("%s %q: exit code %d\n%s", program, args, code, shown)
	}
}

// tenant drives it by a PowerShell of Windows', and closes both ledgers.
func (m *machine) tenant(azure *entra.Azure, v vectors.TPD, password, signIn string) {
	t := m.T
	m.powershell()
	module := aipservice.New(t, aipservice.Version)
	m.env = append(m.env, "JUDGE_MODULES=Z:"+strings.ReplaceAll(module.Root, "/", `\`))
	const bundle = " stick/keyferry-offline-1.kfb"
	keyless, err := os.ReadFile(filepath.Join(m.dir, "transfer", "no_key_tpd_contoso-slc.xml"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&v.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	module.Knows(aipservice.TPD{File: keyless, GUID: strings.ToLower(strings.Trim(v.GUID, "{}")), Password: password, PublicKey: public, KeyURL: aipservice.AnyKeyURL})

	// The kit, which nobody tells the ledger of.
	kit := filepath.Join(m.dir, "it's [1] é")
	cmd := exec.Command(wine, filepath.Join(m.bin, "online.exe"), "upload", "--state", "T", "--yes", "--active", "contoso-slc", "--tenant", "kit", "--out", "it's [1] é", "stick/keyferry-offline-1.kfb",
		"--credential", "client-secret", "--azure-secret-file", "secret", "--azure-tenant", entra.Tenant, "--azure-client", entra.Client)
	cmd.Dir, cmd.Env = m.dir, m.env
	if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command(wine, powershellExe, "-NoProfile", "-ExecutionPolicy", "RemoteSigned", "-File", "import-tpds.ps1")
	cmd.Dir, cmd.Env = kit, m.env
	shown, code := aipservice.Typed(t, cmd, "password:", func(string) string { return password })
	if _, err := os.Stat(filepath.Join(kit, "keyferry-result.json")); code != 0 || err != nil || strings.Count(module.Calls(), "activate ") != 1 {
		t.Errorf("the kit ends with %d, %v:\n%s\n%s", code, err, shown, module.Calls())
	}
	module.Forget()

	upload := "online.exe upload --state T --yes --active contoso-slc" + bundle + signIn
	m.done(upload, "active in the tenant")
	m.done(upload, "nothing was changed")
	m.done("online.exe receipt --state T --out stick"+bundle, "Receipt: ")
	m.done("offline.exe receipt --state S stick/keyferry-online-1.kfb", "The ledger is closed")
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
