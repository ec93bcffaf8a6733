// SPDX-License-Identifier: Apache-2.0

package main

import (
	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/tpd"
)

// This file is the way of a key that no cloud HSM takes, for its 1024 bits: it
// stays in its TPD, which travels as it is inside the encrypted bundle. No token
// has a part in it, and the connected side, the tenant and Microsoft see the key.

// checkManaged makes the checks of a TPD that is to travel with its key.
func (o *importOptions) checkManaged(domain *tpd.Domain) (tpd.Identity, error) {
	checked, err := domain.CheckedMicrosoftManaged(o.terms())
	if err != nil {
		return tpd.Identity{}, err
	}
	return checked.Identity, nil
}

func (e *export) disposition() string {
	if e.managed {
		return bundle.DispositionMicrosoftManaged
	}
	return bundle.DispositionHSM
}

// leavesName is the name of what leaves of the TPD, in the bundle.
func (e *export) leavesName() string {
	if e.managed {
		return bundle.WithKeyName(e.id)
	}
	return bundle.KeylessName(e.id)
}

// carryManaged begins with a TPD that is staged as it is.
func (c *carrier) carryManaged(e *export, dryRun bool) error {
	c.io.Warn("%s: the key itself travels, in its TPD, inside the encrypted bundle: the connected side, the tenant and Microsoft see it [%s]", e.id, control.TPDMode1.ID)
	if dryRun {
		return nil
	}
	return c.begin(e)
}
