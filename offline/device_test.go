// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/fingerprint"
	"keyferry/test/judges"
	"keyferry/test/vectors"
)

// device is a vendor's own PKCS#11 module before a simulated device.
type device struct {
	*realSide
	kind, address string
	env           []string // what the module needs
	log           string   // of the requests
	kek           string   // of a rehearsal, its fingerprint
}

// startDevice starts a device that is there until the test ends.
func startDevice(t *testing.T, kind string, knobs ...string) *device {
	t.Helper()
	judge := judges.Find(t, "hsm-device")
	d := &device{realSide: newRealSide(t), kind: kind}
	there := filepath.Join(d.dir, "device-environment")
	cmd := exec.Command(judge, append(append([]string{kind}, knobs...), "sh", "-c", `env >"$0.part" && mv "$0.part" "$0" && cat`, there)...)
	stdin, err := cmd.StdinPipe() // it ends when this is closed
	d.must(err)
	cmd.Stderr = os.Stderr
	d.must(cmd.Start())
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	var text []byte
	for range 600 {
		if text, err = os.ReadFile(there); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.must(err)
	d.env = strings.Split(strings.TrimSpace(string(text)), "\n")
	d.address = d.value("HSM_DEVICE")
	pin, err := os.ReadFile(d.value("HSM_PIN"))
	d.must(err)
	d.pin = d.write("device-pin", pin)
	return d
}

func (d *device) value(name string) string {
	for _, v := range slices.Backward(d.env) { // the last counts, as for a program
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// offline runs a command of the offline side, and returns its exit code and what it says.
func (d *device) offline(args ...string) (int, string) {
	d.t.Helper()
	cmd := exec.Command("offline", append(args, "--state", filepath.Join(d.dir, "state"), "--unsafe-hsm-network")...)
	cmd.Env = append(os.Environ(), d.env...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

func (d *device) wants(code int, args ...string) string {
	d.t.Helper()
	got, out := d.offline(args...)
	if got != code {
		d.t.Fatalf("offline %q ends with %d, want %d\n%s", args, got, code, out)
	}
	return out
}

// chosen are the flags that choose the token.
func (d *device) chosen() []string {
	return []string{"--hsm-module", d.value("HSM_MODULE"), "--hsm-token", d.value("HSM_TOKEN"), "--hsm-pin-file", d.pin}
}

// ask asks the simulator itself.
func (d *device) ask(method, path string) string {
	d.t.Helper()
	scheme := map[string]string{"nethsm": "https", "yubihsm": "http"}[d.kind]
	request, err := http.NewRequest(method, scheme+"://"+d.address+path, nil)
	d.must(err)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	answer, err := client.Do(request)
	d.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	d.must(err)
	return string(text)
}

var (
	netHSMKey  = regexp.MustCompile(`(?m)^key (\S+) `)
	yubiHSMKey = regexp.MustCompile(`"Type": "(?:asym|wrap|hmac|sym|pubwrap)",\s+"Algo": "\d+",\s+"Label": "([^"]*)"`)
)

// keys lists what the device holds, by the simulator's own word.
func (d *device) keys() (labels []string) {
	d.t.Helper()
	text, pattern := "", netHSMKey
	if d.kind == "nethsm" {
		text = d.ask("GET", "/sim")
	} else {
		text, pattern = d.ask("GET", "/sim/objects"), yubiHSMKey
	}
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		labels = append(labels, m[1])
	}
	slices.Sort(labels)
	return labels
}

func (d *device) wantKeys(about string, before []string, more ...string) {
	d.t.Helper()
	want := append(slices.Clone(before), more...)
	slices.Sort(want)
	if got := d.keys(); !slices.Equal(got, want) {
		d.t.Errorf("%s: the device holds %q, want %q", about, got, want)
	}
}

func (d *device) ready(signer string) {
	d.t.Helper()
	d.wants(0, append([]string{"init", "--name", "vault-room", "--signer", signer}, d.chosen()...)...)
	d.wants(0, "trust", filepath.Join(d.dir, "BYOK-SecurityWorld-pkg-EU-1"), "--fingerprint", fingerprint.Of(d.world.Package).String())
}

func (d *device) online(args ...string) {
	d.t.Helper()
	cmd := exec.Command("online", append(args, "--state", filepath.Join(d.dir, "online"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("online %q: %v\n%s", args, err, out)
	}
}

// rehearsal begins a dress rehearsal on both sides, whose stick is the directory stick.
func (d *device) rehearsal(signer string) {
	d.t.Helper()
	stick := filepath.Join(d.dir, "stick")
	d.must(os.Mkdir(stick, 0o755))
	pin := func(name string) []string {
		data, err := os.ReadFile(filepath.Join(stick, name))
		d.must(err)
		return []string{"trust", filepath.Join(stick, name), "--fingerprint", fingerprint.Of(data).String()}
	}
	d.wants(0, append([]string{"init", "--rehearsal", "--signer", signer, "--out", stick}, d.chosen()...)...)
	d.online("init", "--rehearsal")
	d.kek = d.kekOf(filepath.Join(d.dir, "online"), stick)
	d.online(pin("offline-card-offline.json")...)
	d.wants(0, pin("BYOK-SecurityWorld-pkg-NA-1")...)
}

// carry is the import of a rehearsal, all but the keys.
func (d *device) carry(more ...string) []string {
	return append([]string{"import", "--exchange-key-package", filepath.Join(d.dir, "stick", "BYOK-KEK-pkg-NA-1"), "--kek-fingerprint", d.kek, "--hsm-pin-file", d.pin}, more...)
}

// exported are the flags for a key in its TPD; its password's stands last.
func (d *device) exported(v vectors.TPD) []string { return d.importOf(v)[1:7] }

// foreign has a device hold keys of others, of each kind.
var foreign = map[string][]string{
	"nethsm":  {"NETHSM_PRELOAD=rsa:web,ec:code,ed:ssh,aes:disk"},
	"yubihsm": {"YH_FOREIGN=1"},
}

// TestDevices goes the offline half of a real ceremony with vendors' own modules:
// nothing is stored that was not asked for, and each key is there once.
func TestDevices(t *testing.T) {
	for _, kind := range []string{"nethsm", "yubihsm"} {
		for _, signer := range []string{ceremony.SignerFile, ceremony.SignerHSM} {
			t.Run(kind+" "+signer, func(t *testing.T) {
				knobs := foreign[kind]
				if signer == ceremony.SignerFile { // the device makes its own private exponent, by the other formula
					knobs = append(slices.Clone(knobs), "YH_PHI=1")
				}
				d := startDevice(t, kind, knobs...)
				v, w := vectors.OneTPD(t, "contoso-mode2"), vectors.OneTPD(t, "contoso-legacy-kdf")
				before := d.keys()
				if len(before) < 4 {
					t.Fatalf("the device holds only %q", before)
				}
				doctor := append([]string{"doctor"}, d.chosen()...)
				if out := d.wants(0, doctor...); !strings.Contains(out, "Not proven") || !strings.Contains(out, "--hsm-try-store") {
					t.Errorf("doctor does not say what it did not prove:\n%s", out)
				}
				d.wantKeys("doctor", before)
				if out := d.wants(0, append(doctor, "--hsm-try-store")...); strings.Contains(out, "nproven") || !strings.Contains(out, "goes out by   --wrap software only") {
					t.Errorf("doctor proved not all, or does not name the way out:\n%s", out)
				}
				d.wantKeys("doctor --hsm-try-store", before)

				d.ready(signer)
				if signer == ceremony.SignerHSM {
					before = append(before, ceremony.SignerLabel)
				}
				d.wantKeys("init", before)
				for _, args := range [][]string{
					d.importOf(v), append(d.importOf(v), "--dry-run"), append(d.importOf(v), "--wrap", "hsm"), append(d.importOf(v), "--wrap", "hsm", "--dry-run", "--hsm-try-store"),
					append(d.importOf(v), "--wrap", "hsm", "--retain-extractable"), append([]string{"wrap"}, d.importOf(v)[1:]...), append([]string{"wrap", "--retain-extractable"}, d.importOf(v)[1:]...),
				} {
					out := d.wants(3, args...)
					if !strings.Contains(out, "KF-HSM-WRAP-UNPROVEN") || !strings.Contains(out, "--wrap software") || strings.Contains(out, "same command again") {
						t.Errorf("%q: the way out is not named:\n%s", args, out)
					}
					d.wantKeys("no way out", before)
				}
				software := append(d.importOf(v), "--wrap", "software")
				if out := d.wants(0, append(software, "--dry-run")...); !strings.Contains(out, "not proven") {
					t.Errorf("the dry run does not say what it did not prove:\n%s", out)
				}
				d.wantKeys("dry run", before)
				d.wants(0, append(software, "--dry-run", "--hsm-try-store")...)
				d.wantKeys("dry run that may store", before)
				d.wants(0, software...)
				d.wantKeys("import", before, v.Name)
				d.wants(0, append(d.importOf(w), "--wrap", "software")...)
				d.wants(0, "seal", "--out", d.dir, "--hsm-pin-file", d.pin)
				d.wantKeys("two imports", before, v.Name, w.Name)
				d.wants(0, software...) // it is there already
				d.wants(0, "transcript", "verify")
			})
		}
	}
}

// TestDeviceRehearsals goes a whole dress rehearsal with vendors' own modules: from doctor
// to the receipt that closes the ledger, and back to the token as it was.
func TestDeviceRehearsals(t *testing.T) {
	type rehearsal struct {
		kind, signer string
		keys         []string
		module       string // another than the judge's
	}
	tests := []rehearsal{
		{"nethsm", ceremony.SignerHSM, []string{"contoso-mode2", "contoso-legacy-kdf"}, ""},
		{"nethsm", ceremony.SignerFile, []string{"contoso-mode2"}, ""},
		{"yubihsm", ceremony.SignerHSM, []string{"contoso-mode2", "contoso-legacy-kdf"}, ""},
		{"yubihsm", ceremony.SignerFile, []string{"contoso-mode2"}, ""},
	}
	debian, _ := filepath.Glob("/usr/lib/*/pkcs11/yubihsm_pkcs11.so") // 2.6 in Debian 13
	for _, path := range debian {
		tests = append(tests, rehearsal{"yubihsm", ceremony.SignerHSM, []string{"contoso-mode2"}, path})
	}
	if debian == nil {
		fmt.Fprintln(os.Stderr, "DEBIAN'S MODULE OF THE YUBIHSM 2 IS NOT TESTED: it comes with Debian 13's package yubihsm-pkcs11")
	}
	for _, test := range tests {
		t.Run(test.kind+" "+test.signer+test.module, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, test.kind, foreign[test.kind]...)
			if test.module != "" { // with the libraries of its own release
				d.env = append(d.env, "HSM_MODULE="+test.module, "LD_LIBRARY_PATH=")
			}
			before := d.keys()
			stick := filepath.Join(d.dir, "stick")
			d.wants(0, append([]string{"doctor"}, d.chosen()...)...)
			d.rehearsal(test.signer)
			carry := d.carry("--wrap", "software")
			upload := []string{"upload", filepath.Join(stick, "keyferry-offline-1.kfb"), "--active", test.keys[0]}
			for _, name := range test.keys {
				v := vectors.OneTPD(t, name)
				carry = append(carry, d.exported(v)...)
				upload = append(upload, carry[len(carry)-2:]...) // the password
			}
			d.wants(0, append(carry, "--dry-run", "--hsm-try-store")...)
			d.wants(0, append(carry, "--out", stick)...)
			d.online("verify", filepath.Join(stick, "keyferry-offline-1.kfb"))
			d.online(upload...)
			d.online("receipt", filepath.Join(stick, "keyferry-offline-1.kfb"), "--out", stick)
			d.wants(0, "receipt", filepath.Join(stick, "keyferry-online-1.kfb"))
			d.wants(0, "transcript", "verify")
			status := d.wants(0, "status", "--json")
			if got := strings.Count(status, `"stage": "arrived"`) + strings.Count(status, `"stage":"arrived"`); got != len(test.keys) {
				t.Errorf("%d keys have arrived, of %d:\n%s", got, len(test.keys), status)
			}
			held := test.keys
			if test.signer == ceremony.SignerHSM {
				held = append([]string{ceremony.SignerLabel}, held...)
			}
			d.wantKeys("rehearsal", before, held...)
			if out := d.wants(0, "rehearsal", "clean", "--keep", "--hsm-pin-file", d.pin); !strings.Contains(out, test.keys[0]) {
				t.Errorf("what is stored is not listed:\n%s", out)
			}
			d.wantKeys("rehearsal clean --keep", before, held...)
			d.wants(3, "rehearsal", "clean", "--hsm-pin-file", d.pin) // nobody answers
			d.wantKeys("rehearsal clean without an answer", before, held...)
			d.wants(0, "rehearsal", "clean", "--yes", "--hsm-pin-file", d.pin)
			d.wantKeys("rehearsal clean", before)
		})
	}
}

// TestDeviceFaults has each request of the device go wrong, beside keys of others, that a
// command makes: refused, cut off before and after it was done, hung so and then killed.
// Then the same command runs again: each key is there once, and nothing else. The default
// run takes some of them; KEYFERRY_DEVICE_FAULTS=all takes all.
func TestDeviceFaults(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	type stage struct {
		name    string
		ready   func(d *device)          // what goes before, once
		each    func(d *device)          // and each time; nil: nothing
		command func(d *device) []string // what goes wrong, and then right
		done    func(d *device) bool     // nil: there is nothing to see of it
		code    int                      // of the command
		keys    []string                 // what the device holds in the end
		stride  int                      // in the default run
		fails   int                      // how many faults fail a run at least, in the default run
	}
	there := func(path ...string) func(*device) bool {
		return func(d *device) bool {
			_, err := os.Stat(filepath.Join(append([]string{d.dir}, path...)...))
			return err == nil
		}
	}
	inFile := func(d *device) { d.ready(ceremony.SignerFile) }
	carry := func(d *device) []string { return append(d.importOf(v), "--wrap", "software") }
	doctor := func(d *device) []string { return append([]string{"doctor"}, d.chosen()...) }
	for _, kind := range []string{"nethsm", "yubihsm"} {
		for _, s := range []stage{
			{name: "doctor", command: doctor, stride: 16, fails: 1},
			{name: "doctor that may store", command: func(d *device) []string { return append(doctor(d), "--hsm-try-store") }, stride: 16, fails: 2},
			{name: "dry run", ready: inFile, command: func(d *device) []string { return append(carry(d), "--dry-run", "--hsm-try-store") }, stride: 16, fails: 2},
			{name: "import", ready: inFile, command: carry, done: there("state", "outbox", v.Name, "key.json"), keys: []string{v.Name}, stride: 8, fails: 4},
			{name: "init", command: func(d *device) []string {
				return append([]string{"init", "--name", "vault-room", "--signer", ceremony.SignerHSM}, d.chosen()...)
			}, done: func(d *device) bool { return there("state")(d) && !there("state.init")(d) }, keys: []string{ceremony.SignerLabel}, stride: 8, fails: 2},
			{name: "wrap", ready: func(d *device) {
				inFile(d)
				d.wants(0, append(carry(d), "--retain-extractable", "--out", d.dir)...)
			}, command: func(d *device) []string { return append([]string{"wrap"}, d.importOf(v)[1:]...) }, code: 3, keys: []string{v.Name}, stride: 16, fails: 1},
			{name: "seal", ready: func(d *device) {
				d.ready(ceremony.SignerHSM)
				d.wants(0, carry(d)...)
			}, command: func(d *device) []string {
				return []string{"seal", "--out", filepath.Join(d.dir, "out"), "--hsm-pin-file", d.pin}
			}, done: there("out", "keyferry-vault-room-1.kfb"), keys: []string{ceremony.SignerLabel, v.Name}, stride: 16, fails: 1},
			{name: "rehearsal clean", ready: func(d *device) { d.rehearsal(ceremony.SignerFile) },
				each:    func(d *device) { d.wants(0, append(d.carry("--wrap", "software"), d.exported(v)...)...) },
				command: func(d *device) []string { return []string{"rehearsal", "clean", "--yes", "--hsm-pin-file", d.pin} }, stride: 12, fails: 1},
		} {
			t.Run(kind+" "+s.name, func(t *testing.T) {
				t.Parallel()
				log := filepath.Join(t.TempDir(), "requests")
				d := startDevice(t, kind, append([]string{"NETHSM_THROTTLE=0", "NETHSM_LOG=" + log}, foreign[kind]...)...)
				d.log = log
				before := d.keys()
				if s.ready != nil {
					s.ready(d)
				}
				held := d.keys()
				command, state, out := s.command(d), filepath.Join(d.dir, "state"), filepath.Join(d.dir, "out")
				d.tool("sh", "-c", `mkdir -p "$0" && cd "$0/.." && mkdir fresh && if test -d state; then cp -a state fresh; fi`, out)
				anew := func() {
					d.tool("sh", "-c", `cd "$0/.." && rm -rf state state.init out && mkdir out && cp -a fresh/. .`, out)
					d.wipe(held)
					if s.each != nil {
						s.each(d)
					}
					if d.kind == "yubihsm" {
						d.ask("GET", "/sim/zero") // the commands that were counted
					}
				}
				anew()
				first := d.requests()
				d.wants(s.code, command...)
				requests := d.requests() - first
				if s.done != nil && !s.done(d) {
					t.Fatalf("the %s has left nothing in %s", s.name, state)
				}
				stride := s.stride
				if os.Getenv("KEYFERRY_DEVICE_FAULTS") == "all" {
					stride = 1
				}
				cases, failed := 0, 0
				for i, fault := range deviceFaults[kind] {
					for at := 1 + i; at <= requests; at += stride {
						anew()
						code := d.faulty(fault, at, command)
						cases++
						about := fmt.Sprintf("%s at %d", fault.name, at)
						if s.done != nil && s.done(d) {
							d.wantKeys(about+" (it was done)", before, s.keys...)
							continue
						}
						if code != s.code {
							failed++
						}
						if code, out := d.offline(command...); code != s.code {
							t.Errorf("%s: the second run ends with %d\n%s", about, code, out)
							continue
						}
						d.wantKeys(about, before, s.keys...)
						if there("state")(d) {
							d.wants(0, "transcript", "verify")
						}
					}
				}
				if failed < s.fails {
					t.Errorf("only %d of %d faults failed a run", failed, cases)
				}
				fmt.Fprintf(os.Stderr, "%s: %d faults in the %d requests of %s, %d of which failed the run\n", kind, cases, requests, s.name, failed)
			})
		}
	}
}

// deviceFault is how a request goes wrong; after one that hangs the run is killed.
type deviceFault struct {
	name  string
	knobs string // of the simulator; %d is the request's number
	kill  bool
}

var deviceFaults = map[string][]deviceFault{
	"nethsm": { // three times, since the module repeats some requests; what hangs is never done later
		{"refused", "fault=.*@%d%%2B3=500", false}, {"cut", "fault=.*@%d%%2B3=drop", false}, {"cut, though done", "fault=.*@%d%%2B3=drop-after", false},
		{"hung and killed", "fault=.*@%d=sleep:3600000", true}, {"hung, though done, and killed", "fault=.*@%d=sleep-after:3600000", true},
	},
	"yubihsm": {
		{"cut", "YH_GONE=%d&YH_BACK=1", false}, {"cut, though done", "YH_GONE_AFTER=%d&YH_BACK=1", false},
		{"hung and killed", "YH_HANG=%d", true}, {"hung, though done, and killed", "YH_HANG_AFTER=%d", true},
	},
}

// requests counts the requests of the device so far.
func (d *device) requests() (n int) {
	d.t.Helper()
	if d.kind == "nethsm" {
		data, err := os.ReadFile(d.log)
		d.must(err)
		return bytes.Count(data, []byte("\n"))
	}
	if m := regexp.MustCompile(`"inner": (\d+)`).FindStringSubmatch(d.ask("GET", "/sim/stats")); m != nil {
		fmt.Sscan(m[1], &n)
	}
	return n
}

// set sets knobs of the simulator.
func (d *device) set(knobs string) {
	if d.kind == "nethsm" {
		d.ask("POST", "/sim?"+knobs)
	} else {
		d.ask("GET", "/sim/set?"+knobs)
	}
}

// wipe takes the device's faults away, and its keys but for those that are to be held.
func (d *device) wipe(held []string) {
	d.t.Helper()
	keys := d.keys()
	if d.kind == "yubihsm" {
		d.set("YH_GONE=&YH_GONE_AFTER=&YH_HANG=&YH_HANG_AFTER=&YH_BACK=")
		if !slices.Equal(keys, held) {
			d.ask("GET", "/sim/wipe")
		}
		return
	}
	d.set("fault=")
	for _, key := range keys {
		if !slices.Contains(held, key) {
			d.netHSM("DELETE", key)
		}
	}
}

// netHSM is a request of the administrator.
func (d *device) netHSM(method, key string) {
	d.t.Helper()
	out, err := exec.Command("curl", "-skf", "-X", method, "-u", "admin:adminadmin", "https://"+d.address+"/api/v1/keys/"+key).CombinedOutput()
	if err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
}

// faulty runs a command in which the at-th request goes wrong, and returns its exit code.
func (d *device) faulty(fault deviceFault, at int, command []string) (code int) {
	d.t.Helper()
	d.set(fmt.Sprintf(fault.knobs, at))
	if fault.kill {
		code = d.killed(at, command)
	} else {
		var out string
		if code, out = d.offline(command...); strings.Contains(out, "crashed") || strings.Contains(out, "KF-RUN-MACHINE") {
			d.t.Errorf("%s at %d is told as no fault of the HSM: %s", fault.name, at, out)
		}
	}
	if d.kind == "yubihsm" {
		d.set("YH_GONE=&YH_GONE_AFTER=&YH_HANG=&YH_HANG_AFTER=&YH_BACK=")
		d.ask("GET", "/sim/lose")
	} else {
		d.set("fault=")
	}
	return code
}

// killed runs a command that is killed once the device hangs in its at-th request.
func (d *device) killed(at int, command []string) int {
	d.t.Helper()
	cmd := exec.Command("offline", append(command, "--state", filepath.Join(d.dir, "state"), "--unsafe-hsm-network")...)
	cmd.Env = append(os.Environ(), d.env...)
	before := d.requests()
	d.must(cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	hangs := func() bool {
		if d.kind == "yubihsm" {
			return strings.Contains(d.ask("GET", "/sim/stats"), `"hung": true`)
		}
		return d.requests()-before >= at-1 // what hangs is in the log afterwards
	}
	for range 300 {
		if hangs() {
			break
		}
		select {
		case <-ended:
			return cmd.ProcessState.ExitCode()
		case <-time.After(50 * time.Millisecond):
		}
	}
	time.Sleep(200 * time.Millisecond)
	_ = cmd.Process.Kill()
	<-ended
	return cmd.ProcessState.ExitCode()
}

// moduleConf names the variable that names the module's configuration.
var moduleConf = map[string]string{"nethsm": "P11NETHSM_CONFIG_FILE", "yubihsm": "YUBIHSM_PKCS11_CONF"}

// configured is the environment with another configuration of the module.
func (d *device) configured(name string, change func(conf string) string) []string {
	d.t.Helper()
	data, err := os.ReadFile(d.value(moduleConf[d.kind]))
	d.must(err)
	return append(slices.Clone(d.env), moduleConf[d.kind]+"="+d.write("configuration "+name, []byte(change(string(data)))))
}

// TestDeviceMessages has each state of a device, and each of a module's surroundings that
// gives keys away or leads elsewhere, told in its own sentence, with what to do.
func TestDeviceMessages(t *testing.T) {
	type message struct {
		name, knobs, pin string
		conf             func(string) string // the module's configuration otherwise
		flags, env       []string
		shut             bool // in the sandbox as it is
		ready            func(*device)
		says             []string
	}
	const triedOnce = "was tried once"
	with := func(lines string) func(string) string {
		return func(conf string) string { return conf + lines + "\n" }
	}
	instead := func(old, new string) func(string) string {
		return func(conf string) string { return strings.ReplaceAll(conf, old, new) }
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	dead := func(conf string) string { return address.ReplaceAllString(conf, "127.0.0.1:1") }
	proxy := message{name: "proxy", env: []string{"HTTPS_PROXY=http://proxy.example:3128"}, says: []string{"HTTPS_PROXY", "proxy.example:3128"}}
	inTheClear := []string{"KF-HSM-MODULE", "the private key to its log, in the clear"}
	for kind, messages := range map[string][]message{
		"yubihsm": {
			{name: "form", pin: "1password", says: []string{"KF-HSM-PIN", "takes no PIN of this form, and tried none", "0001password"}},
			{name: "short", pin: "0001short", says: []string{"tried none", "8 to 64 characters"}},
			{name: "number", pin: "0009password", says: []string{"KF-HSM-PIN", "no authentication key of the number", "tried none"}},
			{name: "refused", pin: "0001passwords", says: []string{"KF-HSM-PIN", triedOnce}},
			{name: "no device", knobs: "YH_NODEVICE=1", says: []string{"KF-HSM-NO-TOKEN", "connect the HSM", "a connector"}},
			{name: "full", knobs: "YH_RECORDS=2", flags: []string{"--hsm-try-store"}, says: []string{"KF-HSM-IMPORT", "storage is full", "remove what is no longer needed"}},
			{name: "unreachable", conf: dead, says: []string{"KF-HSM-NO-TOKEN", "see that what stands between"}},
			{name: "sandbox", shut: true, says: []string{"KF-HSM-NO-TOKEN", "--unsafe-hsm-network", "--hsm-outside-sandbox"}},
			{name: "USB", shut: true, conf: func(string) string { return "connector = yhusb://\n" }, flags: []string{"--hsm-outside-sandbox"},
				says: []string{"KF-HSM-MODULE", "CKR_DEVICE_REMOVED", "shows no token either it opens what the sandbox forbids", "a netlink socket, as modules for USB have it: --unsafe-hsm-network"}},
			{name: "sessions", ready: (*device).takeSessions, says: []string{"KF-HSM-CALL", "all sessions of the HSM are taken", "wait half a minute"}},
			proxy,
			{name: "debug", conf: with("libdebug"), says: inTheClear},
			{name: "debug, abbreviated", conf: with(" libd = 1 # of the library"), says: inTheClear},
			{name: "debug, included", ready: func(d *device) { d.write("more.conf", []byte("libdebug\n")) }, conf: with(`include "more.conf"`), says: append(inTheClear, "more.conf")},
			{name: "debug by parameters", flags: []string{"--hsm-parameters", "libdebug"}, says: append(inTheClear, "--hsm-parameters")},
			{name: "debug by the environment", env: []string{"YUBIHSM_LIB_DBG=0"}, says: append(inTheClear, "YUBIHSM_LIB_DBG")},
			{name: "log", conf: with("debug\ndebug-file = log"), says: []string{"warning: debug in", "a log of its calls"}},
			{name: "log by the environment", env: []string{"YUBIHSM_PKCS11_DINOUT="}, says: []string{"warning: YUBIHSM_PKCS11_DINOUT", "a log of its calls"}},
			{name: "log to a file", shut: true, conf: with("debug\ndebug-file = log"), flags: []string{"--hsm-outside-sandbox"}, says: []string{"a network socket: --unsafe-hsm-network", "/log, to write: --hsm-writes", "--hsm-writes"}},
			{name: "a stick as working directory", says: []string{"KF-HSM-MODULE", "would choose the connector", "run the command in another directory"},
				ready: func(d *device) {
					d.write("yubihsm_pkcs11.conf", []byte("connector = http://127.0.0.1:1\n"))
				}},
		},
		"nethsm": {
			{name: "refused", pin: "wrong-passphrase", says: []string{"KF-HSM-PIN", triedOnce, "wait a second"}},
			{name: "locked", knobs: "state=Locked", says: []string{"provisioned", "unlocked"}},
			{name: "unprovisioned", knobs: "state=Unprovisioned", says: []string{"provisioned"}},
			{name: "certificate", conf: instead("danger_insecure_cert: true", "danger_insecure_cert: false"), says: []string{"KF-HSM-NO-TOKEN", "trusts its certificate"}},
			{name: "unreachable", conf: dead, says: []string{"KF-HSM-NO-TOKEN", "address in the module's configuration"}},
			{name: "sandbox", shut: true, says: []string{"KF-HSM-NO-TOKEN", "--unsafe-hsm-network", "--hsm-outside-sandbox"}},
			proxy,
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, kind, "NETHSM_THROTTLE=0")
			page, err := os.ReadFile("../docs/hsm.md")
			d.must(err)
			_, own, _ := strings.Cut(string(page), map[string]string{"nethsm": "\n## Nitrokey NetHSM\n", "yubihsm": "\n## YubiHSM 2\n"}[kind])
			own, _, _ = strings.Cut(own, "\n## ")
			for _, m := range messages {
				if !slices.ContainsFunc(m.says, func(says string) bool { return strings.Contains(own, says) }) {
					t.Errorf("%s: none of %q stands on the page of this device", m.name, m.says)
				}
				pin, env := d.pin, d.env
				if m.pin != "" {
					pin = d.write("pin "+m.name, []byte(m.pin+"\n"))
				}
				if m.ready != nil {
					m.ready(d)
				}
				if m.conf != nil {
					env = d.configured(m.name, m.conf)
				}
				if m.knobs != "" {
					d.set(m.knobs)
				}
				args := slices.Concat([]string{"doctor"}, d.chosen()[:4], m.flags, []string{"--hsm-pin-file", pin})
				if !m.shut {
					args = append(args, "--unsafe-hsm-network")
				}
				cmd := exec.Command("offline", args...)
				cmd.Env, cmd.Dir = append(slices.Clone(env), m.env...), d.dir
				out, _ := cmd.CombinedOutput()
				flat := strings.Join(strings.Fields(strings.ReplaceAll(string(out), "offline: ", "")), " ")
				for _, says := range m.says {
					if !strings.Contains(flat, says) {
						t.Errorf("%s does not say %q:\n%s", m.name, says, out)
					}
				}
				switch {
				case m.knobs == "":
				case kind == "nethsm":
					d.set("state=Operational")
				default:
					d.set("YH_NODEVICE=&YH_RECORDS=256")
				}
				if kind == "yubihsm" {
					d.ask("GET", "/sim/lose")
				}
			}
			d.wantKeys("messages", nil)
		})
	}
}

// takeSessions takes all sessions of a YubiHSM 2: each is begun and never gone on with.
func (d *device) takeSessions() {
	d.t.Helper()
	for range 16 {
		const createSession, first = "\x03\x00\x0a", "\x00\x01"
		answer, err := http.Post("http://"+d.address+"/connector/api", "application/octet-stream", strings.NewReader(createSession+first+"12345678"))
		d.must(err)
		answer.Body.Close()
	}
}

// TestDeviceLogs has the modules write all that they are let write of an import, and finds
// neither a prime nor the PIN in it.
func TestDeviceLogs(t *testing.T) {
	v := vectors.OneTPD(t, "contoso-mode2")
	for kind, change := range map[string]func(string) string{
		"nethsm":  func(conf string) string { return strings.Replace(conf, "log_level: Error", "log_level: Trace", 1) },
		"yubihsm": func(conf string) string { return conf + "debug\ndinout\n" },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, kind)
			d.env = d.configured("log", change)
			d.ready(ceremony.SignerFile)
			out := d.wants(0, append(d.importOf(v), "--wrap", "software")...)
			if strings.Count(out, "\n") < 100 {
				t.Fatalf("the module wrote no log:\n%s", out)
			}
			plain := strings.ToLower(strings.NewReplacer(" ", "", "\n", "", ":", "").Replace(out))
			for _, prime := range v.Key.Primes {
				middle := prime.Bytes()[30:60] // whole groups of three, for base64
				for _, form := range []string{hex.EncodeToString(middle), strings.ToLower(base64.StdEncoding.EncodeToString(middle))} {
					if strings.Contains(plain, form) {
						t.Errorf("a prime is in the log")
					}
				}
			}
			pin, err := os.ReadFile(d.pin)
			d.must(err)
			if strings.Contains(out, strings.TrimSpace(string(pin))) {
				t.Errorf("the PIN is in the log")
			}
		})
	}
}

// TestTwoDevices has two devices of one label, and a dead connector beside theirs: the
// serial number tells them apart, and is named where it is wanted.
func TestTwoDevices(t *testing.T) {
	d, other := startDevice(t, "yubihsm"), startDevice(t, "yubihsm", "YH_SERIAL=31000456")
	d.env = d.configured("two", func(conf string) string {
		return "connector = http://127.0.0.1:1\n" + conf + "connector = http://" + other.address + "\n"
	})
	doctor := append([]string{"doctor"}, d.chosen()...)
	if out := d.wants(3, doctor...); !strings.Contains(out, "KF-HSM-TOKEN-TWICE") || !strings.Contains(out, "27000123") || !strings.Contains(out, "31000456") {
		t.Errorf("they are not told apart:\n%s", out)
	}
	for _, serial := range []string{"27000123", "31000456"} {
		if out := d.wants(0, append(doctor, "--hsm-serial", serial)...); !strings.Contains(out, serial) {
			t.Errorf("another device than %s:\n%s", serial, out)
		}
	}
}

// TestDeviceHanging holds that who waits for a device that does not answer is told so, that
// the first interrupt is answered and that the second ends the run.
func TestDeviceHanging(t *testing.T) {
	for kind, knobs := range map[string]string{"nethsm": "fault=.*keys.*@1%2B9=sleep:60000", "yubihsm": "YH_HANG=4"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, kind)
			d.set(knobs)
			cmd := exec.Command("offline", append([]string{"doctor", "--unsafe-hsm-network"}, d.chosen()...)...)
			cmd.Env = d.env
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			d.must(cmd.Start())
			for _, at := range []time.Duration{7000, 7500} {
				time.AfterFunc(at*time.Millisecond, func() { _ = cmd.Process.Signal(os.Interrupt) })
			}
			_ = cmd.Wait()
			flat := strings.Join(strings.Fields(out.String()), " ")
			for _, says := range []string{"waiting for the HSM since 5 s, to ", "interrupted: the run stops when the HSM has answered"} {
				if !strings.Contains(flat, says) {
					t.Errorf("does not say %q:\n%s", says, out.String())
				}
			}
		})
	}
}

