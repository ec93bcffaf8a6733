// SPDX-License-Identifier: Apache-2.0

package control

var tpdControls []Control

func tpd(id, hint string) Control {
	return register(&tpdControls, Control{id, Refused, hint})
}

// Controls of a TPD export: the file and its decryption.
var (
	TPDSize            = tpd("KF-TPD-SIZE", "give the file that the AD RMS console exported as a trusted publishing domain")
	TPDFormat          = tpd("KF-TPD-FORMAT", "give the file that the AD RMS console exported as a trusted publishing domain, unchanged; copy it again if it was cut short")
	TPDOneDomain       = tpd("KF-TPD-ONE-DOMAIN", "export each trusted publishing domain into a file of its own")
	TPDPassword        = tpd("KF-TPD-PASSWORD", "check the password that was given when the domain was exported: upper and lower case, keyboard layout, spaces at the end; a shell changes dollar signs, backticks and exclamation marks; a word processor changes quotes and spaces; an accented letter has two spellings (é, e and ´)")
	TPDDocument        = tpd("KF-TPD-DOCUMENT", "the password is right but the file is damaged: copy it again, or export the domain again")
	TPDLegacyKDF       = tpd("KF-TPD-LEGACY-KDF", "the box for RMS version 1.0 was ticked at the export, which Microsoft's guide says not to do: export the domain again without it, or import with --keyless-password fresh")
	TPDLegacyCollision = tpd("KF-TPD-LEGACY-COLLISION", "export the domain again without the box for RMS version 1.0, or import with --keyless-password fresh")
	TPDNull            = tpd("KF-TPD-NULL", "look in AD RMS for an entry that is missing in the report, and export the domain again if there is one")
	TPDExtra           = tpd("KF-TPD-EXTRA", "nothing that AD RMS exports looks like this: find out who changed the file")
)

// Controls of the key information and the key.
var (
	TPDKeyInfo     = tpd("KF-TPD-KEY-INFO", "export the domain again: without the key's description no service imports it")
	TPDKeyID       = tpd("KF-TPD-KEY-ID", "export the domain again: without the key's GUID no service imports it")
	TPDKeyNumber   = tpd("KF-TPD-KEY-NUMBER", "the key serves all the same; look at the CSP of the AD RMS server if this surprises you")
	TPDCSPMode     = tpd("KF-TPD-CSP-MODE", "export the domain again from a server whose CSP suits its cryptographic mode: PROV_RSA_AES (24), in mode 1 also PROV_RSA_FULL (1)")
	TPDMode        = tpd("KF-TPD-MODE", "AD RMS knows RSA-1024 with SHA-1 (mode 1) and RSA-2048 with SHA-256 (mode 2) only")
	TPDMode1       = tpd("KF-TPD-MODE1", "no vault takes this key: carry it in its TPD with `offline import --microsoft-managed`, to be a Microsoft-managed key in Azure RMS that stays archived; where a cluster has no other key, Microsoft's guide makes it active until the migration is complete, then rekeys the tenant with a key of 2048 bits")
	TPDKeyInHSM    = tpd("KF-TPD-KEY-IN-HSM", "have the HSM wrap the key where it is: offline wrap")
	TPDKeyless     = tpd("KF-TPD-KEYLESS", "export the domain again: nobody but a person who had the export's password can have put that there, so find out who had it")
	TPDKeyPEM      = tpd("KF-TPD-KEY-PEM", "give the PEM file that TpdUtil wrote beside the keyless TPD: one RSA key, as PKCS#8 or PKCS#1, not encrypted")
	TPDNotMode1    = tpd("KF-TPD-NOT-MODE1", "import this key as an HSM key: only a key that cannot become one is carried as Microsoft-managed")
	TPDKeyAbsent   = tpd("KF-TPD-KEY-ABSENT", "give the export itself, not its keyless copy; a keyless TPD that TpdUtil wrote goes with its key: --key-pem")
	TPDKeyPresent  = tpd("KF-TPD-KEY-PRESENT", "give the keyless copy (no_key_tpd_….xml), never the export itself")
	TPDKeyEmbedded = tpd("KF-TPD-KEY-EMBEDDED", "export the domain again: a keyless copy of this file would still carry the key")
	TPDKeyDecrypt  = tpd("KF-TPD-KEY-DECRYPT", "the key field is damaged or comes from an export with another password: export the domain again")
	TPDKeyBlob     = tpd("KF-TPD-KEY-BLOB", "the key field is damaged: copy the file again, or export the domain again")
	TPDKeyCRT      = tpd("KF-TPD-KEY-CRT", "never use this key: export the domain again")
	TPDKeyMismatch = tpd("KF-TPD-KEY-MISMATCH", "key and certificate are not of the same domain: export the domain again")
)

