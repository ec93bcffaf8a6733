// SPDX-License-Identifier: Apache-2.0

// Package filetype tells which of the ceremony's files a file is, so that one
// that was mixed up with another, or changed by mail or an editor, is refused by
// its name and not in the words of a parser or with an alarm.
//
// It looks for marks and verifies nothing: its word never lets a file pass.
package filetype

import (
	"bytes"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"

	"keyferry/pkg/control"
)

// Kind is a kind of file, as sentences name it.
type Kind string

// The files of the ceremony, and files that people keep beside them.
const (
	Bundle     Kind = "a bundle with keys"
	Receipt    Kind = "a receipt"
	Request    Kind = "a request for approvals"
	World      Kind = "a security world package"
	KEK        Kind = "a KEK package"
	Card       Kind = "an offline card"
	TPD        Kind = "a TPD with its key"
	Keyless    Kind = "a TPD without its key"
	Blob       Kind = "a transfer blob"
	Result     Kind = "the result of a hand-over kit"
	Index      Kind = "a file from inside a bundle"
	State      Kind = "a file of a state directory"
	Signature  Kind = "an SSH signature"
	PublicKey  Kind = "an SSH public key"
	PrivateKey Kind = "a private key"
	PEM        Kind = "a certificate or another PEM file"
	AgeFile    Kind = "a file encrypted by age"
	WebPage    Kind = "a web page"
)

// names are how the files are named that commands ask for.
var names = map[Kind]string{
	Bundle: "keyferry-<offline side>-<number>.kfb", Receipt: "keyferry-<online side>-<number>.kfb", Request: "keyferry-<offline side>-<number>.request.json",
	World: "BYOK-SecurityWorld-pkg-<region>-<number>", KEK: "BYOK-KEK-pkg-<region>-<number>", Card: "offline-card-<name>.json",
	TPD: "*.xml, as AD RMS exported it", Keyless: "no_key_tpd_<key>.xml", Blob: "KeyTransferPackage-<key>.byok", Result: "keyferry-result.json",
	Signature: "*.sig, as ssh-keygen wrote it", PublicKey: "*.pub, as ssh-keygen wrote it",
}

// formats are the kinds of JSON documents, by the format that they name.
var formats = map[string]Kind{
	"keyferry-bundle": Request, "keyferry-security-world": World, "keyferry-kek": KEK, "keyferry-offline-card": Card,
	"keyferry-rms-result": Result, "keyferry-receipt": Index, "keyferry-key": Index, "keyferry-state": State, "keyferry-ledger-head": State,
}

var (
	formatField  = regexp.MustCompile(`\\?"format\\?":\s*\\?"(keyferry-[a-z-]+)-v[0-9]+\\?"`) // escaped inside a package
	receiptField = regexp.MustCompile(`"purpose":\s*"receipt"`)
	keyElement   = regexp.MustCompile(`<(\w+:)?m_strKeyData(\s[^>]*)?>[^<]`)
	tpdEnd       = regexp.MustCompile(`</(\w+:)?ArrayOfAnyType\s*>`)
	publicKey    = regexp.MustCompile(`^(sk-)?(ssh|ecdsa)-[0-9a-z@.-]+ AAAA`)
	base64Text   = regexp.MustCompile(`^(?:-----BEGIN CERTIFICATE-----)?([0-9A-Za-z+/\s]{40,}={0,2})\s*(?:$|-----END)`) // certutil -encode calls anything a certificate
)

const inBase64 = "it was put into base64"

// Of tells which kind of file data, or its beginning, is, and how it was changed
// on the way. Both are empty where nothing is known. A TPD may be saved in any
// encoding.
func Of(data []byte) (kind Kind, change string) {
	defer func() {
		if (kind == TPD || kind == Keyless) && change != inBase64 {
			change = ""
		}
	}()
	switch {
	case len(data) == 0:
		return "", "it is empty"
	case len(bytes.Trim(data, "\x00")) == 0:
		return "", "it holds zeros alone"
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return "", "it was packed by gzip"
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "", "it was packed by zstd"
	case bytes.HasPrefix(data, []byte("PK\x03\x04")):
		return "", "it was packed as a zip file"
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		kind, _ = Of(bytes.ReplaceAll(data[2:], []byte{0}, nil))
		return kind, "it was saved as UTF-16"
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		kind, _ = Of(data[3:])
		return kind, "it begins with a byte order mark"
	case bytes.HasPrefix(data, []byte("manifest.json\x00")):
		text, _, _ := bytes.Cut(data, []byte("payload.tar.zst.age\x00")) // behind it any bytes may stand
		if bytes.Contains(text, []byte("\r\n")) {
			change = "it has the line ends of Windows"
		}
		if receiptField.Match(data) {
			return Receipt, change
		}
		return Bundle, change
	}
	if m := base64Text.FindSubmatch(data); m != nil {
		text := strings.Join(strings.Fields(string(m[1])), "")
		if decoded, err := base64.StdEncoding.DecodeString(text[:len(text)/4*4]); err == nil { // a beginning may be cut anywhere
			if kind, _ = Of(decoded); kind != "" {
				return kind, inBase64
			}
		}
	}
	if kind = ofText(bytes.TrimSpace(data)); kind != "" {
		if bytes.Contains(data, []byte("\r\n")) {
			change = "it has the line ends of Windows"
		}
		return kind, change
	}
	return "", ""
}

func ofText(text []byte) Kind {
	has := func(mark string) bool { return bytes.Contains(text, []byte(mark)) }
	begins := func(mark string) bool { return bytes.HasPrefix(text, []byte(mark)) }
	switch {
	case begins("{"):
		if m := formatField.FindSubmatch(text); m != nil {
			return formats[string(m[1])]
		}
		switch {
		case has(`"schema_version"`) && has(`"ciphertext"`):
			return Blob
		case has(`"salt"`) && has(`"files"`):
			return Index
		}
	case begins("-----BEGIN SSH SIGNATURE-----"):
		return Signature
	case begins("-----BEGIN") && has("PRIVATE KEY-----"):
		return PrivateKey
	case begins("-----BEGIN"):
		return PEM
	case publicKey.Match(text):
		return PublicKey
	case begins("age-encryption.org/v1"):
		return AgeFile
	case has("m_strTrustedDocDomainInfo"):
		if keyElement.Match(text) {
			return TPD
		}
		if tpdEnd.Match(text) { // else it may be cut short
			return Keyless
		}
	case begins("<!DOCTYPE html"), begins("<!doctype html"), begins("<html"):
		return WebPage
	}
	return ""
}

// Explain returns err, by which data was refused, or a better reason under the
// same control: data is another kind of file than wanted, or was changed on the
// way.
func Explain(err error, data []byte, want Kind) error {
	refusal := new(control.Refusal)
	if !errors.As(err, &refusal) {
		return err
	}
	kind, change := Of(data)
	switch {
	case kind != "" && kind != want:
		is := string(kind)
		if change != "" {
			is += " (" + change + ")"
		}
		return refusal.Control.Refuse("this is %s; %s is wanted", is, want).WithHint("give %s: its name is %s", want, names[want])
	case change != "":
		return refusal.Control.Refuse("the file was changed on the way: %s", change).
			WithHint("copy it again, byte for byte, from the machine that made it: mail programs and editors change files")
	}
	return err
}
