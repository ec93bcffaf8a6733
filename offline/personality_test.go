// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/module"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/test/vectors"
)

// personality is a token of SoftHSM behind a module that behaves as vendors document
// theirs: testdata/personality.c, which names the sources.
type personality struct {
	*realSide
	module string
	plays  string
	flags  []string // of each command

	officer string // file of the second role's secret; empty: there is none
}

func newPersonality(t *testing.T, plays string, defines ...string) *personality {
	t.Helper()
	p := &personality{realSide: newRealSide(t), plays: plays}
	p.must(os.Mkdir(filepath.Join(p.dir, "tokens"), 0o700))
	p.write("softhsm2.conf", []byte("directories.tokendir = "+filepath.Join(p.dir, "tokens")+"\n"))
	p.softHSMTool("softhsm2-util", "--init-token", "--free", "--label", "hsm", "--pin", "123456", "--so-pin", "123456")
	p.module = filepath.Join(p.dir, "libsofthsm2-personality.so") // the sandbox knows by this name where it writes
	p.tool("gcc", append([]string{"-std=gnu11", "-shared", "-fPIC", "-o", p.module, "testdata/personality.c", "-ldl"}, defines...)...)
	return p
}

func (p *personality) env() []string {
	behind, err := module.Find("")
	p.must(err)
	return append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(p.dir, "softhsm2.conf"), "KEYFERRY_TEST_MODULE="+behind, "KEYFERRY_PERSONALITY="+p.plays)
}

func (p *personality) softHSMTool(name string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = p.env()
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v %s", name, err, out)
	}
	return string(out)
}

// keys lists what the token holds, by SoftHSM itself.
func (p *personality) keys() (keys []string) {
	p.t.Helper()
	behind, err := module.Find("")
	p.must(err)
	out := p.softHSMTool("pkcs11-tool", "--module", behind, "--login", "--pin", "123456", "--list-objects")
	for _, m := range regexp.MustCompile(`(?m)^(\S+) Key Object.*\n(?:\s+EC_.*\n)*\s+label:[ ]*(.*)`).FindAllStringSubmatch(out, -1) {
		keys = append(keys, m[1]+" "+m[2])
	}
	slices.Sort(keys)
	return keys
}

func (p *personality) command(args ...string) *exec.Cmd {
	args = slices.Concat(args, []string{"--state", filepath.Join(p.dir, "state")}, p.flags)
	if p.officer != "" && slices.Contains([]string{"doctor", "init", "import", "wrap", "seal"}, args[0]) {
		args = append(args, "--hsm-so-pin-file", p.officer)
	}
	cmd := exec.Command("offline", args...)
	cmd.Env = p.env()
	return cmd
}

// wants runs a command that must end with code and say all of says.
func (p *personality) wants(code int, says string, args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	out, _ := cmd.CombinedOutput()
	flat := strings.Join(strings.Fields(string(out)), " ") // messages are folded
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(flat, says) {
		p.t.Errorf("%s: offline %s ends with %d, want %d and %q\n%s", p.plays, args[0], got, code, says, out)
	}
	return string(out)
}

// holds compares the token with what was there before and the pairs that came.
func (p *personality) holds(about string, before []string, pairs ...string) {
	p.t.Helper()
	want := slices.Clone(before)
	for _, label := range pairs {
		want = append(want, "Private "+label, "Public "+label)
	}
	slices.Sort(want)
	if got := p.keys(); !slices.Equal(got, want) {
		p.t.Errorf("%s: %s: the token holds %q, want %q", p.plays, about, got, want)
	}
}

func (p *personality) chosen() []string {
	return []string{"--hsm-module", p.module, "--hsm-token", "hsm", "--hsm-pin-file", p.pin}
}

func (p *personality) ready(signer string) {
	p.t.Helper()
	p.wants(0, "", append([]string{"init", "--name", "vault-room", "--signer", signer}, p.chosen()...)...)
	p.wants(0, "", "trust", filepath.Join(p.dir, "BYOK-SecurityWorld-pkg-EU-1"), "--fingerprint", fingerprint.Of(p.world.Package).String())
	p.tool("sh", "-c", `cd "$0" && mkdir fresh && cp -a state tokens fresh`, p.dir)
}

// anew goes back to the state after ready.
func (p *personality) anew() {
	p.t.Helper()
	p.tool("sh", "-c", `cd "$0" && rm -rf state tokens && cp -a fresh/state fresh/tokens .`, p.dir)
}

