// SPDX-License-Identifier: Apache-2.0

// # Worked example
//
// testdata/golden.kfb was sealed by the Ed25519 key whose seed is 32 bytes 01, for
// a receiver whose signing key has the seed of 32 bytes 02 and whose age identity
// is AGE-SECRET-KEY-18RXAN72N6J0YWHWKM7PFFCESXDS2Y5DUZ5GWL6Q664JFDKGUNU6SSCFKP3.
// Each member's header, the size of its content, and below that its SHA-256:
//
//	at     0, 1410 bytes, manifest.json
//	         3b18bf1058a34932b75077592446dc99ee9fd261195e2563b0668d464ed4d4ee
//	at  2048,  314 bytes, signatures/7def39264223a3c54f7be5ea5c9187e4c6aed4430574ad4e74abc950589cc80f.sig
//	         a5921fe49dac04857eb6e7c4bcfdb42b7b7b7852a89330f87b69d9f04aacc703
//	at  3072, 1583 bytes, payload.tar.zst.age
//	         c1353c44fa6f76748ed70b1308d158a4c32ab6352bab04f44978acaa1316fe20
//	at  5632, 1024 bytes of zeros
//
// manifest.json:
//
//	{
//	  "format": "keyferry-bundle-v2",
//	  "purpose": "key-transfer",
//	  "id": "29253403e74988290de336a1cf0932df",
//	  "created": "2026-11-23T14:00:00Z",
//	  "rehearsal": false,
//	  "sender": {
//	    "name": "vault-room",
//	    "fingerprint": "SHA256:7def39264223a3c54f7be5ea5c9187e4c6aed4430574ad4e74abc950589cc80f"
//	  },
//	  "receiver": "SHA256:e00f63c9904e867299bdc190e934456dfe46ca66f8d407d8bd86959961c3f86e",
//	  "sequence": 1,
//	  "previous": "SHA256:0000000000000000000000000000000000000000000000000000000000000000",
//	  "keys": [
//	    {
//	      "id": "tenant-key",
//	      "disposition": "hsm",
//	      "slc": "5c1b62b5-7d3c-4a43-8d0d-6a7d1e7f2f10",
//	      "public_key": "SHA256:b37dfdcb1c8fcd68713374f06bf771fffe7acf1f0ea2a85aa0a92ec1c8ce96da",
//	      "kek": "SHA256:b794385f2d1ef7ab4d9273d1906381b44f2f6f2588a3efb96a49188331984753",
//	      "warnings": []
//	    },
//	    {
//	      "id": "old-key",
//	      "disposition": "hsm",
//	      "slc": "5c1b62b5-7d3c-4a43-8d0d-6a7d1e7f2f10",
//	      "public_key": "SHA256:b37dfdcb1c8fcd68713374f06bf771fffe7acf1f0ea2a85aa0a92ec1c8ce96da",
//	      "kek": "SHA256:b794385f2d1ef7ab4d9273d1906381b44f2f6f2588a3efb96a49188331984753",
//	      "warnings": []
//	    }
//	  ],
//	  "payload": {
//	    "path": "payload.tar.zst.age",
//	    "size": 1583,
//	    "sha256": "SHA256:c1353c44fa6f76748ed70b1308d158a4c32ab6352bab04f44978acaa1316fe20"
//	  },
//	  "index": "SHA256:09c51fae73aba6973cdefe91d5cfa61c1fb4e853d0e638f671fd24cb45f3012f"
//	}
//
// Its signature:
//
//	-----BEGIN SSH SIGNATURE-----
//	U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgiojj3XQJ8ZX9UtstPLpdcspnCb
//	8dlBIb83SIAbQPb1wAAAASa2V5ZmVycnktYnVuZGxlLXYyAAAAAAAAAAZzaGE1MTIAAABT
//	AAAAC3NzaC1lZDI1NTE5AAAAQHkgUanxYVk0j612tADrqUsw/l005u+NsqrjStTJKnpy34
//	m0Yha/Y25OXcWsEuf0mAm/Q23/QaQgZN0GNR+W2QA=
//	-----END SSH SIGNATURE-----
//
// The payload, decrypted and decompressed:
//
//	at     0, 3009 bytes, index.json
//	         09c51fae73aba6973cdefe91d5cfa61c1fb4e853d0e638f671fd24cb45f3012f
//	at  3584,  600 bytes, keys/tenant-key/wrapped.bin
//	         84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61
//	at  5120,   26 bytes, keys/tenant-key/no_key_tpd_tenant-key.xml
//	         89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c
//	at  6144,    3 bytes, keys/tenant-key/key.json
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at  7168,  600 bytes, keys/old-key/wrapped.bin
//	         84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61
//	at  8704,   26 bytes, keys/old-key/no_key_tpd_old-key.xml
//	         89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c
//	at  9728,    3 bytes, keys/old-key/key.json
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at 10752,    3 bytes, transcript.jsonl
//	         ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356
//	at 11776, 1024 bytes of zeros
//
// index.json:
//
//	{
//	  "salt": "61dbc02647a650e5735059d7f01c67bbb4946780023fda87ab39da393142ede0",
//	  "keys": [
//	    {
//	      "id": "tenant-key",
//	      "disposition": "hsm",
//	      "slc": "5c1b62b5-7d3c-4a43-8d0d-6a7d1e7f2f10",
//	      "public_key": "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA7CYNLXYF/I8M7TLHq+zd6d6HZPTdb9FrdkcfoqfUxLX4Vuvnnb92owXYMFbMGlyN0+PlR4AZP4QOg5v+it1ar7WypXkIglyOCTa2d4Xj7LwnFKn5wGowGpcgDbZnmiYNYjImrcQX4GWVUcgtNXukmkZlEYcO+B57laMiDlLcuFTvRksuL+w9k1BHmxkDLMTtfTR7M6CMxD/va5yLz6C9ir8nir1AIQOXt3PqtX6xTu1hGRgn19IygA1vNGh9UxevLlnVzJY2wUyETGUs8Tyty4aBOLVxkNcqEysqoqoNweouv6fLKWY2p5jp4/xaxgDOp+qH6r54MjqUmI9aAnbc7QIDAQAB",
//	      "kid": "https://practice.vault.keyferry.test/keys/kek/1",
//	      "kek": "SHA256:b794385f2d1ef7ab4d9273d1906381b44f2f6f2588a3efb96a49188331984753",
//	      "wrapped_by": "software",
//	      "mechanism": "CKM_RSA_AES_KEY_WRAP",
//	      "warnings": [],
//	      "files": [
//	        {
//	          "path": "keys/tenant-key/wrapped.bin",
//	          "size": 600,
//	          "sha256": "SHA256:84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61"
//	        },
//	        {
//	          "path": "keys/tenant-key/no_key_tpd_tenant-key.xml",
//	          "size": 26,
//	          "sha256": "SHA256:89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c"
//	        },
//	        {
//	          "path": "keys/tenant-key/key.json",
//	          "size": 3,
//	          "sha256": "SHA256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
//	        }
//	      ]
//	    },
//	    {
//	      "id": "old-key",
//	      "disposition": "hsm",
//	      "slc": "5c1b62b5-7d3c-4a43-8d0d-6a7d1e7f2f10",
//	      "public_key": "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA7CYNLXYF/I8M7TLHq+zd6d6HZPTdb9FrdkcfoqfUxLX4Vuvnnb92owXYMFbMGlyN0+PlR4AZP4QOg5v+it1ar7WypXkIglyOCTa2d4Xj7LwnFKn5wGowGpcgDbZnmiYNYjImrcQX4GWVUcgtNXukmkZlEYcO+B57laMiDlLcuFTvRksuL+w9k1BHmxkDLMTtfTR7M6CMxD/va5yLz6C9ir8nir1AIQOXt3PqtX6xTu1hGRgn19IygA1vNGh9UxevLlnVzJY2wUyETGUs8Tyty4aBOLVxkNcqEysqoqoNweouv6fLKWY2p5jp4/xaxgDOp+qH6r54MjqUmI9aAnbc7QIDAQAB",
//	      "kid": "https://practice.vault.keyferry.test/keys/kek/1",
//	      "kek": "SHA256:b794385f2d1ef7ab4d9273d1906381b44f2f6f2588a3efb96a49188331984753",
//	      "wrapped_by": "software",
//	      "mechanism": "CKM_RSA_AES_KEY_WRAP",
//	      "warnings": [],
//	      "files": [
//	        {
//	          "path": "keys/old-key/wrapped.bin",
//	          "size": 600,
//	          "sha256": "SHA256:84bf6de3f745480d7fe053fc149064f2f7c0b40efdd0694e0e6a576ba204ef61"
//	        },
//	        {
//	          "path": "keys/old-key/no_key_tpd_old-key.xml",
//	          "size": 26,
//	          "sha256": "SHA256:89ce56dd27ddfb3c0e51660568b8d916ce21e1a6f46d215072a36342e0744c3c"
//	        },
//	        {
//	          "path": "keys/old-key/key.json",
//	          "size": 3,
//	          "sha256": "SHA256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
//	        }
//	      ]
//	    }
//	  ],
//	  "files": [
//	    {
//	      "path": "transcript.jsonl",
//	      "size": 3,
//	      "sha256": "SHA256:ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
//	    }
//	  ]
//	}
package bundle
