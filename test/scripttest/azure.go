// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"keyferry/test/entra"
)

// azureAt is the key of a script's Azure.
type azureAt struct{}

// azure lets Microsoft Entra and a key vault answer behind a proxy that inspects TLS.
// Without an argument it starts them, and writes secret, the application's. "azure
// answers HOW" has them answer otherwise, "azure answers" as the services do again;
// "azure shows NAME" prints a key's versions, its attributes and tags; "azure rotates
// NAME" makes a new version of it; "azure asked" prints what was asked.
func azure(ts *testscript.TestScript, neg bool, args []string) {
	made, _ := ts.Value(azureAt{}).(**entra.Azure)
	switch {
	case neg || made == nil:
		ts.Fatalf("usage: azure [answers [HOW] | shows NAME | rotates NAME | asked]")
	case len(args) == 0:
		a, err := entra.Start()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs("proxy-ca.pem"), a.CA, 0o600))
		ts.Defer(func() { a.Close() })
		*made = a
		for _, setting := range a.Environment(ts.MkAbs("proxy-ca.pem")) {
			name, value, _ := strings.Cut(setting, "=")
			ts.Setenv(name, value)
		}
		ts.Check(os.WriteFile(ts.MkAbs("secret"), []byte(entra.Secret+"\n"), 0o600))
		ts.Setenv("TENANT", entra.Tenant)
		ts.Setenv("CLIENT", entra.Client)
	case args[0] == "answers" && len(args) < 3:
		(*made).Answer(strings.Join(args[1:], ""))
	case args[0] == "shows" && len(args) == 2:
		_, err := fmt.Fprintf(ts.Stdout(), "%s\n%s\n", strings.Join((*made).Versions(args[1]), "\n"), (*made).Of(args[1]))
		ts.Check(err)
	case args[0] == "rotates" && len(args) == 2:
		ts.Check((*made).Rotate(args[1]))
	case args[0] == "asked":
		_, err := fmt.Fprintln(ts.Stdout(), strings.Join((*made).Exchanges(), "\n"))
		ts.Check(err)
	default:
		ts.Fatalf("usage: azure [answers [HOW] | shows NAME | rotates NAME | asked]")
	}
}
