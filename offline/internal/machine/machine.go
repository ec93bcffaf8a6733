// SPDX-License-Identifier: Apache-2.0

// Package machine tells what connects the machine to a network, or could.
//
// Connected are, on each system:
//
//   - an interface, not the loopback, that is up and has a carrier, or is a
//     tunnel and up;
//   - a default route;
//   - a radio that transmits (wireless LAN, Bluetooth, mobile) and is not
//     switched off;
//   - a TCP connection to another machine;
//   - what can't be known of these.
//
// Told besides: interfaces without carrier, addresses, other routes, and sockets
// that listen to other machines. No packet is sent, no socket opened.
package machine

import (
	"fmt"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// Finding is one thing that connects the machine, or could.
type Finding struct {
	About     string `json:"about"`     // interface, address, route, radio, socket; on Windows memory, stick too
	Connected bool   `json:"connected"` // it connects the machine now
	Text      string `json:"text"`
}

// Refuse is the refusal of a connected machine (KF-AIRGAP-CONNECTED), nil for
// one that is not.
func Refuse(found []Finding) error {
	var why []string
	for _, f := range found {
		if f.Connected {
			why = append(why, f.Text)
		}
	}
	if why == nil {
		return nil
	}
	return control.Connected.Refuse("this machine is connected: %s", strings.Join(why, "; ")).WithHint("%s; %s", wayOff, accept)
}

const accept = "what must stay as it is can be accepted with --unsafe-network-present, which ledger and bundle record"

// gathered are findings.
type gathered []Finding

func (g *gathered) tell(about string, connected bool, format string, args ...any) {
	f := Finding{about, connected, fmt.Sprintf(format, args...)}
	if !slices.Contains(*g, f) {
		*g = append(*g, f)
	}
}
