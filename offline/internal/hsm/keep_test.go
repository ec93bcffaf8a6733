// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"bytes"
	"crypto/rsa"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"keyferry/pkg/control"
)

func TestKeep(t *testing.T) {
	token, _ := newToken(t)
	key := vectorKey(t, "contoso-mode2")
	before := allObjects(t, token)
	for _, retain := range []bool{false, true} {
		proven := imported(t, token, key)
		kept, err := proven.Keep(KeepOptions{Label: "contoso", RetainExtractable: retain})
		if err != nil {
			t.Fatal(err)
		}
		want := Attributes{Token: true, Private: true, Sensitive: true, Extractable: retain}
		if kept.Attributes != want {
			t.Errorf("retain %t: got %+v, want %+v", retain, kept.Attributes, want)
		}
		if id := KeyID(&key.PublicKey); !bytes.Equal(kept.ID, id) || kept.Label != "contoso" || kept.Adopted {
			t.Errorf("%+v", kept)
		}
		if err := kept.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := proven.session.Destroy(); err != nil {
			t.Fatal(err)
		}
		if after := allObjects(t, token); after != before+1 { // the transport pair
			t.Errorf("%d objects before, %d after", before, after)
		}
	}
}

func TestExists(t *testing.T) {
	token, _ := newToken(t)
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	proven := imported(t, token, key)
	kept, err := proven.Keep(KeepOptions{Label: "contoso"})
	if err != nil {
		t.Fatal(err)
	}
	for _, relist := range []bool{false, true} {
		for _, test := range []struct {
			name   string
			label  string
			public *rsa.PublicKey
			resume bool
			free   bool
		}{
			{"free", "fabrikam", &other.PublicKey, false, true},
			{"free, resumed", "fabrikam", &other.PublicKey, true, true},
			{"same key and label", "contoso", &key.PublicKey, false, false},
			{"same key and label, resumed", "contoso", &key.PublicKey, true, true},
			{"label in use", "contoso", &other.PublicKey, false, false},
			{"label in use, resumed", "contoso", &other.PublicKey, true, false},
			{"CKA_ID in use", "fabrikam", &key.PublicKey, false, false},
			{"CKA_ID in use, resumed", "fabrikam", &key.PublicKey, true, false},
		} {
			t.Run(test.name, func(t *testing.T) {
				token.listed = !relist
				err := token.CheckFree(test.label, test.public, test.resume)
				if test.free && err != nil {
					t.Error(err)
				}
				if !test.free {
					refused(t, err, control.HSMExists)
					if another := strings.Contains(hint(err), "another identifier does not help"); another != (test.public == &key.PublicKey) {
						t.Errorf("hint: %s", hint(err))
					}
				}
			})
		}
	}
	for _, o := range []KeepOptions{{Label: "contoso"}, {Label: "fabrikam"}} {
		_, err := proven.Keep(o)
		refused(t, err, control.HSMExists)
	}
	if err := kept.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := token.CheckFree("contoso", &key.PublicKey, false); err != nil {
		t.Errorf("after its removal: %v", err)
	}
}