const (
	playsYubiHSM = "stored-only shows-public copy=0x54 frozen=0x54 no-wrap no-unwrap search=2 search-crash tcp"
	playsNetHSM  = "ignores-token shows-public public-handle printable-id copy=0x1B frozen=0x10 no-wrap no-unwrap officer=0x06 search session-login tcp"
	// Its module since 2.1 takes any CKA_ID for the name of a key.
	playsNetHSM21 = "ignores-token shows-public public-handle id-name copy=0x1B frozen=0x10 no-wrap no-unwrap officer=0x06 search session-login tcp"
)

// plays has a module play on, with what goes with it.
func (p *personality) playing(plays string) {
	p.plays, p.flags, p.officer = plays, nil, ""
	if strings.Contains(plays, "tcp") {
		p.flags = []string{"--unsafe-hsm-network"}
	}
	if strings.Contains(plays, "officer") {
		p.officer = filepath.Join(p.dir, "so")
		p.must(durable.Replace(p.officer, []byte("so-right\n"), 0o600))
	}
}

// TestBehaviours goes from doctor to the seal with a token that has one behaviour of the
// YubiHSM 2 or of the NetHSM: nothing is stored that was not asked for, and each key is
// there once.
func TestBehaviours(t *testing.T) {
	for _, plays := range []string{
		"stored-only", "ignores-token", "shows-public", "stored-only shows-public public-handle", "printable-id", "stored-only id-name", "copy=0x54", "copy=0x1B",
		"frozen=0x54", "no-wrap", "no-unwrap", "stored-only officer", "ignores-token officer=0x06", "search", "search=2", "stored-only search-crash",
		"session-login", "unknown-serial", "vanishing",
	} {
		t.Run(strings.ReplaceAll(plays, "=", " "), func(t *testing.T) { // SoftHSM takes no path with =
			t.Parallel()
			p := newPersonality(t, plays)
			p.playing(plays)
			v := vectors.OneTPD(t, "contoso-mode2")
			p.wants(0, "", append([]string{"doctor"}, p.chosen()...)...)
			p.holds("doctor", nil)
			p.wants(0, "", append([]string{"doctor", "--hsm-try-store"}, p.chosen()...)...)
			p.holds("doctor --hsm-try-store", nil)
			p.ready(ceremony.SignerHSM)
			p.holds("init", nil, ceremony.SignerLabel)
			command := append(p.importOf(v), "--wrap", "software")
			p.wants(0, "", append(command, "--dry-run", "--hsm-try-store")...)
			p.holds("dry run", nil, ceremony.SignerLabel)
			p.wants(0, "", command...)
			p.holds("import", nil, ceremony.SignerLabel, v.Name)
			p.wants(0, "", "seal", "--out", p.dir, "--hsm-pin-file", p.pin)
			p.wants(0, "", "transcript", "verify")
		})
	}
}

// TestLostAnswers has each change of a token that keeps all it is given fail, be done and
// told as failed, and be done twice: the same command then leaves one of each key.
func TestLostAnswers(t *testing.T) {
	for _, vendor := range []struct{ name, plays string }{{"YubiHSM 2", playsYubiHSM}, {"NetHSM", playsNetHSM}, {"NetHSM since 2.1", playsNetHSM21}} {
		t.Run(vendor.name, func(t *testing.T) {
			t.Parallel()
			p := newPersonality(t, vendor.plays)
			p.playing(vendor.plays)
			v := vectors.OneTPD(t, "contoso-mode2")
			p.ready(ceremony.SignerFile)
			begin := append([]string{"init", "--name", "vault-room", "--signer", ceremony.SignerHSM}, p.chosen()...)
			cases, failed := 0, 0
			for _, c := range []struct {
				command []string
				keys    []string
				undo    string
			}{
				{append(p.importOf(v), "--wrap", "software"), []string{v.Name}, ""},
				{begin, []string{ceremony.SignerLabel}, "state"},
				{append([]string{"doctor", "--hsm-try-store"}, p.chosen()...), nil, ""},
			} {
				for i, fault := range []string{"fail=%d", "fail=%d fail-after=1 fail-with=0x06", "fail=%d fail-after=1 fail-with=0x30", "twice=%d", "kill=%d kill-after=1", "fail=%d fail-with=0x31"} {
					first, stride := 1+i%3, 3
					if os.Getenv("KEYFERRY_DEVICE_FAULTS") == "all" {
						first, stride = 1, 1
					}
					for at := first; ; at += stride {
						p.anew()
						if c.undo != "" {
							p.must(os.RemoveAll(filepath.Join(p.dir, c.undo)))
						}
						p.plays = vendor.plays + " " + fmt.Sprintf(fault, at)
						out, err := p.command(c.command...).CombinedOutput()
						p.plays = vendor.plays
						if !bytes.Contains(out, []byte("a change goes wrong")) { // there are no more
							break
						}
						cases++
						about := fmt.Sprintf("%s, "+fault, c.command[0], at)
						if err == nil {
							p.holds(about+" (it was done)", nil, c.keys...)
							continue
						}
						failed++
						if again, err := p.command(c.command...).CombinedOutput(); err != nil {
							t.Errorf("%s: %s: the second run: %v\n%s\nafter\n%s", vendor.name, about, err, again, out)
							continue
						}
						p.holds(about, nil, c.keys...)
					}
				}
			}
			fmt.Fprintf(os.Stderr, "%s: %d changes gone wrong, %d of which failed the run\n", vendor.name, cases, failed)
		})
	}
}

