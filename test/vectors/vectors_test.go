// SPDX-License-Identifier: Apache-2.0

package vectors

import "testing"

func TestVectorsAreComplete(t *testing.T) {
	for _, v := range AllTPD(t) {
		if len(v.XML) == 0 || len(v.Password) == 0 || v.GUID == "" || v.RootModulus == nil {
			t.Errorf("%s: export, password, GUID or root modulus is missing", v.Name)
		}
	}
	for _, v := range AllXrML(t) {
		if v.Text == "" {
			t.Errorf("%s: empty", v.Name)
		}
	}
	if v := OneTPD(t, "contoso-mode1"); v.Bits != 1024 || v.CSP != 1 || v.Templates != 2 || v.Fault != "" {
		t.Errorf("contoso-mode1 is read wrongly: %d bits, CSP %d, %d templates, fault %q", v.Bits, v.CSP, v.Templates, v.Fault)
	}
}