// TestDeviceCapabilities has an authentication key of a YubiHSM 2 that lacks a capability:
// it is named as in the vendor's tool, and what it keeps from being removed is named too.
func TestDeviceCapabilities(t *testing.T) {
	for _, test := range []struct {
		bit, lacks, says string
		code             int
		left             bool // the throw-away key can't be removed
	}{
		{"03", "put-asymmetric-key", "KF-HSM-IMPORT", 3, false},
		{"01", "put-opaque", "KF-HSM-IMPORT", 3, false},
		{"05", "sign-pkcs", "KF-HSM-IMPORT", 3, false},
		{"09", "decrypt-oaep", "KF-HSM-IMPORT", 3, false},
		{"04", "", "in a file only, --signer file", 0, false}, // generate-asymmetric-key: no fault of the token
		{"29", "delete-asymmetric-key", "KF-HSM-LEFTOVER", 4, true},
	} {
		t.Run(test.bit, func(t *testing.T) {
			t.Parallel()
			d := startDevice(t, "yubihsm", "YH_WITHOUT="+test.bit)
			out := d.wants(test.code, append([]string{"doctor", "--hsm-try-store"}, d.chosen()...)...)
			if flat := strings.Join(strings.Fields(out), " "); !strings.Contains(flat, test.says) || !strings.Contains(flat, test.lacks) {
				t.Errorf("does not say %q and %q:\n%s", test.says, test.lacks, out)
			}
			switch keys := d.keys(); {
			case !test.left:
				d.wantKeys("doctor", nil)
			case len(keys) != 1 || !strings.Contains(out, keys[0]):
				t.Errorf("the device holds %q, which is not named:\n%s", keys, out)
			}
		})
	}
}