// Controls of the certificates.
var (
	TPDChainAbsent    = tpd("KF-TPD-CHAIN-ABSENT", "export the domain again: without its certificate chain no service imports it")
	TPDCertificate    = tpd("KF-TPD-CERTIFICATE", "export the domain again: a certificate of its chain is not what AD RMS writes")
	TPDSLCID          = tpd("KF-TPD-SLC-ID", "key information and certificate are not of the same domain: export the domain again")
	TPDGUIDUnique     = tpd("KF-TPD-GUID-UNIQUE", "AD RMS gives each key a GUID of its own: find out which export is the true one, and leave the other out")
	TPDSLCDigest      = tpd("KF-TPD-SLC-DIGEST", "export the domain again; if it says the same again, the certificate is not the one that was issued: find out where the file comes from")
	TPDSLCSignature   = tpd("KF-TPD-SLC-SIGNATURE", "the server licensor certificate was not issued by whom it names: find out where the file comes from")
	TPDChainLink      = tpd("KF-TPD-CHAIN-LINK", "the certificates are not one chain: export the domain again")
	TPDChainName      = tpd("KF-TPD-CHAIN-NAME", "key and ID link the certificates; nothing needs to be done")
	TPDChainSignature = tpd("KF-TPD-CHAIN-SIGNATURE", "a certificate of the chain was changed, or not issued by whom it names: find out where the file comes from")
	TPDValidity       = tpd("KF-TPD-VALIDITY", "check this machine's clock; an expired certificate still opens old content, but clients reject new licences under it: renew it in AD RMS and export the domain again")
	TPDHierarchy      = tpd("KF-TPD-HIERARCHY", "compare the root key's fingerprint with that of another export of the same organisation")
	TPDRoot           = tpd("KF-TPD-ROOT", "compare the root key's fingerprint with the one that you pinned; find out where the file comes from before you pin another")
	TPDName           = tpd("KF-TPD-NAME", "no later step can write this name: have the server licensor certificate of AD RMS issued again under a name without control characters")
	TPDURL            = tpd("KF-TPD-URL", "check the cluster URLs of the AD RMS server")
)

// Controls of the rights policy templates.
var (
	TPDTemplate          = tpd("KF-TPD-TEMPLATE", "export the domain again")
	TPDTemplateSignature = tpd("KF-TPD-TEMPLATE-SIGNATURE", "save the template again in AD RMS, which signs it anew, and export the domain again")
	TPDTemplateIssuer    = tpd("KF-TPD-TEMPLATE-ISSUER", "the server was renamed after the template was made; nothing needs to be done")
	TPDTemplateExpired   = tpd("KF-TPD-TEMPLATE-EXPIRED", "nothing needs to be done; leave the template archived, or renew it in AD RMS and export the domain again")
	TPDTemplateDuplicate = tpd("KF-TPD-TEMPLATE-DUPLICATE", "delete one of the two templates in AD RMS and export the domain again")
	TPDTemplateAnyone    = tpd("KF-TPD-TEMPLATE-ANYONE", "Azure RMS does not support ANYONE: give the rights to a group instead, or make the template anew after the import")
	TPDTemplateName      = tpd("KF-TPD-TEMPLATE-NAME", "take : and ; out of the template's names and descriptions in AD RMS, or expect to mend them after the import")
)
