// SPDX-License-Identifier: Apache-2.0
//
// Microsoft's Key Vault client for JavaScript against the practice vault. One
// request as JSON on stdin, {url, token, call, args}; one answer as JSON on
// stdout, {result} or {status, code, message}. Trust comes with NODE_EXTRA_CA_CERTS.

import { KeyClient } from "@azure/keyvault-keys";
import { text } from "node:stream/consumers";

const { url, token, call, args } = JSON.parse(await text(process.stdin));

// The practice vault names its challenge's resource by its fixed name, while
// this client calls it on the loopback, hence without that check.
if (!["localhost", "127.0.0.1", "[::1]"].includes(new URL(url).hostname)) {
  throw new Error("not a vault of this machine");
}
const client = new KeyClient(
  url,
  { getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3600000 }) },
  { disableChallengeResourceVerification: true, retryOptions: { maxRetries: 0 } },
);

const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const seen = (key) => ({
  kid: key.id,
  kty: key.keyType,
  ops: key.keyOperations,
  n: base64(key.key.n),
  e: base64(key.key.e),
  platform: key.properties.hsmPlatform,
  expires: key.properties.expiresOn,
  tags: key.properties.tags,
  recovery: key.properties.recoveryLevel,
});
const collect = async (pages) => {
  const ids = [];
  for await (const properties of pages) ids.push(properties.id);
  return ids;
};

const calls = {
  create: async ({ name, bits, expires }) =>
    seen(await client.createRsaKey(name, { hsm: true, keySize: bits, keyOps: ["import"], expiresOn: new Date(expires) })),
  import: async ({ name, blob, ops, tags }) =>
    seen(await client.importKey(name, { kty: "RSA-HSM", keyOps: ops, t: Buffer.from(blob, "base64") }, { hardwareProtected: true, tags })),
  get: async ({ name, version }) => seen(await client.getKey(name, { version })),
  versions: ({ name }) => collect(client.listPropertiesOfKeyVersions(name)),
  list: () => collect(client.listPropertiesOfKeys()),
  attestation: async ({ name, version }) => seen(await client.getKeyAttestation(name, { version })),
  remove: async ({ name }) => (await (await client.beginDeleteKey(name)).pollUntilDone()).properties.recoveryId,
  recover: async ({ name }) => (await (await client.beginRecoverDeletedKey(name)).pollUntilDone()).id,
};

let answer;
try {
  answer = { result: await calls[call](args) };
} catch (error) {
  if (!error.statusCode) throw error;
  answer = { status: error.statusCode, code: error.code, message: error.message };
}
process.stdout.write(JSON.stringify(answer));
