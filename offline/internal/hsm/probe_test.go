// SPDX-License-Identifier: Apache-2.0

package hsm_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/probe"
	"keyferry/pkg/control"
	"keyferry/test/vectors"
)

func init() {
	hsm.Above.Probe = func(token *hsm.Token) (imports, wraps, uses []hsm.Verdict, noSigner string, err error) {
		report, err := probe.Run(token, false)
		if err != nil {
			return nil, nil, nil, "", err
		}
		return report.Imports, report.Wraps, report.Uses, report.NoSigner, nil
	}
}

// Probing leaves nothing and says the same again.
func TestProbeLeavesNothing(t *testing.T) {
	token, _ := hsm.NewToken(t)
	run := func() string {
		t.Helper()
		report, err := probe.Run(token, false)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(report)
		return string(text)
	}
	one := run()
	before := hsm.AllObjects(t, token) // the transport pair
	two := run()
	if after := hsm.AllObjects(t, token); after != before || before != 1 {
		t.Errorf("%d objects after the first, %d after the second", before, after)
	}
	if one != two {
		t.Errorf("%s\n%s", one, two)
	}
	for _, field := range []string{`"imports":[{"mechanism":"C_UnwrapKey CKM_RSA_AES_KEY_WRAP","id":"0x00001054","result":"none"`, `"uses":[`, `"module":{"manufacturer":"SoftHSM"`} {
		if !strings.Contains(one, field) {
			t.Errorf("%s is not in %s", field, one)
		}
	}
}

// A token that hands out what comes in is flawed, and is given no real key.
func TestProbeFlaws(t *testing.T) {
	for _, test := range []struct {
		name string
		fake hsm.Fake
		want string // in the reasons of the imports
	}{
		{"not sensitive", hsm.Fake{Attribute: func(_ pkcs11.ObjectHandle, a *pkcs11.Attribute) ([]byte, error, bool) {
			return []byte{0}, nil, a.Type == pkcs11.CKA_SENSITIVE
		}}, "not sensitive"},
		{"signs wrongly", hsm.Fake{Sign: func(b []byte) ([]byte, error) { b[0] ^= 1; return b, nil }}, "does not verify"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, _ := hsm.NewToken(t)
			test.fake.Before(token)
			report, err := probe.Run(token, false)
			if err != nil {
				t.Fatal(err)
			}
			flawed := 0
			for _, v := range report.Imports {
				if v.Result == hsm.Exact {
					t.Errorf("%+v", v)
				}
				if v.Result == hsm.Flawed && strings.Contains(v.Reason, test.want) {
					flawed++
				}
			}
			if flawed != 3 {
				t.Errorf("%d ways are flawed: %+v", flawed, report.Imports)
			}
			for _, v := range append(report.Wraps, report.Uses[:2]...) {
				if v.Result != hsm.None {
					t.Errorf("%+v", v)
				}
			}
			_, err = token.Import(vectors.OneTPD(t, "contoso-mode2").Key)
			hsm.Refused(t, err, control.HSMImport)
			if left := hsm.AllObjects(t, token); left != 1 { // the transport pair
				t.Errorf("%d objects are left", left)
			}
		})
	}
}

func TestRandom(t *testing.T) {
	for _, test := range []struct {
		name string
		draw func(int) ([]byte, error)
		want hsm.Result
	}{
		{"the same again", func(n int) ([]byte, error) { return make([]byte, n), nil }, hsm.Flawed},
		{"nothing", func(int) ([]byte, error) { return nil, nil }, hsm.Flawed},
		{"fails", func(int) ([]byte, error) { return nil, pkcs11.Error(pkcs11.CKR_RANDOM_NO_RNG) }, hsm.None},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, _ := hsm.NewToken(t)
			hsm.Fake{Random: test.draw}.Before(token)
			report, err := probe.Run(token, false)
			if err != nil {
				t.Fatal(err)
			}
			if v := report.Uses[3]; v.Result != test.want || v.Reason == "" {
				t.Errorf("%+v", v)
			}
		})
	}
}
