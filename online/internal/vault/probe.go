// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"keyferry/pkg/control"
)

// Probe is what can be known of a vault before the day, without a change in it.
//
//	vault            its URL
//	service          Key Vault, Managed HSM, or practice vault
//	cloud            public, china or usgov; empty for the practice vault
//	tenant           Microsoft Entra tenant that the vault sends to for the sign-in
//	clock_ahead      seconds that this machine's clock is ahead of the vault's
//	recovery_level   soft delete and purge protection, in Azure's words
//	keys             names of the keys that the vault lists
type Probe struct {
	Vault         string   `json:"vault"`
	Service       string   `json:"service"`
	Cloud         string   `json:"cloud,omitempty"`
	Tenant        string   `json:"tenant,omitempty"`
	ClockAhead    float64  `json:"clock_ahead"`
	RecoveryLevel string   `json:"recovery_level,omitempty"`
	Keys          []string `json:"keys"`
	Checks        []Check  `json:"-"` // one for each question, in the order in which they were asked
}

// Verdict of a check.
type Verdict string

const (
	OK      Verdict = "ok"
	Failed  Verdict = "failed"
	Unknown Verdict = "unknown" // it cannot be seen from here; the hint says where
)

// Check is one answered question. Control and hint are empty where it is OK.
type Check struct {
	Name    string
	Verdict Verdict
	Text    string
	Control string
	Hint    string
}

// maxClockError is how far a clock may be off for a sign-in to hold.
const maxClockError = 5 * time.Minute

// Probe asks the vault what it shows, and of each name whether it is free.
func (c *Client) Probe(ctx context.Context, names ...string) *Probe {
	p := &Probe{Vault: c.url, Service: "Key Vault", Keys: []string{}}
	switch {
	case c.cloud == nil:
		p.Service = "practice vault"
	case c.hsm:
		p.Service = "Managed HSM"
	}
	if c.cloud != nil {
		p.Cloud = c.cloud.name
	}
	err := c.list(ctx, p)
	p.contact(c.seen, err)
	if err != nil && !control.Is(err, control.VaultRights) {
		return p
	}
	p.say("right to list keys", err, "keys: %d", len(p.Keys))
	hardware := c.hsm
	for _, name := range names {
		if key := c.probeName(ctx, p, name); key != nil && strings.HasSuffix(key.Type, "-HSM") {
			hardware = true
		}
	}
	c.probeService(p, hardware)
	return p
}

// list reads the names of the keys, and the recovery level that they have.
func (c *Client) list(ctx context.Context, p *Probe) error {
	for pager := c.keys.NewListKeyPropertiesPager(nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return c.explain(ctx, "listing the vault's keys", "", err)
		}
		for _, item := range page.Value {
			if item == nil || item.KID == nil {
				return control.VaultAnswer.Refuse("the vault lists a key without an identifier")
			}
			p.Keys = append(p.Keys, item.KID.Name())
			if item.Attributes != nil && item.Attributes.RecoveryLevel != nil {
				p.RecoveryLevel = *item.Attributes.RecoveryLevel
			}
		}
	}
	return nil
}

// contact draws from the first call whether the vault is reached, the sign-in
// holds and the clocks agree.
func (p *Probe) contact(s *seen, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Tenant, p.ClockAhead = s.tenant, s.ahead.Seconds()
	if !s.answered || control.Is(err, control.VaultUnreachable) || control.Is(err, control.VaultAnswer) || control.Is(err, control.VaultFirewall) {
		p.say("reach the vault", err, "")
		return
	}
	p.say("reach the vault", nil, "it answers")
	switch {
	case !s.dated:
		p.unknown("clock", "compare this machine's clock with another", "the vault's answer has no date")
	case s.ahead.Abs() > maxClockError:
		p.say("clock", control.VaultSignIn.Refuse("this machine's clock is %v ahead of the vault's", s.ahead.Round(time.Second)).WithHint("set this machine's clock"), "")
	default:
		p.say("clock", nil, "within %v of the vault's", maxClockError)
	}
	switch {
	case err == nil, control.Is(err, control.VaultRights):
		p.say("sign in", nil, "the vault takes it")
	case control.Is(err, control.VaultSignIn):
		p.say("sign in", err, "")
	default: // whether it takes the sign-in is not known
		p.say("list keys", err, "")
	}
}

// probeName tells whether a name is free, and returns the key that has it.
func (c *Client) probeName(ctx context.Context, p *Probe, name string) *Key {
	what := "key " + name
	key, err := c.Key(ctx, name)
	switch {
	case err == nil:
		p.say(what, nil, "%s, RSA of %d bits: %s", key.Type, key.Public.N.BitLen(), key.KID)
		return key
	case !control.Is(err, control.VaultKeyMissing):
		p.say(what, err, "")
		return nil
	}
	_, err = c.keys.GetDeletedKey(ctx, name, nil)
	if err == nil {
		p.say(what, c.explainConflict("making it", name, "the vault lists it as deleted", "ObjectIsDeletedButRecoverable"), "")
		return nil
	}
	switch err = c.explain(ctx, "looking for a deleted key "+name, name, err); {
	case control.Is(err, control.VaultKeyMissing):
		p.say(what, nil, "the name is free")
	case control.Is(err, control.VaultRights):
		p.unknown(what, "this shows it:\naz keyvault key list-deleted "+c.az(), "no such key; whether a deleted one holds the name, this account may not see")
	default:
		p.say(what, err, "")
	}
	return nil
}

// probeService tells what a vault shows of itself by its keys alone.
func (c *Client) probeService(p *Probe, hardware bool) {
	const ask = "az keyvault show --name %s --query properties.%s"
	switch {
	case hardware:
		p.say("HSM", nil, "it keeps keys in an HSM")
	case c.cloud == nil:
		p.say("HSM", nil, "the practice vault plays one")
	default:
		p.unknown("HSM", fmt.Sprintf("it must be premium:\n"+ask, c.name, "sku.name"), "a vault without an HSM key does not show whether it is Premium")
	}
	switch level := p.RecoveryLevel; {
	case level == "":
		p.unknown("soft delete", fmt.Sprintf("this shows it:\n"+ask, c.name, "enablePurgeProtection"), "a vault without keys does not show it")
	case !strings.Contains(level, "Recoverable"):
		p.say("soft delete", control.VaultRequest.Refuse("a key that is deleted by mistake is lost: the recovery level is %s", control.Quote(level)).
			WithHint("enable soft delete and purge protection of the vault"), "")
	default:
		p.say("soft delete", nil, "recovery level %s", level)
	}
	p.unknown("right to create and import keys", "the account needs create and import on keys (role Key Vault Crypto Officer, in a Managed HSM: Managed HSM Crypto User)",
		"only making a key would show it")
}

// say adds a check that holds, or that failed with err.
func (p *Probe) say(name string, err error, format string, args ...any) {
	var refusal *control.Refusal
	if errors.As(err, &refusal) {
		p.Checks = append(p.Checks, Check{name, Failed, refusal.Message, refusal.Control.ID, refusal.Hint})
		return
	}
	p.Checks = append(p.Checks, Check{Name: name, Verdict: OK, Text: fmt.Sprintf(format, args...)})
}

func (p *Probe) unknown(name, hint, text string) {
	p.Checks = append(p.Checks, Check{Name: name, Verdict: Unknown, Text: text, Hint: hint})
}
