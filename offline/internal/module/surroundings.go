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
func Surroundings(module, parameters string, warn func(format string, args ...any)) error {
	if real, err := filepath.EvalSymlinks(module); err == nil {
		module = real
	}
	name := strings.ToLower(filepath.Base(module))
	if strings.Contains(name, "pkcs11-spy") || strings.Contains(name, "libcklog") { // OpenSC's, and Luna's
		return control.HSMModule.Refuse("%s writes all that goes through it into a log, PINs and keys included", module).
			WithHint("name the HSM's own module with --hsm-module")
	}
	if strings.Contains(name, "yubihsm_pkcs11") || strings.Contains(name, "p11-kit") { // which may load it
		const here = "yubihsm_pkcs11.conf"
		named := os.Getenv("YUBIHSM_PKCS11_CONF")
		if path, err := filepath.Abs(here); err == nil {
			if is, err := os.Stat(here); err == nil && !sameFile(is, named) {
				return control.HSMModule.Refuse("%s would choose the connector: the module of the YubiHSM 2 reads it before the file that YUBIHSM_PKCS11_CONF names", path).
					WithHint("look who has put it there; run the command in another directory, or remove that file")
			}
		}
		for _, s := range []struct{ name, variable string }{{"libdebug", "YUBIHSM_LIB_DBG"}, {"debug", "YUBIHSM_PKCS11_DBG"}, {"dinout", "YUBIHSM_PKCS11_DINOUT"}} {
			where := setIn("--hsm-parameters", append(strings.Fields(parameters), "include "+named), s.name, 0)
			if _, set := os.LookupEnv(s.variable); set { // to whatever: an empty one counts
				where = s.variable + " in the environment"
			}
			switch {
			case where == "":
			case s.name == "libdebug":
				return control.HSMModule.Refuse("%s has the module write the private key to its log, in the clear", where).
					WithHint("take that away; the module needs none of it")
			default:
				warn("%s has the module write a log of its calls: look that it stays on this side", where)
			}
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

// setIn says where a switch of the YubiHSM 2's module is set, if it is: among these lines,
// or in a file that they include. The module takes an abbreviation, too. What can't be
// read, it will tell itself.
func setIn(where string, lines []string, name string, depth int) string {
	for _, line := range lines {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		key, value := line, ""
		if end := strings.IndexAny(line, " \t="); end >= 0 {
			key, value = line[:end], strings.Trim(line[end:], " \t=\"'\r")
		}
		switch {
		case key != "" && strings.HasPrefix(name, key):
			return name + " in " + where
		case depth < 10 && (key == "include" || key == "config-file"):
			data, _ := os.ReadFile(value)
			if found := setIn(value, strings.Split(string(data), "\n"), name, depth+1); found != "" {
				return found
			}
		}
	}
	return ""
}