// TestPersonalities has the programs go from doctor to the seal with tokens that
// behave as vendors combine it: a key is imported, and another, that the vendor's tools made
// and named, is wrapped. Runs are killed at changes of the token and taken up.
func TestPersonalities(t *testing.T) {
	for _, vendor := range []struct {
		name, plays, signer string
		network, keeps      bool
		wraps               string // the mechanism; empty: none, as SoftHSM
	}{
		{"Luna", "length-wanted copy=0x68 tcp wrap=0x80000171", ceremony.SignerHSM, true, false, "CKM_AES_KWP (Luna)"},
		{"nShield, a softcard", "copy=0x200 no-exponent accelerator tcp wrap=0x210B", ceremony.SignerHSM, true, false, "CKM_AES_KEY_WRAP_KWP"},
		{"AWS CloudHSM", "private-public length-forbidden copy=0x06 banner once=0x05 bytes-serial tcp wrap=0x1054", ceremony.SignerHSM, true, false, "CKM_RSA_AES_KEY_WRAP"},
		{"YubiHSM 2", playsYubiHSM, ceremony.SignerHSM, true, true, ""},
		{"NetHSM", playsNetHSM, ceremony.SignerHSM, true, true, ""},
		{"NetHSM since 2.1", playsNetHSM21, ceremony.SignerHSM, true, true, ""},
		{"kryoptic", "copy=0x1B no-history wrap=0x210B", ceremony.SignerHSM, false, false, "CKM_AES_KEY_WRAP_KWP"},
		{"SoftHSM with a database", "empty-exponent", ceremony.SignerHSM, false, false, ""},
		{"one session", "sessions=1 logged-in once=0x05 finalize=0x05 no-modulus", ceremony.SignerHSM, false, false, ""},
		{"foreign objects", "foreign no-unwrap-attribute no-public-id", ceremony.SignerFile, false, false, ""},
		{"foreign objects, otherwise", "foreign=0x06 copy=0xD1", ceremony.SignerFile, false, false, ""},
	} {
		t.Run(vendor.name, func(t *testing.T) {
			t.Parallel()
			p := newPersonality(t, vendor.plays)
			if vendor.name == "Luna" {
				p.plays = vendor.plays + " flags=0x80000" // CKF_USER_PIN_TO_BE_CHANGED
				p.wants(3, "change the PIN with the HSM's own tools first: a new partition", append([]string{"doctor", "--unsafe-hsm-network"}, p.chosen()...)...)
				p.plays = vendor.plays
			}
			if vendor.network {
				p.wants(3, "--unsafe-hsm-network", append([]string{"doctor"}, p.chosen()...)...)
				p.flags = append(p.flags, "--unsafe-hsm-network")
			}
			if strings.Contains(vendor.plays, "officer") {
				p.playing(vendor.plays)
			}
			v, w := vectors.OneTPD(t, "contoso-mode2"), vectors.OneTPD(t, "contoso-legacy-kdf")
			behind, err := module.Find("")
			p.must(err)
			beside := func(args ...string) {
				p.softHSMTool("pkcs11-tool", append([]string{"--module", behind, "--login", "--pin", "123456"}, args...)...)
			}
			beside("--keypairgen", "--key-type", "EC:prime256v1", "--label", "foreign")
			if vendor.wraps != "" {
				beside("--write-object", p.write("vendors.der", x509.MarshalPKCS1PrivateKey(w.Key)), "--type", "privkey", "--label", "made by its tools", "--sensitive", "--extractable", "--usage-sign", "--usage-decrypt")
			}
			before := p.keys()
			p.wants(0, "", append([]string{"doctor"}, p.chosen()...)...)
			p.holds("doctor", before)
			if vendor.keeps {
				p.wants(0, "", append([]string{"doctor", "--hsm-try-store"}, p.chosen()...)...)
				p.holds("doctor --hsm-try-store", before)
			}
			p.ready(vendor.signer)
			if vendor.signer == ceremony.SignerHSM {
				before = append(before, "Private "+ceremony.SignerLabel, "Public "+ceremony.SignerLabel)
			}
			p.holds("init", before)

			// killed runs a command that is killed at changes of the token, from the first on, and
			// taken up each time.
			killed := func(anew bool, stride int, want []string, command ...string) (count int) {
				if os.Getenv("KEYFERRY_DEVICE_FAULTS") == "all" {
					stride = 1
				}
				for at := 1; at < 40; at += stride {
					if anew {
						p.anew()
					}
					p.plays = fmt.Sprintf("%s kill=%d kill-after=%d", vendor.plays, at, count%2)
					cmd := p.command(command...)
					err := cmd.Run()
					p.plays = vendor.plays
					if err == nil {
						break
					}
					if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
						t.Fatalf("%s: %s is not killed but ends so: %v", vendor.plays, command[0], err)
					}
					count++
					if anew {
						p.wants(0, "", command...)
						p.holds(fmt.Sprintf("%s, killed at change %d", command[0], at), before, want...)
					}
				}
				p.wants(0, "", command...)
				p.holds(command[0], before, want...)
				if count == 0 {
					t.Errorf("no %s was killed", command[0])
				}
				return count
			}
			expected := expectedKey{"token", vendor.wraps, []string{}, "ecdsa-sha2-nistp256 "}
			command := p.importOf(v)
			if vendor.wraps == "" {
				expected = bySoftware
				command = append(command, "--wrap", "software")
				p.wants(3, "KF-HSM-WRAP-UNPROVEN", append([]string{"wrap"}, p.importOf(v)[1:]...)...)
				p.holds("wrap", before)
			}
			if vendor.signer == ceremony.SignerFile {
				expected.signer = "ssh-ed25519 "
			}
			var open []string // a sandbox that leaves sockets open is on record
			if vendor.network {
				open = []string{"KF-AIRGAP-SANDBOX"}
			}
			expected.warnings = slices.Concat(open, expected.warnings)
			p.wants(0, "Dry run: every check holds, nothing was changed", append(command, "--dry-run")...)
			p.holds("dry run", before)
			stride := 7
			if vendor.keeps {
				stride = 1
			}
			imports := killed(true, stride, []string{v.Name}, command...)
			p.wants(0, "", "seal", "--out", p.dir, "--hsm-pin-file", p.pin)
			taken := p.checkBundle(filepath.Join(p.dir, "keyferry-vault-room-1.kfb"), v, expected)

			wraps := 0
			if vendor.wraps != "" {
				command = append([]string{"wrap"}, p.importOf(w)[1:]...)
				if out := p.wants(1, "the token has this very key under another name: give --hsm-label \"made by its tools\"", command...); strings.Contains(out, "--hsm-key-id") {
					t.Errorf("a CKA_ID that the key has not is told:\n%s", out)
				}
				command = append(command, "--hsm-label", "made by its tools")
				p.wants(0, "Dry run: every check holds, nothing was changed", append(command, "--dry-run")...)
				wraps = killed(false, 6, []string{v.Name}, command...)
				if out := p.softHSMTool("pkcs11-tool", "--module", behind, "--login", "--pin", "123456", "--list-objects", "--type", "privkey"); !regexp.MustCompile(`made by its tools\n.*\n +Access: +sensitive\n`).MatchString(out) {
					t.Errorf("the wrapped key is extractable still:\n%s", out)
				}
				p.wants(0, "", "seal", "--out", p.dir, "--hsm-pin-file", p.pin)
				expected.warnings = append(open, "KF-TPD-LEGACY-KDF")
				p.checkBundle(filepath.Join(p.dir, "keyferry-vault-room-2.kfb"), w, expected, taken)
			}
			fmt.Fprintf(os.Stderr, "%s: %d imports and %d wraps killed and taken up\n", vendor.name, imports, wraps)
			p.wants(0, "", "transcript", "verify")
		})
	}
}

