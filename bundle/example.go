// SPDX-License-Identifier: Apache-2.0

// # Worked example
//
// testdata/golden.kfb was sealed by the Ed25519 key whose seed is 32 bytes 01, for
// a receiver whose signing key has the seed of 32 bytes 02 and whose age identity
// is AGE-SECRET-KEY-18RXAN72N6J0YWHWKM7PFFCESXDS2Y5DUZ5GWL6Q664JFDKGUNU6SSCFKP3.
// Each member's header, the size of its content, and below that its SHA-256:
//
//	at     0,  682 bytes, manifest.json
//	         27c75c94699192257657904434a3c3ccfcf015136b932f0ce6cc3451079664ea
//	at  1536,  314 bytes, signatures/7def39264223a3c54f7be5ea5c9187e4c6aed4430574ad4e74abc950589cc80f.sig
//	         28533222650374b15dd20b3a108a2efbb9cfb45cbca407341fe4b74811ca1070
//	at  2560, 1095 bytes, payload.tar.zst.age
//	         ab95570055a6056d22bb7373e9eb3df5015ad039354be667ed38b69ab2688756
//	at  4608, 1024 bytes of zeros
//
// manifest.json, here in lines of 72 bytes:
//
//	{"format":"keyferry-bundle-v1","purpose":"key-transfer","id":"cb1c1f0328
//	970fca84809656a059ea73","created":"2026-11-23T14:00:00Z","sender":{"name
//	":"vault-room","fingerprint":"SHA256:7def39264223a3c54f7be5ea5c9187e4c6a
//	ed4430574ad4e74abc950589cc80f"},"receiver":"SHA256:e00f63c9904e867299bdc
//	190e934456dfe46ca66f8d407d8bd86959961c3f86e","sequence":1,"previous":"SH
//	A256:0000000000000000000000000000000000000000000000000000000000000000","
//	rehearsal":false,"warnings":[],"payload":{"path":"payload.tar.zst.age","
//	size":1095,"sha256":"SHA256:ab95570055a6056d22bb7373e9eb3df5015ad039354b
//	e667ed38b69ab2688756"},"index":"SHA256:06d8fad26069be947432543d0c70db403
//	1a8c36e7d35a2fe188fcf8f24f49a00"}
//
// Its signature:
//
//	-----BEGIN SSH SIGNATURE-----
//	U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgiojj3XQJ8ZX9UtstPLpdcspnCb
//	8dlBIb83SIAbQPb1wAAAASa2V5ZmVycnktYnVuZGxlLXYxAAAAAAAAAAZzaGE1MTIAAABT
//	AAAAC3NzaC1lZDI1NTE5AAAAQOvi8q7kJmAYsw4H+x2GVKGaq6Fh9N/YirWupabyNcEPZw
//	EKznslwmNdIcxWo3e54mhBizdS6bX5KawStRjCygs=
//	-----END SSH SIGNATURE-----
//
// The payload, decrypted and decompressed:
//
//	at     0, 1502 bytes, index.json
//	         06d8fad26069be947432543d0c70db4031a8c36e7d35a2fe188fcf8f24f49a00
//	at  2048,  600 bytes, keys/tenant-key/wrapped.bin
//	         84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61
//	at  3584,   26 bytes, keys/tenant-key/no_key_tpd_tenant-key.xml
//	         89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c
//	at  4608,    3 bytes, keys/tenant-key/key.json
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at  5632,  600 bytes, keys/old-key/wrapped.bin
//	         84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61
//	at  7168,   26 bytes, keys/old-key/no_key_tpd_old-key.xml
//	         89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c
//	at  8192,    3 bytes, keys/old-key/key.json
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at  9216,    3 bytes, transcript.jsonl
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at 10240, 1024 bytes of zeros
//
// index.json, here in lines of 72 bytes:
//
//	{"salt":"18f91b25ab813b402034eb908e872d151e69e8dac2eea0b3a28e99f3dfb9b56
//	f","keys":[{"id":"tenant-key","disposition":"hsm","slc":"5c1b62b5-7d3c-4
//	a43-8d0d-6a7d1e7f2f10","public_key":"ZGVy","kek":"https://practice.vault
//	.keyferry.test/keys/kek/1","wrapped_by":"software","mechanism":"CKM_RSA_
//	AES_KEY_WRAP","warnings":[],"files":[{"path":"keys/tenant-key/wrapped.bi
//	n","size":600,"sha256":"SHA256:84bf6de3f745480d7fe053fc149064f2f7c0b40ef
//	dd0694e0e6a576ba204ef61"},{"path":"keys/tenant-key/no_key_tpd_tenant-key
//	.xml","size":26,"sha256":"SHA256:89ce56dd27ddfb3c0e51660568b8d916ce21e1a
//	6f46d215072a36342e0744c3c"},{"path":"keys/tenant-key/key.json","size":3,
//	"sha256":"SHA256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63
//	e9e442356"}]},{"id":"old-key","disposition":"hsm","slc":"5c1b62b5-7d3c-4
//	a43-8d0d-6a7d1e7f2f10","public_key":"ZGVy","kek":"https://practice.vault
//	.keyferry.test/keys/kek/1","wrapped_by":"software","mechanism":"CKM_RSA_
//	AES_KEY_WRAP","warnings":[],"files":[{"path":"keys/old-key/wrapped.bin",
//	"size":600,"sha256":"SHA256:84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0
//	694e0e6a576ba204ef61"},{"path":"keys/old-key/no_key_tpd_old-key.xml","si
//	ze":26,"sha256":"SHA256:89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d2150
//	72a36342e0744c3c"},{"path":"keys/old-key/key.json","size":3,"sha256":"SH
//	A256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"}]
//	}],"files":[{"path":"transcript.jsonl","size":3,"sha256":"SHA256:ca3d163
//	bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"}]}
package bundle
