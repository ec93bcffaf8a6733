// SPDX-License-Identifier: Apache-2.0

package state

// checkPrivate: modes tell nothing here; durable gives the directory an access list.
func checkPrivate(string) error { return nil }