// TestThrowAwayKeys kills a trial by leave at each change that it makes to a token that
// keeps all it is given: the next command that logs in removes what is left of it.
func TestThrowAwayKeys(t *testing.T) {
	p := newPersonality(t, playsYubiHSM)
	p.flags = []string{"--unsafe-hsm-network"}
	doctor := append([]string{"doctor"}, p.chosen()...)
	killed, left := 0, 0
	for at := 1; at < 20; at++ {
		p.plays = fmt.Sprintf("%s kill=%d kill-after=%d", playsYubiHSM, at, at%2)
		err := p.command(append(doctor, "--hsm-try-store")...).Run()
		p.plays = playsYubiHSM
		if err == nil {
			break
		}
		killed++
		if len(p.keys()) > 0 {
			left++
		}
		p.wants(0, "", doctor...)
		p.holds(fmt.Sprintf("doctor after one that was killed at change %d", at), nil)
	}
	if killed == 0 || left == 0 {
		t.Errorf("%d runs were killed, %d of them with keys left", killed, left)
	}
}

// TestP11Kit goes to the seal by p11-kit's proxy and by its client, where each
// C_GetFunctionList is an instance of its own: one context serves keys and signatures.
func TestP11Kit(t *testing.T) {
	find := func(pattern string) string {
		found, _ := filepath.Glob(pattern)
		if found == nil {
			t.Skip("P11-KIT IS NOT TESTED: it comes with Debian's packages p11-kit and p11-kit-modules")
		}
		return found[0]
	}
	proxy, client := find("/usr/lib/*/p11-kit-proxy.so"), find("/usr/lib/*/pkcs11/p11-kit-client.so")
	for _, path := range []string{proxy, client} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			r := newRealSide(t)
			r.softHSM()
			if path == client {
				behind, err := module.Find("")
				r.must(err)
				address := filepath.Join(r.dir, "p11-kit")
				server := exec.Command("p11-kit", "server", "--foreground", "--name", address, "--provider", behind, "pkcs11:token=hsm")
				r.must(server.Start())
				t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
				t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+address)
				for range 100 {
					if _, err = os.Stat(address); err == nil {
						break
					}
					time.Sleep(50 * time.Millisecond)
				}
				r.must(err)
			}
			v := vectors.OneTPD(t, "contoso-mode2")
			chosen := []string{"--hsm-module", path, "--hsm-token", "hsm", "--hsm-writes", filepath.Join(r.dir, "tokens"), "--hsm-pin-file", r.pin}
			r.run(0, append([]string{"doctor"}, chosen...)...)
			r.run(0, append([]string{"init", "--name", "vault-room"}, chosen...)...)
			r.run(0, "trust", filepath.Join(r.dir, "BYOK-SecurityWorld-pkg-EU-1"), "--fingerprint", fingerprint.Of(r.world.Package).String())
			r.run(0, append(r.importOf(v), "--wrap", "software")...)
			sealed := r.run(0, "seal", "--out", r.dir, "--hsm-pin-file", r.pin)
			r.checkBundle(sealed["bundle"].(string), v, bySoftware)
		})
	}
}

