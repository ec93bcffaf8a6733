// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
)

// How each token of the suite is brought up. A function returns how to open
// the token and what is laid over it; nothing when the test ran in a process
// of its own.

func asItIs(ck cryptoki) cryptoki { return ck }

// cannotHave skips aloud.
func cannotHave(t *testing.T, packages string, why error) {
	t.Helper()
	t.Skipf("THIS TOKEN IS NOT TESTED: %v. It comes with Debian's packages %s", why, packages)
}

// lacking returns what of the files and programs is not there.
func lacking(files ...string) error {
	for _, f := range files {
		var err error
		if filepath.IsAbs(f) {
			_, err = os.Stat(f)
		} else {
			_, err = exec.LookPath(f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func softHSMToken(t *testing.T, _ string) (module.Choice, func(cryptoki) cryptoki) {
	path, _ := softHSM(t, t.TempDir())
	if err := module.MakeSoftHSMToken(path, testLabel, testPIN, testSOPIN); err != nil {
		t.Fatal(err)
	}
	return module.Choice{Module: path, TokenLabel: testLabel}, asItIs
}

// exactFake lays over SoftHSM 2.6.1 the one-step wrap of later versions.
func exactFake(t *testing.T, _ string) (module.Choice, func(cryptoki) cryptoki) {
	cfg, _ := softHSMToken(t, "")
	return cfg, func(ck cryptoki) cryptoki {
		return &fake{cryptoki: ck, wrapKey: func(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, kek, key pkcs11.ObjectHandle) ([]byte, error) {
			if m[0].Mechanism != rsaAES.id {
				return ck.WrapKey(s, m, kek, key)
			}
			token := &Token{ck: ck, session: s}
			public, err := token.PublicKey(kek)
			if err != nil {
				return nil, err
			}
			private, err := token.read(key)
			if err != nil {
				return nil, err
			}
			return byok.Wrap(rand.Reader, private, public)
		}}
	}
}

// read takes an extractable key out of SoftHSM.
func (t *Token) read(h pkcs11.ObjectHandle) (*rsa.PrivateKey, error) {
	secret := make([]byte, 32)
	aes, err := t.ck.CreateObject(t.session, template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_VALUE, secret),
	})
	if err != nil {
		return nil, err
	}
	defer t.destroy(aes, &err)
	wrapped, err := t.ck.WrapKey(t.session, aesPad.call(), aes, h)
	if err != nil {
		return nil, err
	}
	kwp, err := subtle.NewKWP(secret)
	if err != nil {
		return nil, err
	}
	der, err := kwp.Unwrap(wrapped)
	if err != nil {
		return nil, err
	}
	length := 4 + int(der[2])<<8 + int(der[3]) // of a SEQUENCE of 256 to 65,535 bytes
	return byok.ParsePKCS8(der[:length])
}

func nssToken(t *testing.T, packages string) (module.Choice, func(cryptoki) cryptoki) {
	const path = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"
	if err := lacking(path, "certutil"); err != nil {
		cannotHave(t, packages, err)
	}
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, testPIN, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "certutil", "-N", "-d", "sql:"+dir, "-f", pin)
	return module.Choice{
		Module: path, TokenLabel: "NSS Certificate DB",
		Parameters: fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags=''", dir),
	}, asItIs
}

// opencryptokiToken brings up the soft token. It keeps state in /var/lib and in
// shared memory, so all is done in namespaces of its own.
func opencryptokiToken(t *testing.T, packages string) (module.Choice, func(cryptoki) cryptoki) {
	const path = "/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so"
	if err := lacking(path, "/usr/sbin/pkcsslotd", "pkcsconf", "unshare"); err != nil {
		cannotHave(t, packages, err)
	}
	if err := exec.Command("unshare", "-m", "-i", "-p", "-f", "--mount-proc", "true").Run(); err != nil {
		cannotHave(t, packages, fmt.Errorf("namespaces of its own need root: unshare: %w", err))
	}
	if !inside(t, "unshare", "-m", "-i", "-p", "-f", "--mount-proc") {
		return module.Choice{}, nil
	}
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("version opencryptoki-3.1\nslot 3\n{\nstdll = libpkcs11_sw.so\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, []byte(`set -e
for dir in /var/lib/opencryptoki /dev/shm /run/lock; do mount -t tmpfs tmpfs $dir; done
mkdir -p /var/lib/opencryptoki/swtok/TOK_OBJ /run/lock/opencryptoki/swtok
chgrp -R pkcs11 /var/lib/opencryptoki /run/lock/opencryptoki
chmod -R 770 /var/lib/opencryptoki /run/lock/opencryptoki
mount --bind "$1" /etc/opencryptoki/opencryptoki.conf
pkcsslotd
printf '87654321\nkeyferry\n' | pkcsconf -I -c 3 || test $? = 1
pkcsconf -P -c 3 -S 87654321 -n 27182818
pkcsconf -u -c 3 -S 27182818 -n 31415926
`), "sh", "-s", conf)
	return module.Choice{Module: path, TokenLabel: "keyferry"}, asItIs
}

// tpm2Token brings up a TPM in software, and a token in it.
func tpm2Token(t *testing.T, packages string) (module.Choice, func(cryptoki) cryptoki) {
	const path = "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so"
	const library = "/usr/lib/x86_64-linux-gnu/libtss2-tcti-"
	if err := lacking(path, library+"swtpm.so.0", library+"tabrmd.so.0", "swtpm", "tpm2-abrmd", "tpm2_getrandom", "tpm2_ptool", "dbus-run-session"); err != nil {
		cannotHave(t, packages, err)
	}
	if !inside(t, "dbus-run-session", "--") {
		return module.Choice{}, nil
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	background(t, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear",
		"--ctrl", "type=unixio,path="+socket+".ctrl", "--server", "type=unixio,path="+socket)
	await(t, func() error { _, err := os.Stat(socket + ".ctrl"); return err })
	background(t, "tpm2-abrmd", "--session", "--allow-root", "--tcti=swtpm:path="+socket)
	for _, name := range []string{"TPM2_PKCS11_TCTI", "TPM2TOOLS_TCTI", "TCTI"} {
		t.Setenv(name, "tabrmd:bus_type=session")
	}
	t.Setenv("TPM2_PKCS11_STORE", dir)
	t.Setenv("TPM2_PKCS11_LOG_LEVEL", "0")
	await(t, func() error { return exec.Command("tpm2_getrandom", "--hex", "1").Run() })
	run(t, nil, "tpm2_ptool", "init", "--path", dir)
	run(t, nil, "tpm2_ptool", "addtoken", "--pid", "1", "--sopin", string(testSOPIN), "--userpin", string(testPIN), "--label", "keyferry", "--path", dir)
	return module.Choice{Module: path, TokenLabel: "keyferry"}, asItIs
}

// insideMark is the environment variable that names the test that runs inside a wrapper.
const insideMark = "KEYFERRY_TEST_INSIDE"

// inside reports whether the test runs inside the wrapper; if not, it runs
// itself there and reports what comes of it.
func inside(t *testing.T, wrapper ...string) bool {
	t.Helper()
	if os.Getenv(insideMark) == t.Name() {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(wrapper[0], append(wrapper[1:], self, "-test.run", pattern, "-test.v", "-test.count=1")...)
	cmd.Env = append(os.Environ(), insideMark+"="+t.Name())
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("inside %s: %v\n%s", wrapper[0], err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()+"/signer "):
		t.Errorf("inside %s the suite was not run to its end:\n%s", wrapper[0], out)
	}
	return false
}

// run runs a program to its end.
func run(t *testing.T, stdin []byte, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(string(stdin))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// background starts a program that runs until the test ends.
func background(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed, as just asked
	})
}

// await waits until something can be done.
func await(t *testing.T, try func() error) {
	t.Helper()
	var err error
	for range 100 {
		if err = try(); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal(err)
}
