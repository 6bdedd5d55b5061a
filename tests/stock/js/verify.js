'use strict';
// Reads {"trustedRoot": …, "items": [{"bundle": …, "san": …, "issuer": …}]} on stdin and verifies each bundle with
// npm's own Sigstore client: certificate chain, SCT, log inclusion, timestamp, signature, identity. One JSON line out:
// [{"ok": true, "san": …, "issuer": …} | {"ok": false, "code": …, "message": …}].
// An item {"bundle": …, "pem": …} is verified with that public key, found by the hint that the bundle gives.
const { createHash, createPublicKey } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const THRESHOLDS = { ctlogThreshold: 1, tlogThreshold: 1, timestampThreshold: 1 };
const literal = (text) => `^${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`; // the policy's SAN is a pattern

function checkKey({ bundle, pem }) {
  try {
    const publicKey = createPublicKey(pem);
    const der = publicKey.export({ type: 'spki', format: 'der' });
    const text = publicKey.export({ type: 'spki', format: 'pem' });
    const hints = [createHash('sha256').update(text).digest('hex'), createHash('sha256').update(der).digest('base64')];
    const find = (hint) => {
      if (!hints.includes(hint)) throw new Error(`no key for the hint ${hint}`);
      return { publicKey, validFor: () => true };
    };
    const signer = new Verifier(toTrustMaterial(root, find), { ...THRESHOLDS, ctlogThreshold: 0 })
      .verify(toSignedEntity(bundleFromJSON(bundle)));
    return { ok: true, identity: signer.identity === undefined ? null : signer.identity };
  } catch (error) {
    return { ok: false, code: error.code || error.name, message: error.message };
  }
}

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
const root = TrustedRoot.fromJSON(trustedRoot);
const verifier = new Verifier(toTrustMaterial(root), THRESHOLDS);
process.stdout.write(`${JSON.stringify(items.map((item) => (item.pem ? checkKey(item) : check(verifier, item))))}\n`);