// TestModuleOnlySlot holds that a slot without a login that holds no private objects, as
// nShield's accelerator slot is, takes no key in and is told so, with nothing left in it.
func TestModuleOnlySlot(t *testing.T) {
	p := newPersonality(t, "module-only tcp")
	p.flags = []string{"--unsafe-hsm-network"}
	chosen := p.chosen()[:4]
	p.wants(3, "KF-HSM-IMPORT", append([]string{"doctor"}, chosen...)...)
	p.wants(3, "choose the slot of a softcard", append([]string{"doctor"}, chosen...)...)
	p.wants(3, "KF-HSM-PIN", append([]string{"doctor"}, p.chosen()...)...) // C_Login always fails there
	p.holds("doctor", nil)
}

// kekOf makes the KEK of a rehearsal and returns its fingerprint, as a second person
// reads it from the vault.
func (r *realSide) kekOf(online, out string) string {
	r.t.Helper()
	text, err := exec.Command("online", "kek", "create", "--size", "3072", "--out", out, "--state", online, "--json").Output()
	r.must(err)
	var doc struct {
		KEK string `json:"kek_fingerprint"`
	}
	r.must(json.Unmarshal(text, &doc))
	return doc.KEK
}

// TestDressRehearsal goes a rehearsal in a token that is not its own: the real refusals and
// prompts are played, the receipt closes the ledger, and what was stored is cleaned away.
func TestDressRehearsal(t *testing.T) {
	p := newPersonality(t, "")
	online := func(args ...string) {
		t.Helper()
		p.tool("online", append(args, "--state", filepath.Join(p.dir, "online"))...)
	}
	pins := func(name string) []string {
		data, err := os.ReadFile(filepath.Join(p.dir, name))
		p.must(err)
		return []string{filepath.Join(p.dir, name), "--fingerprint", fingerprint.Of(data).String()}
	}
	before := p.keys()
	chosen := p.chosen()
	p.wants(3, "KF-RUN-TERMINAL", append([]string{"init", "--rehearsal"}, chosen[:4]...)...) // the PIN is asked for
	p.holds("init without a PIN", before)
	p.wants(0, "", append([]string{"init", "--rehearsal", "--out", p.dir}, chosen...)...)
	online("init", "--rehearsal")
	kek := p.kekOf(filepath.Join(p.dir, "online"), p.dir)
	online(append([]string{"trust"}, pins("offline-card-offline.json")...)...)
	p.wants(0, "", append([]string{"trust"}, pins("BYOK-SecurityWorld-pkg-NA-1")...)...)
	v := vectors.OneTPD(t, "contoso-mode2")
	password := p.write("password", append(bytes.Clone(v.Password), '\n'))
	carry := []string{"import", "--tpd-file-path", p.write("tpd.xml", v.XML), "--key-identifier", "contoso", "--protection-password-file", password,
		"--exchange-key-package", filepath.Join(p.dir, "BYOK-KEK-pkg-NA-1"), "--kek-fingerprint", kek, "--hsm-pin-file", p.pin}
	p.wants(3, "KF-HSM-WRAP-UNPROVEN", carry...) // as a real ceremony is
	p.wants(0, "", append(carry, "--wrap", "software", "--out", p.dir)...)
	bundle := filepath.Join(p.dir, "keyferry-offline-1.kfb")
	online("upload", bundle, "--active", "contoso", "--protection-password-file", password)
	online("receipt", bundle, "--out", p.dir)
	p.wants(0, "", "receipt", filepath.Join(p.dir, "keyferry-online-1.kfb"))
	p.holds("rehearsal", before, "contoso", ceremony.SignerLabel)
	p.wants(0, "a private key labelled \"contoso\"", "rehearsal", "clean", "--keep", "--hsm-pin-file", p.pin)
	p.wants(3, "KF-RUN-TERMINAL", "rehearsal", "clean", "--hsm-pin-file", p.pin)
	p.holds("rehearsal clean without an answer", before, "contoso", ceremony.SignerLabel)
	p.wants(0, "Removed", "rehearsal", "clean", "--yes", "--hsm-pin-file", p.pin)
	p.holds("rehearsal clean", before)
	p.wants(0, "there is nothing of this rehearsal", "rehearsal", "clean", "--yes", "--hsm-pin-file", p.pin)
	p.wants(0, "", "transcript", "verify")
}

