// SPDX-License-Identifier: Apache-2.0

package module

import (
	"cmp"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"keyferry/pkg/control"
)

// Surroundings looks at what a module reads beside its parameters, before it is
// loaded. It refuses (KF-HSM-MODULE) what would give keys away or put another HSM in
// the place of the named one, and warns of what may.
func Surroundings(module string, warn func(format string, args ...any)) error {
	name := strings.ToLower(filepath.Base(module))
	if strings.Contains(name, "pkcs11-spy") {
		return control.HSMModule.Refuse("%s writes all that goes through it into a log, PINs and keys included", module).
			WithHint("name the HSM's own module with --hsm-module")
	}
	if strings.Contains(name, "yubihsm_pkcs11") {
		const here = "yubihsm_pkcs11.conf"
		named := os.Getenv("YUBIHSM_PKCS11_CONF")
		if path, err := filepath.Abs(here); err == nil {
			if is, err := os.Stat(here); err == nil && !sameFile(is, named) {
				return control.HSMModule.Refuse("%s would choose the connector: the module of the YubiHSM 2 reads it before the file that YUBIHSM_PKCS11_CONF names", path).
					WithHint("look who has put it there; run the command in another directory, or remove that file")
			}
		}
		if set := switchesIn(named, "libdebug", "dinout", "debug"); len(set) > 0 {
			if set[0] == "libdebug" {
				return control.HSMModule.Refuse("libdebug in %s has the module write the private key to its log, in the clear", named).
					WithHint("remove libdebug from that file")
			}
			warn("%s in %s has the module write a log of its calls: look that it stays on this side", strings.Join(set, " and "), named)
		}
	}
	for _, v := range []string{"PKCS11SPY", "PKCS11SPY_OUTPUT", "P11_KIT_DEBUG", "CKNFAST_DEBUG", "CKNFAST_DEBUGFILE", "OPENSC_DEBUG", "TPM2_PKCS11_LOG_LEVEL"} {
		if value := os.Getenv(v); value != "" && value != "0" {
			warn("%s is set in the environment, so that a module may write a log of its calls: look that it stays on this side, or unset it", v)
		}
	}
	for _, v := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"} {
		if value := os.Getenv(v); value != "" {
			host := "a proxy"
			if u, err := url.Parse(value); err == nil && u.Host != "" {
				host = control.Quote(u.Host)
			}
			warn("%s is set in the environment: the module of an HSM in a network may go through %s, which sees what it is told; unset it", v, host)
		}
	}
	return nil
}

func sameFile(is os.FileInfo, path string) bool {
	other, err := os.Stat(cmp.Or(path, "/nowhere"))
	return err == nil && os.SameFile(is, other)
}

// switchesIn returns those of the switches that a configuration of lines sets. What
// can't be read sets none: the module will say so itself.
func switchesIn(path string, switches ...string) (set []string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for _, want := range switches {
		for line := range strings.SplitSeq(string(data), "\n") {
			line, _, _ = strings.Cut(line, "#")
			if key, _, _ := strings.Cut(strings.TrimSpace(line), "="); strings.TrimSpace(key) == want {
				set = append(set, want)
				break
			}
		}
	}
	return set
}
