// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/keyid"
	"keyferry/pkg/state"
)

var doctorCommand = cli.Command{
	Name:    "doctor",
	Summary: "show what vault, tenant and this machine are ready for",
	Shows:   true,
	Usage: `
Usage: online doctor [flags]

Asks before the day what can be known of it, and changes nothing: the state
directory; whether the vault is reached, takes the sign-in and lets its keys be
listed, the machine's clock, the KEK, soft delete; then the way into the tenant:
Windows PowerShell, the AIPService module, the sign-in, the tenant's keys.

Each line is ok, warn (it cannot be seen from here, or is worth a look), or fail
(it would stop the day). A line that fails ends it with exit code 3.

  --kek-name NAME   the KEK's name in the vault (default: keyferry-kek)
  --tenant WAY      as at "online upload" (default: as chosen at init)

The JSON document: kind; result (ok, warn or fail); checks, each with section
(state, vault, tenant), name, result, text, and where it is not ok control and
hint; vault (its url, service, cloud, Entra tenant, clock_ahead in seconds,
recovery_level, keys); tenant (way, versions of PowerShell and module, keys).

Example: online doctor --credential browser
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		o := doctorOptions{signIn: addSignIn(flags)}
		flags.StringVar(&o.kek, "kek-name", defaultKEK, "")
		flags.StringVar(&o.tenant, "tenant", "", "")
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := errors.Join(io.NoArguments(args), keyid.Check("KEK name", o.kek)); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return o.run(ctx, io, s) })
		}
	},
}

type doctorOptions struct {
	kek, tenant string
	signIn      *signIn
}

func (o *doctorOptions) run(ctx context.Context, io *cli.IO, s *state.State) error {
	way, err := ceremony.WayInto(s, o.tenant)
	if err != nil {
		return err
	}
	d := &doctor{io: io, way: way}
	if err := d.lookAtState(s); err != nil {
		return err
	}
	err = withCloud(ctx, io, s, o.signIn, func(c ceremony.Cloud) error {
		c.Vault.Trouble = nil // the checks say it
		d.lookAtVault(ctx, c.Vault, o.kek)
		d.lookAtTenant(ctx, s, c)
		return nil
	})
	if err != nil {
		return err
	}
	return d.report(s)
}

// Results of a check.
const (
	isOK   = "ok"
	isWarn = "warn" // it cannot be seen from here, or is worth a look
	isFail = "fail" // it would stop the day
)

// finding is one line of the report.
type finding struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Result  string `json:"result"`
	Text    string `json:"text"`
	Control string `json:"control,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// tenantFinding is what was seen of the tenant beside the checks.
type tenantFinding struct {
	Way      ceremony.Way     `json:"way"`
	Versions *tenant.Versions `json:"versions"` // null where PowerShell is not asked
	Keys     []tenant.Key     `json:"keys"`
}

type doctor struct {
	io      *cli.IO
	way     ceremony.Way
	section string
	checks  []finding
	vault   *vault.Probe
	tenant  tenantFinding
}

// say adds a check that holds, or that fails with err.
func (d *doctor) say(name string, err error, format string, args ...any) {
	if err == nil {
		d.checks = append(d.checks, finding{Section: d.section, Name: name, Result: isOK, Text: fmt.Sprintf(format, args...)})
		return
	}
	for _, r := range cli.Refusals(err) {
		d.checks = append(d.checks, finding{d.section, name, isFail, r.Message, r.Control.ID, r.Hint})
	}
}

func (d *doctor) warn(name, hint, format string, args ...any) {
	d.checks = append(d.checks, finding{Section: d.section, Name: name, Result: isWarn, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (d *doctor) lookAtState(s *state.State) error {
	d.section = "state"
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	d.say("state directory", nil, "%s, of %s; records in the ledger: %d, in a whole chain", s.Kind(), s.Name, len(s.Ledger.Entries()))
	d.say("room on the disk", durable.CheckRoom(s.Dir, ceremony.Room), "there is enough")
	switch card, _, err := ceremony.PinnedCard(s); {
	case control.Is(err, control.TrustNone):
		d.warn("offline side", "pin it with `online trust` once its card is here", "its card is not pinned yet")
	case err != nil:
		d.say("offline side", err, "")
	default:
		d.say("offline side", nil, "pinned: %s, which signs with %s", card.Name, card.Signer.Fingerprint())
	}
	if len(h.KEKs) == 0 {
		d.warn("KEK package", "make the KEK and its package with `online kek create`", "none was written yet")
	} else {
		last := h.KEKs[len(h.KEKs)-1]
		d.say("KEK package", nil, "number %d, of %s", last.Number, last.KID)
	}
	return nil
}

// soon is how near the KEK's end is worth a warning.
const soon = 7 * 24 * time.Hour

// lookAtVault asks the vault what it shows, and whether its KEK can serve.
func (d *doctor) lookAtVault(ctx context.Context, client *vault.Client, kek string) {
	d.section = "vault"
	d.vault = client.Probe(ctx, kek)
	there := false
	for _, c := range d.vault.Checks {
		result := map[vault.Verdict]string{vault.OK: isOK, vault.Unknown: isWarn, vault.Failed: isFail}[c.Verdict]
		d.checks = append(d.checks, finding{d.section, c.Name, result, c.Text, c.Control, c.Hint})
	}
	for _, name := range d.vault.Keys {
		there = there || strings.EqualFold(name, kek)
	}
	if !there {
		return
	}
	switch found, err := client.FetchKEK(ctx, kek, ""); {
	case err != nil:
		d.say("KEK "+kek, err, "")
	case !found.Expires.IsZero() && time.Until(found.Expires) < soon:
		d.warn("KEK "+kek, "if the bundle will come later, make a new one: `online kek create --kek-name "+kek+"-2`", "it expires at %s", found.Expires.UTC().Format(time.RFC3339))
	default:
		d.say("KEK "+kek, nil, "RSA-%d, import only", found.Public.N.BitLen())
	}
}

// lookAtTenant asks for all that the way into the tenant needs.
func (d *doctor) lookAtTenant(ctx context.Context, s *state.State, c ceremony.Cloud) {
	d.section = "tenant"
	d.tenant = tenantFinding{Way: d.way, Keys: []tenant.Key{}}
	switch d.way {
	case ceremony.ByPractice:
		d.listKeys(ctx, c.Tenant)
	case ceremony.ByPowerShell:
		d.lookAtPowerShell(ctx, s, c.Azure)
	case ceremony.ByKit:
		d.warn("Windows machine", "try there: Connect-AipService, then Get-AipServiceKeys, in Windows PowerShell 5.1 on .NET Framework 4.8 with the AIPService module 3.0.0.1 or later",
			"a person takes the kit to one, which cannot be seen from here")
	}
	if d.way == ceremony.ByPowerShell || d.way == ceremony.ByKit && !s.Rehearsal { // a rehearsal's kit asks no service
		d.warn("right of Azure RMS on the keys", "each of these is for another vault, as it says behind the #:\n"+strings.Join(c.Vault.GrantCommands(tenant.ServicePrincipal, "NAME"), "\n"),
			"that it may get, decrypt and sign cannot be seen from here")
	}
}

func (d *doctor) lookAtPowerShell(ctx context.Context, s *state.State, azure string) {
	session, err := startPowerShell(ctx, d.io, s)
	if err != nil {
		d.say("Windows PowerShell", err, "")
		return
	}
	defer session.Close()
	versions := session.Versions()
	d.tenant.Versions = &versions
	d.say("Windows PowerShell", nil, "%s, .NET Framework release %d", versions.PowerShell, versions.Framework)
	d.say("AIPService module", nil, "%s", versions.Module)
	err = connect(ctx, d.io, session, azure)
	d.say("sign in to Azure RMS", err, "the service takes it")
	if err == nil {
		d.listKeys(ctx, session)
	}
}

func (d *doctor) listKeys(ctx context.Context, driven tenant.Tenant) {
	keys, err := driven.Keys(ctx)
	active := "none"
	for _, k := range keys {
		if k.Status == tenant.Active {
			active = k.KeyIdentifier
		}
	}
	d.tenant.Keys = append(d.tenant.Keys, keys...)
	d.say("keys of the tenant", err, "%d, active: %s", len(keys), active)
}

// report prints the findings, and refuses when one of them would stop the day.
func (d *doctor) report(s *state.State) error {
	count := map[string]int{}
	var text strings.Builder
	for _, c := range d.checks {
		count[c.Result]++
		c.print(&text)
	}
	fmt.Fprintf(&text, "%d ok, %d warn, %d fail", count[isOK], count[isWarn], count[isFail])
	worst := isOK
	switch {
	case count[isFail] > 0:
		worst = isFail
	case count[isWarn] > 0:
		worst = isWarn
	}
	doc := map[string]any{"kind": s.Kind(), "result": worst, "checks": d.checks, "vault": d.vault, "tenant": d.tenant}
	if count[isFail] > 0 {
		if err := d.io.Result(doc, text.String()); err != nil {
			return err
		}
		return control.CloudNotReady.Refuse("%d of %d checks fail", count[isFail], len(d.checks))
	}
	return result(d.io, s, nil, doc, text.String())
}

// print writes the finding in lines of 80 columns, where its words allow it.
func (f finding) print(b *strings.Builder) {
	text := f.Name + ": " + f.Text
	if f.Control != "" {
		text += " [" + f.Control + "]"
	}
	const indent = 6 // below the result
	fmt.Fprintf(b, "%-*s%s\n", indent, f.Result, cli.SetIn(text, indent))
	if f.Hint != "" {
		fmt.Fprintf(b, "%-*s%s\n", indent, "", cli.SetIn("hint: "+f.Hint, indent))
	}
}
