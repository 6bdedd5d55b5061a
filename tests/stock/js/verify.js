'use strict';
// Reads {"trustedRoot": …, "items": [{"bundle": …, "san": …, "issuer": …}]} on stdin and verifies each bundle with
// npm's own Sigstore client: certificate chain, SCT, log inclusion, timestamp, signature, identity. One JSON line out:
// [{"ok": true, "san": …, "issuer": …} | {"ok": false, "code": …, "message": …}].
const { readFileSync } = require('node:fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const THRESHOLDS = { ctlogThreshold: 1, tlogThreshold: 1, timestampThreshold: 1 };
const literal = (text) => `^${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`; // the policy's SAN is a pattern

function check(verifier, { bundle, san, issuer }) {
  try {
    const policy = { subjectAlternativeName: literal(san), extensions: { issuer } };
    const signer = verifier.verify(toSignedEntity(bundleFromJSON(bundle)), policy);
    return { ok: true, san: signer.identity.subjectAlternativeName, issuer: signer.identity.extensions.issuer };
  } catch (error) {
    return { ok: false, code: error.code || error.name, message: error.message };
  }
}

const { trustedRoot, items } = JSON.parse(readFileSync(0, 'utf8'));
const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(trustedRoot)), THRESHOLDS);
process.stdout.write(`${JSON.stringify(items.map((item) => check(verifier, item)))}\n`);