// TestPlainRefusals has each documented refusal told in its own sentence, with what to do.
func TestPlainRefusals(t *testing.T) {
	p := newPersonality(t, "")
	doctor := append([]string{"doctor"}, p.chosen()...)
	for _, test := range []struct{ plays, control, says string }{
		{"login=0xA3", "KF-HSM-PIN", "says that its user PIN has expired"},
		{"login=0x102", "KF-HSM-PIN", "has no user PIN yet"},
		{"login=0xA4", "KF-HSM-PIN-LOCKED", "has locked it"},
		{"login=0xA2", "KF-HSM-PIN", "takes no PIN of this form, and tried none"},
		{"login=0x103", "KF-HSM-PIN", "was tried once"},
		{"flags=0x80000", "KF-HSM-PIN", "wants its user PIN to be changed before it is used; none was tried"},
		{"flags=0x40000", "KF-HSM-PIN-LOCKED", "none was tried"},
		{"login=0xB1", "KF-HSM-CALL", "wait half a minute"},
		{"login=0x07", "KF-HSM-PIN", "takes no PIN of this form, and tried none"},
		{"login=0x82", "KF-HSM-PIN", "and tried none"},
		{"mute", "KF-HSM-NO-TOKEN", "does not reach its HSM"},
		{"list=0x30", "KF-HSM-MODULE", "its C_GetFunctionList fails with 0x30"},
		{"no-list", "KF-HSM-MODULE", "its C_GetFunctionList gives no functions"},
		{"no-function=60", "KF-HSM-MODULE", "its list of functions has no C_WrapKey"},
		{"tcp", "KF-HSM-MODULE", "--unsafe-hsm-network"},
	} {
		p.plays = test.plays
		if out := p.wants(3, test.says, doctor...); !strings.Contains(out, "["+test.control+"]") {
			t.Errorf("%s is not told as %s:\n%s", test.plays, test.control, out)
		}
	}
	p.plays = "bytes-label"
	p.wants(3, "is not UTF-8", "init", "--name", "vault-room", "--hsm-module", p.module, "--hsm-uri", "pkcs11:model=SoftHSM%20v2", "--hsm-pin-file", p.pin)
	if _, err := os.Stat(filepath.Join(p.dir, "state")); err == nil {
		t.Error("init left a state directory")
	}
	for what, says := range map[string]string{"text": "the system's loader says", "-DNO_MODULE": "it has no C_GetFunctionList", "-DONLY_VERSION_3": "C_GetInterface of PKCS#11 3 alone", "-l:nowhere": "nowhere"} {
		path := filepath.Join(p.dir, "module"+what+".so")
		switch what {
		case "text":
			p.must(os.WriteFile(path, []byte("no library\n"), 0o600))
		case "-l:nowhere":
			p.tool("sh", "-c", `cd "$0" && echo 'int nowhere;' | gcc -shared -x c -o libnowhere.so - && echo 'int a;' | gcc -shared -x c -o "$1" - -Wl,--no-as-needed -L. -lnowhere && rm libnowhere.so`, p.dir, path)
		default:
			p.tool("gcc", "-std=gnu11", "-shared", "-fPIC", "-o", path, "testdata/personality.c", "-ldl", what)
		}
		p.wants(3, says, "doctor", "--hsm-module", path, "--hsm-token", "hsm", "--hsm-pin-file", p.pin)
	}
}

