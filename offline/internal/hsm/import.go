// SPDX-License-Identifier: Apache-2.0

package hsm

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"keyferry/offline/internal/module"
	"keyferry/pkg/byok"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
)

// SessionKey is a private key in the token's session memory: it ends with
// Destroy, or with the session.
type SessionKey struct {
	Way string // how it came in, as the verdict of the proven way names it

	token  *Token
	handle pkcs11.ObjectHandle
	again  func(template) (pkcs11.ObjectHandle, error) // brings it in the same way as another object
}

// Keeps reports whether the token keeps all it is given: whether it has no
// session objects, but declines them or stores them. It is found out by a public
// key, which gives nothing away, before any other key is made.
func (t *Token) Keeps() (bool, error) {
	if t.keeps != nil {
		return *t.keeps, nil
	}
	if err := t.list(); err != nil {
		return false, err
	}
	t.next("make a public key for a moment")
	modulus := make([]byte, 256)
	rand.Read(modulus) // never fails
	modulus[0], modulus[255] = modulus[0]|0x80, modulus[255]|1
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	asked := publicTemplate(key, attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_LABEL, ThrowAway(key)))
	h, err := t.ck.CreateObject(t.session, asked)
	if err != nil {
		h, err = t.ck.CreateObject(t.session, append(asked, attr(pkcs11.CKA_PRIVATE, true)))
	}
	if is(err, lost...) { // a YubiHSM says so, too, when it can't compare the key with one of another kind
		t.listed = false
		if e := t.list(); e != nil {
			return false, e
		}
	}
	keeps := err != nil
	if err == nil {
		told, err := t.Ask(h, pkcs11.CKA_TOKEN)
		if err == nil {
			keeps = len(told[0]) != 1 || told[0][0] != 0
		}
		if err := errors.Join(err, t.ck.DestroyObject(t.session, h)); err != nil {
			return false, module.Failed("destroy a public key that it made", err)
		}
	}
	t.keeps = &keeps
	return keeps, nil
}

// Import brings key into the token as a session object by the first of these
// ways that is proven on a throw-away key: C_UnwrapKey under a key pair that
// was made in the token, C_UnwrapKey under an AES key, C_CreateObject. The
// object is private and sensitive, and extractable since it is to be wrapped.
// Refuses other than two-prime keys of 2048, 3072 or 4096 bits
// (KF-HSM-KEY-SIZE), a token that takes keys in no way (KF-HSM-IMPORT) and one
// from which the key can be read again (KF-HSM-ATTRIBUTES). A token that keeps all
// it is given is for Store.
//
// key is to be cleared by the caller, but not before Keep: a token that can't
// copy an object takes the key in once more.
func (t *Token) Import(key *rsa.PrivateKey) (*SessionKey, error) {
	if err := errors.Join(checkSize(key), t.Interrupted()); err != nil {
		return nil, err
	}
	if keeps, err := t.Keeps(); err != nil || keeps {
		return nil, cmp.Or(err, error(NoWay(t.chosen.Slot, []Verdict{{Mechanism: "a session object", Cause: errors.New("the token keeps all it is given")}})))
	}
	var ways []Verdict
	for i, way := range importWays {
		verdict, err := t.proveWay(i)
		if err != nil {
			return nil, err
		}
		if verdict.Result == Exact {
			t.next("take the key in")
			again := func(asked template) (pkcs11.ObjectHandle, error) { return t.bring(way, key, asked) }
			handle, err := t.brief(again(privateTemplate()))
			if err == nil {
				if _, err := t.inspect(handle, protection{extractable: true}); err != nil {
					t.destroy(handle, &err)
					return nil, err
				}
				return &SessionKey{Way: way.name, token: t, handle: handle, again: again}, nil
			}
			verdict.Result = None
			verdict.Judged(err)
		}
		ways = append(ways, verdict)
	}
	t.ways = nil // a token that has been mended meanwhile is tried again
	return nil, NoWay(t.chosen.Slot, ways)
}

func checkSize(key *rsa.PrivateKey) error {
	if slices.Contains(byok.KeyBits, key.N.BitLen()) && len(key.Primes) == 2 {
		return nil
	}
	return control.HSMKeySize.Refuse("the key is RSA of %d bits with %d primes, not of 2048, 3072 or 4096 bits with two", key.N.BitLen(), len(key.Primes))
}

