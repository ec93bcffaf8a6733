// SPDX-License-Identifier: Apache-2.0

package control

var bundleControls []Control

func bundle(id string, class Class, hint string) Control {
	return register(&bundleControls, Control{id, class, hint})
}

// Controls of the transfer bundle and of the receipts that answer it.
var (
	BundleFormat    = bundle("KF-BUNDLE-FORMAT", Refused, "copy the bundle again from the machine that sealed it")
	BundleSize      = bundle("KF-BUNDLE-SIZE", Refused, "a bundle has at most 256 MiB and 1,000 keys: import and seal fewer keys at a time")
	BundleManifest  = bundle("KF-BUNDLE-MANIFEST", Refused, "copy the bundle again; both sides must run the same version of Keyferry")
	BundleVersion   = bundle("KF-BUNDLE-VERSION", Refused, "both sides must run the same version of Keyferry")
	BundleSignature = bundle("KF-BUNDLE-SIGNATURE", Refused, "the bundle was changed after it was signed, or somebody else made it: copy it again")
	BundleSender    = bundle("KF-BUNDLE-SENDER", Refused, "the sender is not the pinned one: compare the fingerprints on the offline card and the security world")
	BundleReceiver  = bundle("KF-BUNDLE-RECEIVER", Refused, "the bundle was made for another receiver: open it there")
	BundlePurpose   = bundle("KF-BUNDLE-PURPOSE", Refused, "give a receipt to `offline receipt`, and a key transfer to the online commands")
	BundleApproval  = bundle("KF-BUNDLE-APPROVAL", Refused, "let more of the security world's approvers sign the manifest: see `offline approve --help`")
	BundlePayload   = bundle("KF-BUNDLE-PAYLOAD", Refused, "the payload is not the one that was signed: copy the bundle again")
	BundleDecrypt   = bundle("KF-BUNDLE-DECRYPT", Refused, "the payload was not encrypted for this side: check which online card the offline side used")
	BundleRecipient = bundle("KF-BUNDLE-RECIPIENT", Refused, "the sender did not encrypt to this side alone, by the recipient that this side gave: do not use the bundle, and ask the sender")
	BundleContents  = bundle("KF-BUNDLE-CONTENTS", Refused, "the payload holds something else than its index says: do not use it, and ask the sender")
	BundleReplay    = bundle("KF-BUNDLE-REPLAY", Refused, "a newer bundle of this sender was taken already: if both were meant, take the older one with --out-of-order, which the ledger records")
	BundleFork      = bundle("KF-BUNDLE-FORK", Refused, "two bundles claim the same place in the sender's sequence: keep both as evidence and ask the sender")
	BundleEmpty     = bundle("KF-BUNDLE-EMPTY", Refused, "stage a key first, with `offline import`")

	BundleTranscript = bundle("KF-BUNDLE-TRANSCRIPT", Refused, "the sender's ledger was cut, edited or put back from a backup since its last bundle: keep both bundles as evidence and ask the sender")

	ApprovalBundle    = bundle("KF-APPROVAL-BUNDLE", Refused, "seal a bundle first, and give its request as it lies on the stick, or none")
	ApprovalSignature = bundle("KF-APPROVAL-SIGNATURE", Refused, "sign the request for this bundle: see `offline approve --help`")
	ApprovalNamespace = bundle("KF-APPROVAL-NAMESPACE", Refused, "sign again with `ssh-keygen -Y sign -n keyferry-bundle-v2`")
	ApprovalSigner    = bundle("KF-APPROVAL-SIGNER", Refused, "let one of the approvers sign whom `offline trust` showed")
	ApprovalSender    = bundle("KF-APPROVAL-SENDER", Refused, "the side that seals does not approve, unless the security world lists its key: let an approver sign")
	ApprovalTwice     = bundle("KF-APPROVAL-TWICE", Refused, "each approver counts once: let another one sign")

	ReceiptEarly   = bundle("KF-RECEIPT-EARLY", Refused, "begin the upload first, with `online upload`")
	ReceiptUnknown = bundle("KF-RECEIPT-UNKNOWN", Refused, "the receipt answers a bundle that this side did not send: check the state directory")
	ReceiptPins    = bundle("KF-RECEIPT-PINS", Refused, "the connected side works with another vault, security world or threshold than the one pinned here: pin the newer security world if it is theirs; else stop, keep everything, and compare `status` on both sides")
	ReceiptDiffers = bundle("KF-RECEIPT-DIFFERS", Refused, "what arrived is not what was sent: stop, keep everything, and compare both transcripts")
)