// TestDeviceRoles has a NetHSM whose administrator's passphrase is not in the module's
// configuration.
func TestDeviceRoles(t *testing.T) {
	d := startDevice(t, "nethsm", "NETHSM_THROTTLE=0")
	const name = "P11NETHSM_CONFIG_FILE"
	conf, err := os.ReadFile(d.value(name))
	d.must(err)
	d.env = slices.DeleteFunc(d.env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	d.env = append(d.env, name+"="+d.write("conf", []byte(strings.ReplaceAll(string(conf), "      password: adminadmin\n", ""))))
	doctor := append([]string{"doctor", "--hsm-try-store"}, d.chosen()...)
	for _, test := range []struct {
		secret string
		code   int
		says   string
	}{{"wrong-secret", 3, "does not accept the secret of its administrator"}, {"adminadmin", 0, ""}} {
		file := d.write("so "+test.secret, []byte(test.secret+"\n"))
		if out := d.wants(test.code, append(doctor, "--hsm-so-pin-file", file)...); !strings.Contains(strings.Join(strings.Fields(out), " "), test.says) {
			t.Errorf("%s does not say %q:\n%s", test.secret, test.says, out)
		}
		d.wantKeys(test.secret, nil)
	}
	if out := d.wants(3, doctor...); !strings.Contains(out, "administrator") { // nobody is there to type it
		t.Errorf("the role is not named:\n%s", out)
	}
	// Without that passphrase the module says "unknown" for the serial number, which is none.
	if _, out := d.offline(append([]string{"doctor"}, d.chosen()...)...); strings.Contains(out, "unknown") {
		t.Errorf("doctor shows a serial number that the module does not know:\n%s", out)
	}
	d.wants(0, append([]string{"init", "--name", "vault-room", "--signer", ceremony.SignerFile}, d.chosen()...)...)
	d.env = append(d.env, name+"="+d.write("whole", conf)) // now it knows the number
	d.wants(0, "doctor", "--hsm-pin-file", d.pin)
	d.must(os.RemoveAll(filepath.Join(d.dir, "state")))
	d.wants(0, append([]string{"init", "--name", "vault-room", "--signer", ceremony.SignerFile}, d.chosen()...)...) // which keeps it
	d.set("state=Locked")                                                                                           // and now the module knows none
	if out := d.wants(3, "doctor", "--hsm-pin-file", d.pin); !strings.Contains(out, "KF-HSM-PIN") || !strings.Contains(strings.Join(strings.Fields(out), " "), "provisioned and unlocked") {
		t.Errorf("a locked device is not told:\n%s", out)
	}
}
