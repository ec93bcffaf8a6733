// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
)

var (
	//go:embed script/kit.ps1
	kitScript string
	//go:embed script/rehearsal.ps1
	rehearsalFunctions string
)

// Kit is the work of importing TPDs, to be done by a person on a Windows
// machine: the TPDs, one readable script that imports them and makes one
// key active, and the digests of all. The script checks the digests of the TPDs
// before it does anything, asks for each password, can be run again after a
// failure, and writes [ResultFile], which [Kit.Result] reads.
//
// The kit travels to that machine and back on media that others may write to. So a
// person carries two digests beside it: that of the script, [Kit.Script], which is
// compared before the script runs, and that of the result, [ResultDigest], which
// the script shows. The result is a statement of that machine: nothing signs it.
type Kit struct {
	Cloud  string // public, china or usgov
	TPDs   []KitTPD
	Active string // key identifier of the key to make active; empty: none
	// Rehearsal makes a script that does all but ask the service: a list in memory
	// stands in for the tenant.
	Rehearsal bool
}

// KitTPD is one TPD of a kit.
type KitTPD struct {
	File             string // its name in the kit, such as no_key_tpd_contoso.xml
	TPD              []byte // the whole file
	KeyIdentifier    string // the TPD's GUID, lower case, without braces
	MicrosoftManaged bool   // the TPD carries its key
	KeyURL           string // with version; none where Microsoft-managed
	FriendlyName     string
	Public           *rsa.PublicKey // by which a result is judged; the kit itself does without
}

// Names of a kit's files beside the TPDs.
const (
	KitScript  = "import-tpds.ps1"
	KitDigests = "SHA256SUMS" // of all the others, for sha256sum -c
	ResultFile = "keyferry-result.json"
)

const resultFormat = "keyferry-rms-result-v2"

var (
	kitFile = regexp.MustCompile(`^[0-9A-Za-z_][0-9A-Za-z._-]{0,200}\.xml$`)
	keyURL  = regexp.MustCompile(`^https://[0-9a-z.-]+/keys/[0-9A-Za-z-]+/[0-9A-Za-z]+$`)
)

// Files are the kit's, to be written to the directory dir (KF-RMS-KIT).
func (k Kit) Files(dir string) ([]durable.File, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	var files []durable.File
	for _, t := range k.TPDs {
		files = append(files, durable.File{Path: t.File, Data: t.TPD})
	}
	files = append(files, durable.File{Path: KitScript, Data: k.Script()})
	var sums strings.Builder
	for _, f := range files {
		fmt.Fprintf(&sums, "%s  %s\n", digest(f.Data), f.Path)
	}
	files = append(files, durable.File{Path: KitDigests, Data: []byte(sums.String())})
	for i := range files {
		files[i].Path = filepath.Join(dir, files[i].Path)
	}
	return files, nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (k Kit) check() error {
	if _, ok := environments[k.Cloud]; !ok {
		return control.RMSKit.Refuse("there is no Azure RMS in the cloud %s", control.Quote(k.Cloud))
	}
	files := map[string]bool{}
	listed := k.Active == ""
	for _, t := range k.TPDs {
		name := strings.ToLower(t.File)
		switch {
		case !kitFile.MatchString(t.File) || files[name]:
			return control.RMSKit.Refuse("%s cannot name a TPD of the kit, or does so twice", control.Quote(t.File))
		case !guid.MatchString(t.KeyIdentifier):
			return control.RMSKit.Refuse("%s is not the identifier of a key", control.Quote(t.KeyIdentifier))
		case t.MicrosoftManaged && t.KeyURL != "":
			return control.RMSKit.Refuse("%s carries its key, and has a key URL all the same, %s", t.File, control.Quote(t.KeyURL))
		case !t.MicrosoftManaged && !keyURL.MatchString(t.KeyURL):
			return control.RMSKit.Refuse("%s is not the URL of a key with its version", control.Quote(t.KeyURL))
		case strings.ContainsFunc(t.FriendlyName, func(r rune) bool { return !unicode.IsPrint(r) }):
			return control.RMSKit.Refuse("the friendly name %s cannot be written into a script", control.Quote(t.FriendlyName))
		}
		files[name] = true
		listed = listed || t.KeyIdentifier == k.Active
	}
	if !listed || len(k.TPDs) == 0 {
		return control.RMSKit.Refuse("the kit has %d TPDs, and none of the key to make active, %s", len(k.TPDs), control.Quote(k.Active))
	}
	return nil
}

// ID tells the result of one kit from that of another: it is the digest of the
// plan, 64 hex digits.
func (k Kit) ID() string {
	return digest([]byte(k.plan()))
}

// plan is the part of the script that differs from kit to kit.
func (k Kit) plan() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$rehearsal = $%t\n$environment = %s\n$active = %s\n$plan = @(\n", k.Rehearsal, quote(environments[k.Cloud]), quote(k.Active))
	for _, t := range k.TPDs {
		fmt.Fprintf(&b, "    @{\n        File          = %s\n        Sha256        = %s\n        KeyIdentifier = %s\n        FriendlyName  = %s\n        KeyUrl        = %s\n    }\n",
			quote(t.File), quote(digest(t.TPD)), quote(t.KeyIdentifier), quote(t.FriendlyName), quote(t.KeyURL))
	}
	b.WriteString(")")
	return b.String()
}

const kitHead = `# Imports AD RMS trusted publishing domains into Azure RMS: a hand-over kit of
# Keyferry. Run it in Windows PowerShell 5.1, signed in as an administrator of
# the tenant's Rights Management service:
#
#     powershell.exe -NoProfile -ExecutionPolicy RemoteSigned -File import-tpds.ps1
#
# It asks for the password of each TPD, that of its export or a one-time password,
# and keeps it nowhere.

`

// Script is written for Windows PowerShell: with a byte order mark, without
// which it takes text for the machine's code page, and with its line ends.
func (k Kit) Script() []byte {
	functions := functions
	if k.Rehearsal {
		functions += "\n" + rehearsalFunctions
	}
	text := strings.NewReplacer(
		"#PLAN", "$kit = "+quote(k.ID())+"\n"+k.plan(),
		"#FUNCTIONS", strings.TrimSpace(functions),
	).Replace(kitScript)
	return []byte("\ufeff" + strings.ReplaceAll(kitHead+text, "\n", "\r\n"))
}

// quote writes a text as PowerShell's literal. PowerShell takes typographic
// quotes for plain ones, so they are doubled as well.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range text {
		if strings.ContainsRune("'\u2018\u2019\u201a\u201b", r) {
			b.WriteRune(r)
		}
		b.WriteRune(r)
	}
	b.WriteByte('\'')
	return b.String()
}

