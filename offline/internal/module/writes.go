// SPDX-License-Identifier: Apache-2.0

package module

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// Writes lists where a module that Keyferry knows writes files of its own, for
// the sandbox; of any other it lists nothing. Not all of them need be there.
// parameters are those of [Config].
//
//   - SoftHSM 2: the directory of its tokens, which its configuration names;
//   - opencryptoki: its tokens, locks and shared memory;
//   - NSS: the directory of its databases, which the parameters name.
func Writes(module, parameters string) []string {
	name := filepath.Base(module)
	switch {
	case strings.HasPrefix(name, "libsofthsm2"):
		return softHSMTokens()
	case strings.HasPrefix(name, "libopencryptoki"), strings.HasPrefix(name, "PKCS11_API"):
		return []string{"/var/lib/opencryptoki", "/var/lock/opencryptoki", "/run/opencryptoki", "/dev/shm"}
	case strings.HasPrefix(name, "libsoftokn3"):
		_, dir, _ := strings.Cut(parameters, "configdir=")
		end := " "
		if rest, quoted := strings.CutPrefix(dir, "'"); quoted {
			dir, end = rest, "'"
		}
		dir, _, _ = strings.Cut(dir, end)
		return nonEmpty(strings.TrimPrefix(dir, "sql:"))
	}
	return nil
}

func nonEmpty(path string) []string {
	if path == "" {
		return nil
	}
	return []string{path}
}

// softHSMTokens finds the token directory as SoftHSM does: in the configuration
// that SOFTHSM2_CONF names, else the user's, else the machine's. What can't be
// read names none: SoftHSM will say so itself.
func softHSMTokens() []string {
	conf := os.Getenv("SOFTHSM2_CONF")
	if home, err := os.UserHomeDir(); conf == "" && err == nil {
		conf = filepath.Join(home, ".config", "softhsm2", "softhsm2.conf")
		if _, err := os.Stat(conf); err != nil {
			conf = ""
		}
	}
	if conf == "" {
		conf = "/etc/softhsm/softhsm2.conf"
	}
	f, err := os.Open(conf)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if strings.TrimSpace(key) == "directories.tokendir" {
			return nonEmpty(strings.TrimSpace(value))
		}
	}
	return nil
}