// NoWay is the refusal of a token that takes no key in: a table of the reasons, each
// with its ways. The hint is that of the first answer that has one of its own, or of
// a slot that holds no private keys.
func NoWay(slot module.Slot, ways []Verdict) *control.Refusal {
	reasons := reasonsOf(ways)
	hint := cmp.Or(reasons.Hint(), "what stands beside each way says why: allow the import of private keys in the HSM's security policy where that forbids it, or use another HSM")
	if !slot.NeedPIN && errors.Is(reasons, pkcs11.Error(pkcs11.CKR_TEMPLATE_INCONSISTENT)) {
		hint = "this slot has no login, and such a slot may hold no private keys (nShield's accelerator slot): choose the slot of a softcard or of a card set"
	}
	return control.HSMImport.Refuse("the token takes no private key in, by none of the ways tried:%w", reasons).WithHint("%s", hint)
}

// ProveWays tries each way in on a throw-away key.
func (t *Token) ProveWays() ([]Verdict, error) {
	for i := range importWays {
		if _, err := t.proveWay(i); err != nil {
			return nil, err
		}
	}
	return slices.Clone(t.ways), nil // Import forgets them if all fail
}

// proveWay tries importWays[i] on the throw-away key, once: it comes in, is
// protected as asked, and is the key.
func (t *Token) proveWay(i int) (verdict Verdict, err error) {
	if i < len(t.ways) {
		return t.ways[i], nil
	}
	if err := t.Interrupted(); err != nil {
		return verdict, err
	}
	trial, err := t.trialKeys()
	if err != nil {
		return verdict, err
	}
	way := importWays[i]
	t.next("try " + way.name)
	verdict = Verdict{Mechanism: way.name, ID: way.number(), Result: None}
	handle, err := t.brief(t.bring(way, trial.key, privateTemplate()))
	if err == nil {
		verdict.Result = Flawed
		if _, err = t.inspect(handle, protection{extractable: true}); err == nil {
			err = t.possesses(handle, &trial.key.PublicKey)
		}
		if err := t.drop(handle); err != nil {
			return verdict, err
		}
	}
	verdict.Judged(err)
	t.ways = append(t.ways, verdict)
	return verdict, nil
}

// Destroy ends the session object.
func (k *SessionKey) Destroy() error { return k.token.drop(k.handle) }

// importWay is a way to bring a private key in.
type importWay struct {
	name  string
	wraps wrapMechanism // the zero one: the key comes in by its components
	pair  bool          // under the transport pair; else under an AES key that comes in by its value
}

func (w importWay) number() string {
	if w.wraps.id == 0 {
		return ""
	}
	return w.wraps.number()
}

// importWays are tried in this order: those by which the key crosses the
// interface under a key that no software knows come first, then those by which
// it crosses it wrapped.
var importWays = func() []importWay {
	ways := []importWay{{"C_UnwrapKey " + rsaAES.name, rsaAES, true}}
	for _, m := range unwrapMechanisms {
		ways = append(ways, importWay{"C_UnwrapKey " + m.name, m, true})
	}
	for _, m := range unwrapMechanisms {
		ways = append(ways, importWay{"C_UnwrapKey " + m.name + " under an AES key", m, false})
	}
	return append(ways, importWay{name: "C_CreateObject"})
}()

// bring brings key in by a way, as the object that asked describes.
func (t *Token) bring(way importWay, key *rsa.PrivateKey, asked template) (handle pkcs11.ObjectHandle, err error) {
	if way.wraps.id == 0 {
		return t.create(key, asked)
	}
	var pair *transportPair
	if way.pair {
		if pair, err = t.transportKeys(); err != nil {
			return 0, err
		}
	}
	if way.wraps == rsaAES { // the very layout that the vault takes
		wrapped, err := byok.Wrap(rand.Reader, key, &pair.public)
		if err != nil {
			return 0, err
		}
		return t.unwrapKey(rsaAES.call(), pair.private, wrapped, asked)
	}

	// A fresh AES key comes in, and under it the key.
	aesKey := make([]byte, 32)
	rand.Read(aesKey) // never fails
	defer clear(aesKey)
	var sealed []byte
	var open []*pkcs11.Mechanism
	secret.Do(func() { sealed, open, err = way.wraps.seal(aesKey, key) })
	if err != nil {
		return 0, err
	}
	var under pkcs11.ObjectHandle
	if way.pair {
		carried, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, &pair.public, aesKey, nil)
		if err != nil {
			return 0, err
		}
		// Luna before firmware 7.9.3 wants the length, AWS CloudHSM forbids it.
		under, err = t.brief(t.unwrapKey(oaep(), pair.private, carried, aesTemplate(), append(aesTemplate(), attr(pkcs11.CKA_VALUE_LEN, 32))))
		if err != nil {
			return 0, err
		}
	} else {
		value := attr(pkcs11.CKA_VALUE, aesKey)
		defer clear(value.Value)
		if under, err = t.brief(t.ck.CreateObject(t.session, append(aesTemplate(), value))); err != nil {
			return 0, err
		}
	}
	defer t.destroy(under, &err)
	return t.unwrapKey(open, under, sealed, asked)
}

