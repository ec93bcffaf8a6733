// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"time"

	"github.com/miekg/pkcs11"
)

// fault is how a call goes wrong.
type fault string

const (
	nothingDone fault = "fails, nothing done"
	thoughDone  fault = "fails, though done"
	killed      fault = "done, and the process is killed"
	cutOff      fault = "fails, as all after it: the token is gone"
)

// kill is the panic that ends a run; what runs deferred reaches the token no more.
type kill struct{}

// faulty stands before a token, has one call go wrong, and times the others.
type faulty struct {
	cryptoki
	at    int // the call that does, from 1; 0 for none
	how   fault
	names []string // of the calls so far
	dead  bool
	spent time.Duration // in the calls so far
}

var errFault = pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)

func (f *faulty) call(name string, do func() error) error {
	if f.dead {
		return errFault
	}
	f.names = append(f.names, name)
	if len(f.names) != f.at {
		start := time.Now()
		defer func() { f.spent += time.Since(start) }()
		return do()
	}
	switch f.how {
	case cutOff:
		f.dead = true
	case thoughDone:
		if err := do(); err != nil {
			return err
		}
	case killed:
		_ = do() // whatever comes of it, nobody learns
		f.dead = true
		panic(kill{})
	}
	return errFault
}

// With a result.
func call[T any](f *faulty, name string, do func() (T, error)) (T, error) {
	var result, none T
	err := f.call(name, func() (err error) {
		result, err = do()
		return err
	})
	if err != nil {
		return none, err
	}
	return result, nil
}

type (
	session = pkcs11.SessionHandle
	handle  = pkcs11.ObjectHandle
	mechs   = []*pkcs11.Mechanism
)

func (f *faulty) FindObjectsInit(s session, t template) error {
	return f.call("C_FindObjectsInit", func() error { return f.cryptoki.FindObjectsInit(s, t) })
}

func (f *faulty) FindObjects(s session, n int) ([]handle, bool, error) {
	found, err := call(f, "C_FindObjects", func() ([]handle, error) {
		found, _, err := f.cryptoki.FindObjects(s, n)
		return found, err
	})
	return found, false, err
}

func (f *faulty) FindObjectsFinal(s session) error {
	return f.call("C_FindObjectsFinal", func() error { return f.cryptoki.FindObjectsFinal(s) })
}

func (f *faulty) GetAttributeValue(s session, h handle, t template) (template, error) {
	return call(f, "C_GetAttributeValue", func() (template, error) { return f.cryptoki.GetAttributeValue(s, h, t) })
}

func (f *faulty) SetAttributeValue(s session, h handle, t template) error {
	return f.call("C_SetAttributeValue", func() error { return f.cryptoki.SetAttributeValue(s, h, t) })
}

func (f *faulty) CreateObject(s session, t template) (handle, error) {
	return call(f, "C_CreateObject", func() (handle, error) { return f.cryptoki.CreateObject(s, t) })
}

func (f *faulty) CopyObject(s session, h handle, t template) (handle, error) {
	return call(f, "C_CopyObject", func() (handle, error) { return f.cryptoki.CopyObject(s, h, t) })
}

func (f *faulty) DestroyObject(s session, h handle) error {
	return f.call("C_DestroyObject", func() error { return f.cryptoki.DestroyObject(s, h) })
}

func (f *faulty) GenerateKey(s session, m mechs, t template) (handle, error) {
	return call(f, "C_GenerateKey", func() (handle, error) { return f.cryptoki.GenerateKey(s, m, t) })
}

func (f *faulty) GenerateKeyPair(s session, m mechs, public, private template) (handle, handle, error) {
	pair, err := call(f, "C_GenerateKeyPair", func() (pair [2]handle, err error) {
		pair[0], pair[1], err = f.cryptoki.GenerateKeyPair(s, m, public, private)
		return pair, err
	})
	return pair[0], pair[1], err
}

func (f *faulty) WrapKey(s session, m mechs, wrapping, key handle) ([]byte, error) {
	return call(f, "C_WrapKey", func() ([]byte, error) { return f.cryptoki.WrapKey(s, m, wrapping, key) })
}

func (f *faulty) UnwrapKey(s session, m mechs, key handle, wrapped []byte, t template) (handle, error) {
	return call(f, "C_UnwrapKey", func() (handle, error) { return f.cryptoki.UnwrapKey(s, m, key, wrapped, t) })
}

func (f *faulty) SignInit(s session, m mechs, h handle) error {
	return f.call("C_SignInit", func() error { return f.cryptoki.SignInit(s, m, h) })
}

func (f *faulty) Sign(s session, b []byte) ([]byte, error) {
	return call(f, "C_Sign", func() ([]byte, error) { return f.cryptoki.Sign(s, b) })
}

func (f *faulty) DecryptInit(s session, m mechs, h handle) error {
	return f.call("C_DecryptInit", func() error { return f.cryptoki.DecryptInit(s, m, h) })
}

func (f *faulty) Decrypt(s session, b []byte) ([]byte, error) {
	return call(f, "C_Decrypt", func() ([]byte, error) { return f.cryptoki.Decrypt(s, b) })
}
