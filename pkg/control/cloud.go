// SPDX-License-Identifier: Apache-2.0

package control

var cloudControls []Control

func cloud(id string, class Class, hint string) Control {
	return register(&cloudControls, Control{id, class, hint})
}

// Controls of the connected side's cloud: the key vault and what it answers,
// then the Azure RMS tenant.
var (
	VaultURL     = cloud("KF-VAULT-URL", Usage, "give the vault's URI as the Azure portal shows it, such as https://NAME.vault.azure.net")
	VaultKeyName = cloud("KF-VAULT-KEY-NAME", Usage, "name the key with 1 to 127 letters, digits and dashes")

	VaultKeyExists  = cloud("KF-VAULT-KEY-EXISTS", Refused, "no key is ever given a second version: choose another name")
	VaultKeyMissing = cloud("KF-VAULT-KEY-MISSING", Refused, "check the vault's URL, the key's name and its version")
	VaultConflict   = cloud("KF-VAULT-CONFLICT", Environment, "wait a minute and run the same command again")
	VaultKeyDeleted = cloud("KF-VAULT-KEY-DELETED", Refused, "a deleted key still holds this name: recover it, purge it, or choose another name")

	VaultKEKType     = cloud("KF-VAULT-KEK-TYPE", Refused, "make a KEK with `online kek create`: an RSA key in the HSM of a Premium vault or a Managed HSM")
	VaultKEKOps      = cloud("KF-VAULT-KEK-OPS", Refused, "make a KEK with `online kek create`: it must serve for import and nothing else")
	VaultKEKSize     = cloud("KF-VAULT-KEK-SIZE", Refused, "make a KEK of 2048, 3072 or 4096 bits with `online kek create`")
	VaultKEKValidity = cloud("KF-VAULT-KEK-VALIDITY", Refused, "make a new KEK with `online kek create --kek-name keyferry-kek-2`, or enable this one in the vault; check this machine's clock")
	VaultKEKMismatch = cloud("KF-VAULT-KEK-MISMATCH", Refused, "somebody put a KEK of their own under the identifier of the vault's, and may read what was wrapped for it: import nothing, keep everything as evidence, and see who had the connected side's signing key")
	VaultKEKForeign  = cloud("KF-VAULT-KEK-FOREIGN", Refused, "a key can be imported only into the vault that holds its KEK: upload to that vault, or wrap the key again under this vault's KEK")

	VaultCredential  = cloud("KF-VAULT-CREDENTIAL", Usage, "see --help for the ways to sign in and what each needs")
	VaultSignIn      = cloud("KF-VAULT-SIGN-IN", Environment, "sign in to Azure again, to the tenant that owns the vault")
	VaultRights      = cloud("KF-VAULT-RIGHTS", Environment, "the signed-in account needs the rights get, create and import on keys (role Key Vault Crypto Officer)")
	VaultFirewall    = cloud("KF-VAULT-FIREWALL", Environment, "the vault's firewall does not let this machine in: add its address, or use a machine that is let in")
	VaultSKU         = cloud("KF-VAULT-SKU", Environment, "HSM keys need a Premium vault or a Managed HSM: use another vault, or upgrade this one (`az keyvault update --name NAME --set properties.sku.name=premium`)")
	VaultThrottled   = cloud("KF-VAULT-THROTTLED", Environment, "the vault asks to slow down: wait a minute and run the same command again")
	VaultUnreachable = cloud("KF-VAULT-UNREACHABLE", Environment, "check the network, the proxy and the vault's URL, then run the same command again")
	VaultRequest     = cloud("KF-VAULT-REQUEST", Refused, "the service says why; HSM keys need a Premium vault or a Managed HSM")
	VaultAnswer      = cloud("KF-VAULT-ANSWER", Refused, "what answered does not behave like a key vault: check the vault's URL and what stands between")

	CloudNotReady = cloud("KF-CLOUD-NOT-READY", Environment, "each check that failed has its hint in the list: follow it, then run `online doctor` again")

	VaultNotHSM      = cloud("KF-VAULT-NOT-HSM", Refused, "the key is not in an HSM: delete it from the vault and use a Premium vault or a Managed HSM")
	VaultKeyState    = cloud("KF-VAULT-KEY-STATE", Refused, "the key must be enabled and may encrypt, decrypt, wrap, unwrap, sign and verify: mend it in the vault and run the same command again")
	VaultKeyMismatch = cloud("KF-VAULT-KEY-MISMATCH", Refused, "the vault holds another key than the one that travelled: do not use it, keep everything as evidence")

	RMSPowerShell = cloud("KF-RMS-POWERSHELL", Environment, "the AIPService module runs in Windows PowerShell 5.1 on .NET Framework 4.8 alone: use such a machine, or hand the import over with --tenant kit")
	RMSModule     = cloud("KF-RMS-MODULE", Environment, "install the module: Install-Module -Name AIPService, in Windows PowerShell 5.1")
	RMSSignIn     = cloud("KF-RMS-SIGN-IN", Environment, "sign in as an administrator of the tenant's Azure Rights Management service")
	RMSRights     = cloud("KF-RMS-RIGHTS", Environment, "the account must be a Global Administrator of the tenant, or administer its Rights Management service (Add-AipServiceRoleBasedAdministrator)")
	RMSFailed     = cloud("KF-RMS-FAILED", Environment, "read what the service says, and run the same command again")
	RMSKit        = cloud("KF-RMS-KIT", Refused, "give each TPD a file name, a friendly name and a key URL that can be written into a script")
	RMSResult     = cloud("KF-RMS-RESULT", Refused, "give the keyferry-result.json that the script of this very kit wrote")

	RMSCorrupted   = cloud("KF-RMS-CORRUPTED", Refused, "the service could not open the TPD: check its password, and that the file is whole")
	RMSKeyURL      = cloud("KF-RMS-KEY-URL", Refused, "give the key URL with its version, of a key that is enabled in the vault and may sign and decrypt")
	RMSKeyMismatch = cloud("KF-RMS-KEY-MISMATCH", Refused, "the TPD belongs to another key: pair each TPD with the vault key that was made from it")
	RMSKeyExists   = cloud("KF-RMS-KEY-EXISTS", Refused, "the tenant has this TPD already: nothing is to be done for it")
	RMSKeyMissing  = cloud("KF-RMS-KEY-MISSING", Refused, "only a key that the tenant lists can be made active: import its TPD first")
	RMSActive      = cloud("KF-RMS-ACTIVE", Refused, "the tenant did not do what it was asked: look at its keys with Get-AipServiceKeys, then run the same command again")
	RMSActive1024  = cloud("KF-RMS-ACTIVE-1024", Refused, "make another key active, and leave this one archived to open old content; --unsafe-activate-1024 does it all the same")
	RMSByHand      = cloud("KF-RMS-BY-HAND", Unfinished, "import the TPDs with the AIPService module")
)