// unwrapKey is C_UnwrapKey. Some tokens don't know CKA_UNWRAP of what they unwrap.
func (t *Token) unwrapKey(open []*pkcs11.Mechanism, under pkcs11.ObjectHandle, sealed []byte, asked ...template) (pkcs11.ObjectHandle, error) {
	if len(asked) == 1 {
		asked = append(asked, without(asked[0], pkcs11.CKA_UNWRAP))
	}
	return firstOf(func(asked template) (pkcs11.ObjectHandle, error) {
		return t.ck.UnwrapKey(t.session, open, under, sealed, asked)
	}, asked...)
}

// create brings key in by its components: all eight, since SoftHSM takes a key
// without CRT members and then fails to wrap it.
func (t *Token) create(key *rsa.PrivateKey, asked template) (pkcs11.ObjectHandle, error) {
	key.Precompute()
	secret := template{
		attr(pkcs11.CKA_MODULUS, key.N.Bytes()),
		attr(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(key.E)).Bytes()),
		attr(pkcs11.CKA_PRIVATE_EXPONENT, key.D.Bytes()),
		attr(pkcs11.CKA_PRIME_1, key.Primes[0].Bytes()),
		attr(pkcs11.CKA_PRIME_2, key.Primes[1].Bytes()),
		attr(pkcs11.CKA_EXPONENT_1, key.Precomputed.Dp.Bytes()),
		attr(pkcs11.CKA_EXPONENT_2, key.Precomputed.Dq.Bytes()),
		attr(pkcs11.CKA_COEFFICIENT, key.Precomputed.Qinv.Bytes()),
	}
	defer func() {
		for _, a := range secret {
			clear(a.Value)
		}
	}()
	return firstOf(func(asked template) (pkcs11.ObjectHandle, error) {
		return t.ck.CreateObject(t.session, slices.Concat(asked, secret))
	}, asked, without(asked, pkcs11.CKA_UNWRAP))
}

// privateTemplate describes the session object of an imported key, all but the
// key itself.
func privateTemplate() template {
	return template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, true),
		attr(pkcs11.CKA_SIGN, true),
		attr(pkcs11.CKA_DECRYPT, true),
		attr(pkcs11.CKA_UNWRAP, false), // SoftHSM's default is true
	}
}

// aesTemplate describes the session object of an AES key under which a key
// comes in.
func aesTemplate() template {
	return template{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false),
		attr(pkcs11.CKA_UNWRAP, true),
	}
}

// transportPair is a key pair that was made in the token for keys to come in
// under. It lives as long as the session.
type transportPair struct {
	public  rsa.PublicKey
	private pkcs11.ObjectHandle
}

// transportKeys returns the transport pair, made at its first use.
func (t *Token) transportKeys() (pair *transportPair, err error) {
	if t.transport != nil {
		return t.transport, nil
	}
	// A call that can make nothing comes first: without C_UnwrapKey no pair is of use.
	if _, err := t.ck.UnwrapKey(t.session, oaep(), 0, make([]byte, 256), aesTemplate()); is(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return nil, err
	}
	// 2048 bits are quick to make, and guard a way that does not leave the machine.
	publicHandle, private, err := t.ck.GenerateKeyPair(t.session, mechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil),
		template{
			attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_WRAP, true),
			attr(pkcs11.CKA_MODULUS_BITS, 2048),
			attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
		},
		template{
			attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_PRIVATE, true),
			attr(pkcs11.CKA_SENSITIVE, true),
			attr(pkcs11.CKA_EXTRACTABLE, false),
			attr(pkcs11.CKA_UNWRAP, true),
		})
	if err != nil {
		return nil, err
	}
	t.temporary[private] = true
	defer t.destroy(publicHandle, &err)
	public, err := t.PublicKey(publicHandle)
	if err != nil {
		return nil, module.Failed("read the public key of a pair that it made", err)
	}
	t.transport = &transportPair{public: *public, private: private}
	return t.transport, nil
}
