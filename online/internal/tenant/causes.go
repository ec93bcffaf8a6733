// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"keyferry/pkg/control"
)

// ServicePrincipal is Azure RMS's own account, which gets the key in the vault,
// decrypts and signs with it.
const ServicePrincipal = "00000012-0000-0000-c000-000000000000"

// Grant lets the service use the key, in a vault with access policies or with
// roles, and behind a firewall.
const Grant = "let Azure RMS get, decrypt and sign with the key: `az keyvault set-policy --name VAULT --spn " + ServicePrincipal +
	" --key-permissions get decrypt sign`, or in a vault with roles the role Key Vault Crypto User for that service principal; " +
	"where the vault has a firewall, let trusted Microsoft services pass it: `az keyvault update --name VAULT --bypass AzureServices`; then run the same command again"

// signInHint is what stops the sign-in of an administrator most often.
const signInHint = "sign in as an administrator of the tenant's Rights Management service, who has that role directly and not by a group; " +
	"the window may stand behind this one, and none shows over SSH; behind a proxy, set it in Windows' own settings; " +
	"the service takes TLS 1.2 only; Microsoft's support finds the sign-in by its correlation ID"

// cause turns an error of the session into a refusal. The request's word says
// at which step it was. PowerShell's own identifiers and the types of
// exceptions are looked at first, since they are the same in every language,
// then texts of the service and of its module, which mostly are in English.
func cause(word, doing string, a *answer) error {
	all := strings.ToLower(strings.Join(append(a.Log, a.Error), "\n"))
	is := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return strings.Contains(a.Kind, name) || slices.ContainsFunc(a.Types, func(t string) bool { return t[strings.LastIndexByte(t, '.')+1:] == name })
		})
	}
	says := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(all, text) })
	}
	refuse := func(c control.Control, message, hint string) error {
		return c.Refuse("%s: %s%w", doing, message, whole{a}).WithHint("%s", cmp.Or(hint, c.Hint))
	}
	switch {
	case word == "load" && (is("PSSecurityException") || says("running scripts is disabled", "not digitally signed")):
		message, hint := a.Policy.explain(all)
		return refuse(control.RMSPowerShell, message, hint)
	case word == "load" && (is("PSInvalidOperationException", "HostException", "PromptingException") || says("untrusted publisher", "noninteractive")):
		return refuse(control.RMSPowerShell, "this machine does not trust the module's publisher, and a session can ask nobody", publisherHint)
	case is("CommandNotFoundException", "CouldNotAutoloadMatchingModule", "CouldNotAutoLoadModule", "Modules_ModuleNotFound", "NamedParameterNotFound"),
		says("is not recognized as", "module 'aipservice' was not loaded"):
		return refuse(control.RMSModule, "the AIPService module is not there, or is too old", "")
	case is("PSSecurityException"), says("running scripts is disabled"):
		message, hint := a.Policy.explain(all)
		return refuse(control.RMSPowerShell, message, hint)
	case word == "load":
		return refuse(control.RMSModule, "the AIPService module does not load", "install it again, for all users: Install-Module -Name AIPService -Scope AllUsers -Force, in Windows PowerShell 5.1")
	case word == "connect":
		return refuse(control.RMSSignIn, "the sign-in failed", signInHint)
	case is("CryptographicException"), says(padding...):
		return refuse(control.RMSCorrupted, "the password does not open the TPD", "")
	case says("trusted publishing domain data is corrupted"):
		return refuse(control.RMSCorrupted, "the service cannot open the TPD", "")
	case says("failure to access azure keyvault", "failed to add the key"):
		return refuse(control.RMSKeyURL, "the service cannot use the key in the vault", Grant)
	case says("aadsts", "user canceled authentication", "you must call the connect-aipservice", "without credentials"):
		return refuse(control.RMSSignIn, "the session is not signed in any more", signInHint)
	case is("UnauthorizedAccessException", "SecurityException"), says(denied...):
		return refuse(control.RMSRights, "the account may not administer Azure RMS", "")
	}
	return refuse(control.RMSFailed, "Azure RMS or its module refuses", "")
}

// padding is how the .NET Framework says that a password is wrong, where its
// messages are not in English: the types of exceptions are lost on the way.
var padding = []string{
	"padding is invalid", "auffüllung ist ungültig", "auffüllungszeichen", "zeichenabstände sind ungültig", "remplissage n'est pas valide",
	"spaziatura interna non valida", "relleno no válido", "relleno entre caracteres", "埋め込み", "パディング", "doldurma geçersiz", "заполнение неверно", "填充无效",
}

// denied is how the service, and Windows in some languages, say so.
var denied = []string{
	"access is denied", "access denied", "not authorized", "does not have permission", "unauthorized",
	"zugriff verweigert", "accès refusé", "accesso negato", "acceso denegado", "アクセスが拒否", "erişim engellendi", "отказано в доступе", "拒绝访问",
}

// whole is all that is known of a failure, for who has to find its cause: a
// correlation ID stands at the end of long texts.
type whole struct{ *answer }

func (w whole) Error() string {
	text := ""
	if w.answer.Error != "" {
		text += ": " + control.Line(w.answer.Error)
	}
	if w.Kind != "" {
		text += fmt.Sprintf(" (%s)", control.Line(w.Kind))
	}
	if len(w.Log) > 0 {
		text += "; before that it said: " + control.Line(strings.Join(w.Log, " | "))
	}
	return text
}

func (w whole) Unwrap() error { return w.cause }

// policy is what may keep the module's files from being loaded.
type policy struct {
	Effective string   `json:"effective"`
	Scopes    []string `json:"scopes"`    // such as "MachinePolicy AllSigned", the strongest first
	Signature string   `json:"signature"` // of the module's file; empty where it can't be asked
	Marked    bool     `json:"marked"`    // it came from elsewhere: Zone.Identifier
}

const (
	kitHint       = ", or hand the import over with --tenant kit to another machine"
	publisherHint = "in a Windows PowerShell of your own, Import-Module AIPService asks once whether to trust it: answer A; " +
		"or let who administers this machine put the publisher's certificate among the trusted publishers" + kitHint
	unblockHint = "take the mark off: Get-ChildItem -Recurse (Get-Module -ListAvailable AIPService).ModuleBase | Unblock-File; the module must lie on a local disk" + kitHint
)

// explain names what forbids, and the way on.
func (p policy) explain(all string) (message, hint string) {
	by := ""
	if len(p.Scopes) > 0 {
		by = " (" + control.Line(strings.Join(p.Scopes, ", ")) + ")"
	}
	effective := strings.ToLower(p.Effective)
	switch {
	case effective == "restricted" || strings.Contains(all, "running scripts is disabled"):
		return "the execution policy of this machine forbids scripts, the module's too" + by,
			"ask who administers this machine for the execution policy RemoteSigned: a group policy is stronger than what this program asks for" + kitHint
	case effective == "allsigned" && p.Signature == "Valid":
		return "the execution policy is AllSigned" + by + ", and this machine does not trust the module's publisher", publisherHint
	case effective == "allsigned":
		return "the execution policy is AllSigned" + by + ", and the module's signature does not hold here (" + cmp.Or(control.Line(p.Signature), "not asked") + ")", publisherHint
	case p.Marked || effective == "remotesigned":
		return "the execution policy is RemoteSigned" + by + ", and the module carries the mark of the web, or lies on a share", unblockHint
	}
	return "the execution policy of this machine" + by + " does not let the module's files be loaded: it is AllSigned, or RemoteSigned with the mark of the web", unblockHint
}