// Command is one line for Windows PowerShell, in the kit's folder: it compares the
// script with its digest, takes Windows' mark of files from elsewhere off, and runs it.
func (k Kit) Command() string {
	return fmt.Sprintf("if ((Get-FileHash -LiteralPath .\\%[1]s -Algorithm SHA256).Hash -eq '%[2]s') "+
		"{ Unblock-File -LiteralPath .\\%[1]s; powershell.exe -NoProfile -ExecutionPolicy RemoteSigned -File .\\%[1]s } "+
		"else { 'STOP: this is not the script that was handed over.' }", KitScript, digest(k.Script()))
}

// ResultDigest is the digest of a result that the script shows: of its text without
// blanks, and with a question mark for each UTF-16 unit beyond ASCII, so that a
// copy out of a console's window has the same.
func ResultDigest(data []byte) fingerprint.Fingerprint {
	var text []byte
	for _, r := range string(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		switch {
		case r <= ' ':
		case r <= '~':
			text = append(text, byte(r))
		case r <= 0xffff:
			text = append(text, '?')
		default:
			text = append(text, "??"...)
		}
	}
	return fingerprint.Of(text)
}

// Result reads what the kit's script wrote, and returns the tenant's keys. A
// result of another kit, one that shows that not everything was done, and one that
// does not show which key the tenant has are refused (KF-RMS-RESULT,
// KF-RMS-ACTIVE). Of a Microsoft-managed key the tenant shows its identifier alone.
func (k Kit) Result(data []byte) ([]Key, error) {
	var result struct {
		Format   string   `json:"format"`
		Kit      string   `json:"kit"`
		Versions Versions `json:"versions"`
		Keys     []Listed `json:"tenant_keys"`
	}
	decoder := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	decoder.DisallowUnknownFields()
	switch err := decoder.Decode(&result); {
	case err != nil:
		return nil, control.RMSResult.Refuse("the result cannot be read: %s", control.Quote(err.Error()))
	case result.Format != resultFormat:
		return nil, control.RMSResult.Refuse("this is not the result of a hand-over kit: its format is %s", control.Quote(result.Format))
	case result.Kit != k.ID():
		return nil, control.RMSResult.Refuse("this is the result of another kit, %s, not of %s", control.Quote(result.Kit), k.ID())
	}
	keys, err := ReadKeys(result.Keys)
	if err != nil {
		return nil, err
	}
	for _, t := range k.TPDs {
		i := slices.IndexFunc(keys, func(key Key) bool { return key.KeyIdentifier == t.KeyIdentifier })
		wanted := CustomerManaged
		if t.MicrosoftManaged {
			wanted = MicrosoftManaged
		}
		switch {
		case i < 0:
			return nil, control.RMSResult.Refuse("the tenant does not list the key %s of %s", t.KeyIdentifier, t.File)
		case keys[i].KeyType != wanted:
			return nil, control.RMSResult.Refuse("the tenant lists the key %s as %s, expected %s", t.KeyIdentifier, control.Quote(keys[i].KeyType), wanted)
		case keys[i].Status != Active && keys[i].Status != Archived:
			return nil, control.RMSResult.Refuse("the tenant lists the key %s with the status %s", t.KeyIdentifier, control.Quote(string(keys[i].Status)))
		case keys[i].KeyURL != "" && keys[i].KeyURL != t.KeyURL:
			return nil, control.RMSResult.Refuse("the tenant lists the key %s with the URL %s, not %s", t.KeyIdentifier, control.Quote(keys[i].KeyURL), t.KeyURL)
		case !t.MicrosoftManaged && keys[i].KeyURL == "" && !keys[i].Holds(t.Public):
			return nil, control.RMSResult.Refuse("the result shows neither the URL nor the public key of %s: which key the tenant has is unknown", t.KeyIdentifier).
				WithHint("run the kit's script again and bring its new result; if that shows no more, look at the tenant with `online doctor --tenant powershell` or Get-AipServiceKeys")
		case t.KeyIdentifier == k.Active && keys[i].Status != Active:
			return nil, control.RMSActive.Refuse("the tenant does not list the key %s as active", t.KeyIdentifier)
		}
	}
	return keys, nil
}
