// SPDX-License-Identifier: Apache-2.0

package control

var hsmControls []Control

func hsm(id string, class Class, hint string) Control {
	return register(&hsmControls, Control{id, class, hint})
}

// Controls of the HSM: finding the token, and every key that goes in or out.
var (
	HSMModule       = hsm("KF-HSM-MODULE", Environment, "install the HSM's PKCS#11 module (SoftHSM: 'apt install softhsm2' or 'dnf install softhsm') or name its path with --hsm-module")
	HSMNoToken      = hsm("KF-HSM-NO-TOKEN", Environment, "connect the HSM and initialise its token, then run the same command again")
	HSMTokenLabel   = hsm("KF-HSM-TOKEN-LABEL", Environment, "name one of the tokens listed, with --hsm-token, --hsm-serial or --hsm-uri")
	HSMTokenTwice   = hsm("KF-HSM-TOKEN-TWICE", Environment, "choose the token by its serial number too, with --hsm-serial or --hsm-uri, or by its slot where they share that, with --hsm-uri pkcs11:slot-id=NUMBER")
	HSMPIN          = hsm("KF-HSM-PIN", Environment, "check the PIN before the next try: tokens lock after a few wrong ones")
	HSMPINLocked    = hsm("KF-HSM-PIN-LOCKED", Environment, "the HSM's security officer can unlock the PIN or set a new one, with the HSM's own tools")
	HSMURI          = hsm("KF-HSM-URI", Usage, "name the token as pkcs11:token=LABEL;serial=NUMBER, with any of token, serial, manufacturer, model and slot-id")
	HSMRehearsal    = hsm("KF-HSM-REHEARSAL", Environment, "rehearsals are held in SoftHSM 2 with a token directory of their own")
	HSMCall         = hsm("KF-HSM-CALL", Environment, "see that the HSM is still connected and what its own log says, then run the same command again")
	HSMExists       = hsm("KF-HSM-EXISTS", Refused, "nothing in the token is overwritten: choose another key identifier, or remove the old key with the HSM's own tools")
	HSMKeySize      = hsm("KF-HSM-KEY-SIZE", Refused, "an HSM key in the cloud is RSA with 2048, 3072 or 4096 bits; a smaller key can only be imported as a Microsoft-managed key")
	HSMImport       = hsm("KF-HSM-IMPORT", Environment, "allow the import of private keys in the HSM's security policy, or use another HSM")
	HSMStored       = hsm("KF-HSM-STORED", Refused, "list the token's keys with the HSM's own tools, or import the key")
	HSMExtractable  = hsm("KF-HSM-EXTRACTABLE", Refused, "a key that can't leave its token can't be wrapped: import it anew from its TPD, under another identifier")
	HSMHarden       = hsm("KF-HSM-HARDEN", Unfinished, "run the same command again, with --retain-extractable if the key is to stay extractable")
	HSMRetained     = hsm("KF-HSM-RETAINED", Refused, "once the key has arrived, make it non-extractable with the HSM's own tools, or remove it")
	HSMAttributes   = hsm("KF-HSM-ATTRIBUTES", Environment, "this token does not protect the key as asked: use another token, or change its security policy")
	HSMPossession   = hsm("KF-HSM-POSSESSION", Refused, "the token's key is not the key of the certificate: export the TPD again, and check the HSM")
	HSMWrapUnproven = hsm("KF-HSM-WRAP-UNPROVEN", Environment, "use a token that wraps exactly, or choose --wrap software, which the ceremony records")
	HSMSigner       = hsm("KF-HSM-SIGNER", Environment, "check the token: the signing key that the init command made in it must be there, once")
	HSMLeftover     = hsm("KF-HSM-LEFTOVER", Unfinished, "run the same command again to take the key up, or remove it with the HSM's own tools")
)