// TestTold has what a token does otherwise told, by doctor and before a ceremony: what it
// goes without, and what it can't go without.
func TestTold(t *testing.T) {
	p := newPersonality(t, "")
	p.plays = "foreign"
	behind, err := module.Find("")
	p.must(err)
	p.softHSMTool("pkcs11-tool", "--module", behind, "--login", "--pin", "123456", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "foreign")
	before := p.keys()
	doctor := append([]string{"doctor"}, p.chosen()...)
	p.wants(0, "nameless 2 keys tell neither label nor CKA_ID, so that none is in the way: handle 0x", doctor...)
	for _, test := range []struct {
		plays, says string
		code        int
		flags       []string
	}{
		{"flags=0x10000", "tells: a wrong PIN was given since the last right one", 0, nil},
		{"flags=0x20000", "tells: one more wrong PIN locks it", 0, nil},
		{"finalize=0x05", "did not end in order; what was done in the HSM is done: pkcs11: 0x5: CKR_GENERAL_ERROR", 0, nil},
		{"copy=0x05", "the token does not copy a key (pkcs11: 0x5: CKR_GENERAL_ERROR), so that it comes in once more", 0, nil},
		{"copy=0x6A", "the token does not copy a key (pkcs11: 0x6A: CKR_KEY_UNEXTRACTABLE), so that it comes in once more", 0, []string{"--hsm-try-store"}},
		{"copy=0x80000001", "the token does not copy a key (pkcs11: 0x80000001", 0, nil},
		{"no-unwrap-attribute", "unwrap others too (CKA_UNWRAP)", 0, nil},
		{"no-store=0x31", "exact storing", 0, nil},
		{"no-store=0x31", "could not store it: the token failed to store the private key: pkcs11: 0x31: CKR_DEVICE_MEMORY", 3, []string{"--hsm-try-store"}},
		{"no-store=0x31", "hint: the HSM's storage is full", 3, []string{"--hsm-try-store"}},
		{"no-way=0x68", "pkcs11: 0x68: CKR_KEY_FUNCTION_NOT_PERMITTED: offline: error: CKM_RSA_AES_KEY_WRAP", 3, nil},
		{"no-way=0x68", "allow the import of private keys in the HSM's security policy where that forbids it", 3, nil},
		{"no-way=0x30", "or the sandbox stands in the way", 3, nil},
		{"call=0xA3", "hint: change the PIN with the HSM's own tools first", 3, nil},
	} {
		p.plays = test.plays
		p.wants(test.code, test.says, append(doctor, test.flags...)...)
		p.holds("doctor", before)
	}

	p.plays = ""
	p.ready(ceremony.SignerFile)
	command := p.importOf(vectors.OneTPD(t, "contoso-mode2"))
	p.wants(3, "by no mechanism as the vault asks: offline: error: pkcs11: 0x70: CKR_MECHANISM_INVALID: offline: error: CKM_RSA_AES_KEY_WRAP offline: error: CKM_AES_KEY_WRAP_KWP", command...)
	dry := append(command, "--wrap", "software", "--dry-run")
	p.wants(0, "the throw-away key came in, was named, signed, decrypted, and is gone", append(dry, "--hsm-try-store")...)
	p.plays = "no-store=0xD1"
	p.wants(0, "Dry run: every check holds", dry...)
	p.wants(3, "failed to store the private key: pkcs11: 0xD1", append(dry, "--hsm-try-store")...)
	p.holds("dry run", before)
}

