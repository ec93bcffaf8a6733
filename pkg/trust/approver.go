// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/sshsig"
)

// Approver is a person who may approve bundles, by an SSH key of their own.
type Approver struct {
	Name string           `json:"name"` // for people; the key is what counts
	Key  sshsig.PublicKey `json:"key"`
}

// String names the approver to people: name, and the fingerprint that
// ssh-keygen -l prints.
func (a Approver) String() string { return a.Name + " (" + a.Key.Fingerprint().SSH() + ")" }

// approverSyntax keeps names safe to show.
var approverSyntax = regexp.MustCompile(`^[0-9A-Za-z][ -~]{0,99}$`)

// Valid reports whether the approver has a key and a name that is safe to show.
func (a Approver) Valid() bool { return approverSyntax.MatchString(a.Name) && a.Key.String() != "" }

// ReadApprover reads the .pub file of an SSH key. The approver is named by the
// key's comment, else by the file (KF-TRUST-APPROVER).
func ReadApprover(path string, file []byte) (Approver, error) {
	line := strings.TrimSpace(string(file))
	key, err := sshsig.ParsePublicKey(line)
	if err == nil && strings.Contains(line, "\n") {
		err = fmt.Errorf("it has %d lines, and a public key has one", strings.Count(line, "\n")+1)
	}
	if err != nil {
		return Approver{}, control.About(control.Quote(path), filetype.Explain(control.TrustApprover.Refuse("%w", err), file, filetype.PublicKey))
	}
	name := strings.TrimSuffix(filepath.Base(path), ".pub")
	if fields := strings.Fields(line); len(fields) > 2 {
		name = strings.Join(fields[2:], " ")
	}
	if !approverSyntax.MatchString(name) {
		return Approver{}, control.TrustApprover.Refuse("%s names its owner %s, which is not a name in ASCII", control.Quote(path), control.Quote(name))
	}
	return Approver{name, key}, nil
}

// CheckApprovers says what is wrong with the approvers: one is listed twice, or
// they can't reach the threshold.
func (w *World) CheckApprovers() error {
	if w.Threshold < 0 || w.Threshold > len(w.Approvers) {
		return fmt.Errorf("the security world asks for %d approvals of %d approvers", w.Threshold, len(w.Approvers))
	}
	for i, a := range w.Approvers {
		if !approverSyntax.MatchString(a.Name) {
			return fmt.Errorf("the approver %s is not named in ASCII", control.Quote(a.Name))
		}
		if slices.ContainsFunc(w.Approvers[:i], func(b Approver) bool { return a.Key.Equal(b.Key) }) {
			return fmt.Errorf("the key of the approver %s is listed twice", a)
		}
	}
	return nil
}

// ApprovalRule tells people who must approve a bundle before it is taken.
func (w *World) ApprovalRule() string {
	if w.Threshold == 0 {
		return "Bundles need no approval"
	}
	lines := []string{fmt.Sprintf("Each bundle must be approved by %d of", w.Threshold)}
	for _, a := range w.Approvers {
		lines = append(lines, "  "+a.String())
	}
	return strings.Join(lines, "\n")
}

// ApproverKeys lists the approvers' keys.
func (w *World) ApproverKeys() []sshsig.PublicKey {
	var keys []sshsig.PublicKey
	for _, a := range w.Approvers {
		keys = append(keys, a.Key)
	}
	return keys
}

// Who lists the approvers that own the keys, in the order of the keys.
func (w *World) Who(keys []sshsig.PublicKey) []Approver {
	who := []Approver{}
	for _, key := range keys {
		if i := slices.IndexFunc(w.Approvers, func(a Approver) bool { return a.Key.Equal(key) }); i >= 0 {
			who = append(who, w.Approvers[i])
		}
	}
	return who
}
