// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"strings"

	"filippo.io/age"
)

// parseRecipient reads an age recipient of the two kinds that Keyferry makes:
// post-quantum hybrid, and classic X25519.
func parseRecipient(s string) (age.Recipient, error) {
	if strings.HasPrefix(s, "age1pq1") {
		return age.ParseHybridRecipient(s)
	}
	return age.ParseX25519Recipient(s)
}