// TestOutsideSandbox has a module fail for what the sandbox forbids, when it begins, when
// its tokens are listed and when it is used: the hint has the flags that are not given yet,
// and doctor's trial names what is opened, be it for a moment, and the flag for it.
func TestOutsideSandbox(t *testing.T) {
	listener, err := net.Listen("unix", "@keyferry-daemon")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := newPersonality(t, "")
	logs := t.TempDir()
	log, known := filepath.Join(logs, "log"), filepath.Join(logs, "known")
	p.must(os.WriteFile(known, nil, 0o600))
	doctor := append([]string{"doctor"}, p.chosen()...)
	trial := append(doctor, "--hsm-outside-sandbox")
	for _, test := range []struct {
		plays, log, says string
		flags            []string
	}{
		{"tcp", "", "a connection to 127.0.0.1, port 9000: --unsafe-hsm-network", []string{"--unsafe-hsm-network"}},
		{"netlink at-slots", "", "a netlink socket, as modules for USB have it: --unsafe-hsm-network", []string{"--unsafe-hsm-network"}},
		{"abstract", "", "the abstract unix socket @keyferry-daemon: --hsm-abstract-sockets", []string{"--hsm-abstract-sockets"}},
		{"log", known, known + ", to write: --hsm-writes " + known, []string{"--hsm-writes", known}},
		{"log at-slots", log, log + ", to write: --hsm-writes " + logs, []string{"--hsm-writes", logs}},
		{"shm", "", "/dev/shm/keyferry-test-", []string{"--hsm-writes", "/dev/shm"}},
		{"device at-slots", "", "/dev/full, to write: --hsm-writes /dev/full", []string{"--hsm-writes", "/dev/full"}},
		{"tcp shm device log", known, "so give --hsm-writes /dev/full:/dev/shm:" + known + " --unsafe-hsm-network", []string{"--unsafe-hsm-network", "--hsm-writes", "/dev/full:/dev/shm:" + known}},
	} {
		t.Setenv("KEYFERRY_TEST_LOG", test.log)
		p.plays = test.plays
		if out := p.wants(3, "the sandbox stands in the way", doctor...); !strings.Contains(out, test.flags[0]) {
			t.Errorf("%s: %s is not told:\n%s", test.plays, test.flags[0], out)
		}
		_ = os.Remove(log)
		out := p.wants(3, test.says, trial...)
		if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, `outside of the sandbox the module shows the token "hsm"`) || !strings.Contains(flat, "so give "+strings.Join(test.flags, " ")) && len(test.flags) < 3 {
			t.Errorf("%s: token and flags are not told:\n%s", test.plays, out)
		}
		if out := p.wants(0, "", append(trial, test.flags...)...); strings.Contains(out, "so give") {
			t.Errorf("%s: what is allowed is said to be forbidden:\n%s", test.plays, out)
		}
	}

	// A flag that is given is not told again, the others are.
	t.Setenv("KEYFERRY_TEST_LOG", known)
	p.plays = "tcp log"
	if out := p.wants(3, "(--hsm-writes with each", append(doctor, "--unsafe-hsm-network")...); strings.Contains(out, "(--unsafe-hsm-network)") {
		t.Errorf("a flag that was given is told:\n%s", out)
	}
	// What fails only once a key is made has the hint, too.
	p.plays = "tcp at-use"
	p.wants(3, "(--unsafe-hsm-network)", doctor...)

	p.plays = "list=0x30"
	p.wants(3, "outside of the sandbox it is the same, so that the sandbox is not in the way", trial...)
}

// TestModulePrints holds that a module that prints spoils no JSON document.
func TestModulePrints(t *testing.T) {
	p := newPersonality(t, "banner")
	for _, args := range [][]string{{"doctor", "--json"}, {"doctor", "--json", "--hsm-outside-sandbox"}} {
		cmd := p.command(append(args, p.chosen()...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		p.must(cmd.Run())
		if !json.Valid(stdout.Bytes()) {
			t.Errorf("%q: no JSON document: %s", args, stdout.String())
		}
		if !strings.Contains(stderr.String(), "HSM client 5.9") {
			t.Errorf("%q: the module's words are lost: %s", args, stderr.String())
		}
	}
}

// TestDeviceHangs holds that a person is told of a device that does not answer, and
// that the first interrupt is answered.
func TestDeviceHangs(t *testing.T) {
	p := newPersonality(t, "hang=9")
	cmd := p.command(append([]string{"doctor"}, p.chosen()...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p.must(cmd.Start())
	time.AfterFunc(6500*time.Millisecond, func() { _ = cmd.Process.Signal(os.Interrupt) })
	_ = cmd.Wait()
	flat := strings.Join(strings.Fields(out.String()), " ")
	for _, says := range []string{"waiting for the HSM since 5 s, to log in", "interrupted: the run stops when the HSM has answered"} {
		if !strings.Contains(flat, says) {
			t.Errorf("does not say %q:\n%s", says, out.String())
		}
	}
	if code := cmd.ProcessState.ExitCode(); code != 4 {
		t.Errorf("ends with %d", code)
	}
}
