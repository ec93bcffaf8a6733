// SPDX-License-Identifier: Apache-2.0

package tpd_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	. "keyferry/pkg/tpd"
	"keyferry/pkg/tpd/utf16le"
	"keyferry/pkg/tpd/xmltree"
	"keyferry/test/vectors"
)

// draft is an export to be: a vector taken apart, for a test to change and put
// together again.
type draft struct {
	outer       string // with {DOCUMENT} and {KEY} in the place of the fields
	document    string
	chain       []string // put into the document where it says {CHAIN}
	templates   []string // likewise {TEMPLATES}
	blob        []byte
	password    []byte
	documentKDF func(password []byte) []byte
	keyKDF      func(password []byte) []byte
	slcKey      *rsa.PrivateKey
}

var (
	documentElement = regexp.MustCompile(`(<m_strTrustedDocDomainInfo>).*(</m_strTrustedDocDomainInfo>)`)
	keyElement      = regexp.MustCompile(`(<m_strKeyData>).*(</m_strKeyData>)`)
	chainElement    = regexp.MustCompile(`(?s)(<m_strLicensorCertChain>).*(</m_strLicensorCertChain>)`)
	templateElement = regexp.MustCompile(`(?s)(<m_astrRightsTemplates>).*(</m_astrRightsTemplates>)`)
)

// takeApart opens a good UTF-8 vector of the current derivation.
func takeApart(t testing.TB, v vectors.TPD) *draft {
	t.Helper()
	e, d := open(t, v)
	key := CurrentKey(v.Password)
	document, ok := DecryptField(e.Document(), key)
	blob, ok2 := DecryptField(e.Key(), key)
	if !ok || !ok2 {
		t.Fatalf("%s does not decrypt", v.Name)
	}
	outer := documentElement.ReplaceAllString(string(v.XML), "${1}{DOCUMENT}$2")
	return &draft{
		outer:    keyElement.ReplaceAllString(outer, "${1}{KEY}$2"),
		document: templateElement.ReplaceAllString(chainElement.ReplaceAllString(string(document), "${1}{CHAIN}$2"), "${1}{TEMPLATES}$2"),
		chain:    asTheyStand(d.Chain), templates: asTheyStand(d.Templates), blob: blob, password: v.Password,
		documentKDF: CurrentKey, keyKDF: CurrentKey, slcKey: v.Key,
	}
}

func asTheyStand(texts []xmltree.Text) []string {
	var all []string
	for _, text := range texts {
		all = append(all, text.AsIs)
	}
	return all
}

// export puts the draft together.
func (d *draft) export() []byte {
	document := strings.Replace(d.document, "{CHAIN}", stringElements(d.chain), 1)
	document = strings.Replace(document, "{TEMPLATES}", stringElements(d.templates), 1)
	outer := strings.Replace(d.outer, "{DOCUMENT}", base64.StdEncoding.EncodeToString(EncryptField([]byte(document), d.documentKDF(d.password))), 1)
	return []byte(strings.Replace(outer, "{KEY}", base64.StdEncoding.EncodeToString(EncryptField(slices.Clone(d.blob), d.keyKDF(d.password))), 1))
}

// otherIssuer is a key to issue certificates with.
var otherIssuer = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// reissue replaces the old by the new in the certificate's body, and signs it
// with the key. With issuerNamed the certificate names that key as its
// issuer's.
func reissue(t testing.TB, text, old, new string, key *rsa.PrivateKey, issuerNamed bool) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("%q is not in the certificate", old)
	}
	text = strings.Replace(text, old, new, 1)
	if issuerNamed {
		text = nameIssuerKey(text, &key.PublicKey)
	}
	from, to := strings.Index(text, "<BODY"), strings.Index(text, "</BODY>")+len("</BODY>")
	hash := crypto.SHA256
	if strings.Contains(text, "SHA1") {
		hash = crypto.SHA1
	}
	h := hash.New()
	h.Write(utf16le.Encode([]byte(text[from:to])))
	sum := h.Sum(nil)
	signature, err := rsa.SignPKCS1v15(nil, key, hash, sum)
	if err != nil {
		t.Fatal(err)
	}
	return text[:to] + signatureElement(strings.ReplaceAll(hash.String(), "-", ""), sum, signature) + "</XrML>"
}

func signatureElement(algorithm string, sum, signature []byte) string {
	value := func(b []byte) string {
		return fmt.Sprintf(`<VALUE encoding="base64" size="%d">%s</VALUE>`, 8*len(b), base64.StdEncoding.EncodeToString(b))
	}
	return `<SIGNATURE><DIGEST><ALGORITHM>` + algorithm + `</ALGORITHM><PARAMETER name="codingtype"><VALUE encoding="string">surface-coding</VALUE></PARAMETER>` +
		value(sum) + `</DIGEST><ALGORITHM>RSA PKCS#1-V1.5</ALGORITHM>` + value(signature) + `</SIGNATURE>`
}

var modulusValue = regexp.MustCompile(`(<PARAMETER name="modulus"><VALUE encoding="base64" size=")\d+(">)[^<]*`)

// nameIssuerKey writes the key over the first modulus, the issuer's.
func nameIssuerKey(text string, key *rsa.PublicKey) string {
	at := modulusValue.FindStringSubmatchIndex(text)
	return text[:at[3]] + modulusText(key.N) + text[at[1]:]
}

func modulusText(n *big.Int) string {
	b := n.Bytes()
	slices.Reverse(b)
	return fmt.Sprintf(`%d">%s`, 8*len(b), base64.StdEncoding.EncodeToString(b))
}