func TestResume(t *testing.T) {
	token, _ := newToken(t)
	key := vectorKey(t, "contoso-mode2")
	proven := imported(t, token, key)
	kept, err := proven.Keep(KeepOptions{Label: "contoso"})
	if err != nil {
		t.Fatal(err)
	}
	full := allObjects(t, token)
	resume := func(want int) *Kept {
		t.Helper()
		again, err := proven.Keep(KeepOptions{Label: "contoso", Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(again.made) != want || !bytes.Equal(again.ID, kept.ID) {
			t.Errorf("made %d objects, want %d: %+v", len(again.made), want, again)
		}
		if now := allObjects(t, token); now != full {
			t.Errorf("%d objects, want %d", now, full)
		}
		return again
	}
	again := resume(0)
	if err := again.Remove(); err != nil || !again.Adopted || allObjects(t, token) != full {
		t.Errorf("removing what was adopted: %v, %+v", err, again)
	}
	// Either half may be what an interrupted run left.
	for i, made := range kept.made {
		h := made.Handle
		if err := token.ck.DestroyObject(token.session, h); err != nil {
			t.Fatal(err)
		}
		token.listed = false
		if got := resume(1).Adopted; got != (i == 1) {
			t.Errorf("half %d: adopted %t", i, got)
		}
	}

	// A key that stayed extractable is not taken up as one that did not, nor removed.
	real := token.ck
	defer func() { token.ck = real }()
	token.ck = &fake{cryptoki: real, getAttribute: func(_ pkcs11.ObjectHandle, a *pkcs11.Attribute) ([]byte, error, bool) {
		return []byte{1}, nil, a.Type == pkcs11.CKA_EXTRACTABLE
	}}
	_, err = proven.Keep(KeepOptions{Label: "contoso", Resume: true})
	refused(t, err, control.HSMAttributes)
	token.ck = real
	if now := allObjects(t, token); now != full {
		t.Errorf("%d objects, want %d", now, full)
	}
}

// A copy without a name, as SoftHSM leaves when it is killed, is removed; that
// of another key is not.
func TestResumeRemovesNameless(t *testing.T) {
	token, _ := newToken(t)
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-utf16")
	proven := imported(t, token, key)
	for _, k := range []*ProvenKey{proven, imported(t, token, other)} {
		if _, err := token.ck.CopyObject(token.session, k.handle, template{attr(pkcs11.CKA_TOKEN, true)}); err != nil {
			t.Fatal(err)
		}
	}
	token.listed = false
	before := allObjects(t, token)
	if _, err := proven.Keep(KeepOptions{Label: "contoso", Resume: true}); err != nil {
		t.Fatal(err)
	}
	if now := allObjects(t, token); now != before-1+2 {
		t.Errorf("%d objects, want one less and the pair: %d", now, before-1+2)
	}
}

// Another key behind the label and CKA_ID of ours is not taken for ours.
func TestResumeRefusesImpostor(t *testing.T) {
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	id := KeyID(&key.PublicKey)
	named := template{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, "contoso"), attr(pkcs11.CKA_ID, id)}
	t.Run("other modulus", func(t *testing.T) {
		token, _ := newToken(t)
		if _, err := token.ck.CreateObject(token.session, publicTemplate(&other.PublicKey, named...)); err != nil {
			t.Fatal(err)
		}
		_, err := imported(t, token, key).Keep(KeepOptions{Label: "contoso", Resume: true})
		refused(t, err, control.HSMExists)
	})
	t.Run("two of a class", func(t *testing.T) {
		token, _ := newToken(t)
		for range 2 {
			if _, err := token.ck.CreateObject(token.session, publicTemplate(&key.PublicKey, named...)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := imported(t, token, key).Keep(KeepOptions{Label: "contoso", Resume: true})
		refused(t, err, control.HSMExists)
	})
	t.Run("private key that does not work", func(t *testing.T) {
		token, _ := newToken(t)
		proven := imported(t, token, key)
		if _, err := proven.Keep(KeepOptions{Label: "contoso"}); err != nil {
			t.Fatal(err)
		}
		token.ck = &fake{cryptoki: token.ck, sign: func(b []byte) ([]byte, error) { return b[1:], nil }}
		_, err := proven.Keep(KeepOptions{Label: "contoso", Resume: true})
		refused(t, err, control.HSMPossession)
	})
}

func TestKeepFailureLeavesNothing(t *testing.T) {
	token, _ := newToken(t)
	real := token.ck
	defer func() { token.ck = real }()
	proven := imported(t, token, vectorKey(t, "contoso-mode2"))
	before := allObjects(t, token)
	full := func(template) error { return pkcs11.Error(pkcs11.CKR_DEVICE_MEMORY) }
	for name, f := range map[string]*fake{
		"private key not stored": {copyObject: func() error { return full(nil) }},
		"public key not stored":  {createObject: full},
	} {
		t.Run(name, func(t *testing.T) {
			f.cryptoki = real
			token.ck = f
			_, err := proven.Keep(KeepOptions{Label: "contoso"})
			refused(t, err, control.HSMCall)
			if after := allObjects(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
	for name, typ := range map[string]uint{"label": pkcs11.CKA_LABEL, "modulus": pkcs11.CKA_MODULUS, "exponent": pkcs11.CKA_PUBLIC_EXPONENT} {
		t.Run("another "+name+" stored", func(t *testing.T) {
			token.ck = &fake{cryptoki: real, getAttribute: func(_ pkcs11.ObjectHandle, a *pkcs11.Attribute) ([]byte, error, bool) {
				return []byte{3}, nil, a.Type == typ
			}}
			_, err := proven.Keep(KeepOptions{Label: "contoso"})
			refused(t, err, control.HSMAttributes)
			if after := allObjects(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
	t.Run("nor removed", func(t *testing.T) {
		token.ck = &fake{cryptoki: real, createObject: full, destroyObject: func(pkcs11.ObjectHandle) error { return full(nil) }}
		_, err := proven.Keep(KeepOptions{Label: "contoso"})
		refused(t, err, control.HSMLeftover)
		refused(t, err, control.HSMCall)
		token.ck = real
		if _, err := proven.Keep(KeepOptions{Label: "contoso", Resume: true}); err != nil {
			t.Errorf("what was left cannot be taken up: %v", err)
		}
	})
}

// A token that can't copy takes the key in again, as a token object.
func TestKeepWithoutCopy(t *testing.T) {
	for first, way := range map[int]string{0: "C_UnwrapKey CKM_AES_KEY_WRAP_PAD", createWay: "C_CreateObject"} {
		t.Run(way, func(t *testing.T) {
			token, _ := newToken(t)
			token.ways = make([]Verdict, first)
			real := token.ck
			token.ck = &fake{cryptoki: real, copyObject: func() error { return pkcs11.Error(pkcs11.CKR_FUNCTION_NOT_SUPPORTED) }}
			proven := imported(t, token, vectorKey(t, "contoso-mode2"))
			before := allObjects(t, token)
			for _, retain := range []bool{false, true} {
				kept, err := proven.Keep(KeepOptions{Label: "contoso", RetainExtractable: retain})
				if err != nil {
					t.Fatal(err)
				}
				if want := (Attributes{Token: true, Private: true, Sensitive: true, Extractable: retain}); kept.Attributes != want {
					t.Errorf("%+v, want %+v", kept.Attributes, want)
				}
				if err := kept.Remove(); err != nil {
					t.Fatal(err)
				}
			}
			// What comes in the second time is proven too.
			token.ck = &fake{cryptoki: token.ck, sign: func(b []byte) ([]byte, error) { return b[1:], nil }}
			_, err := proven.Keep(KeepOptions{Label: "contoso"})
			refused(t, err, control.HSMPossession)
			token.ck = real
			if after := allObjects(t, token); after != before {
				t.Errorf("%d objects before, %d after", before, after)
			}
		})
	}
}

// A key that another program stored after the listing is seen at the end.
func TestCheckAlone(t *testing.T) {
	key, other := vectorKey(t, "contoso-mode2"), vectorKey(t, "contoso-anyone")
	id := KeyID(&key.PublicKey)
	label := attr(pkcs11.CKA_LABEL, "contoso")
	for _, test := range []struct {
		name  string
		twin  template
		alone bool
	}{
		{"another key", publicTemplate(&other.PublicKey, attr(pkcs11.CKA_LABEL, "fabrikam"), attr(pkcs11.CKA_ID, "1")), true},
		{"same key", publicTemplate(&key.PublicKey, label, attr(pkcs11.CKA_ID, id)), false},
		{"same label", publicTemplate(&other.PublicKey, label, attr(pkcs11.CKA_ID, "1")), false},
		{"same CKA_ID", publicTemplate(&key.PublicKey, attr(pkcs11.CKA_LABEL, "fabrikam"), attr(pkcs11.CKA_ID, id)), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			token, _ := newToken(t)
			kept, err := imported(t, token, key).Keep(KeepOptions{Label: "contoso"})
			if err != nil {
				t.Fatal(err)
			}
			if err := token.CheckAlone(kept); err != nil {
				t.Error(err)
			}
			if _, err := token.ck.CreateObject(token.session, append(test.twin, attr(pkcs11.CKA_TOKEN, true))); err != nil {
				t.Fatal(err)
			}
			err = token.CheckAlone(kept)
			if test.alone && err != nil {
				t.Error(err)
			}
			if !test.alone {
				refused(t, err, control.HSMExists)
			}
			if err := kept.Remove(); err != nil { // its own alone
				t.Fatal(err)
			}
			if left := allStored(t, token); left != 1 {
				t.Errorf("%d objects are left", left)
			}
			refused(t, token.CheckAlone(kept), control.HSMExists)
		})
	}
}
