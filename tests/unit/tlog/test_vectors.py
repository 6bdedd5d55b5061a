"""Published numbers: what other people's implementations agree on must come out of ours, byte for byte."""

from __future__ import annotations

import base64
import json
from importlib.resources import files

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mlseal.tlog.checkpoint import ED25519, key_id, parse_note, split_note
from mlseal.tlog.hashing import EMPTY_ROOT, fold, leaf_hash
from mlseal.tlog.proofs import verify_consistency, verify_inclusion
from mlseal.tlog.tree import Tree

# The eight leaves and their roots with which Certificate Transparency's implementations test themselves.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}

# golang.org/x/mod/sumdb/note, the reference implementation of signed-note.
NOTE_KEY = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NOTE_VERIFIER = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

# The example of https://c2sp.org/tlog-cosignature: a checkpoint with the lines of its log and of a witness.
COSIGNED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def tree(size):
    return Tree(size, lambda level, n: [leaf_hash(leaf) for leaf in LEAVES])


@pytest.mark.parametrize("size", range(9))
def test_roots_of_certificate_transparency(size):
    assert fold([leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size]
    assert tree(size).root().hex() == ROOTS[size]


def test_the_empty_root_is_the_hash_of_nothing():
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_of_certificate_transparency(index, size):
    proof = [bytes.fromhex(item) for item in INCLUSION[index, size]]
    assert list(tree(size).path(0, index)) == proof
    verify_inclusion(index, size, leaf_hash(LEAVES[index]), proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_consistency_proofs_of_certificate_transparency(old, new):
    proof = [bytes.fromhex(item) for item in CONSISTENCY[old, new]]
    verify_consistency(old, new, bytes.fromhex(ROOTS[old]), bytes.fromhex(ROOTS[new]), proof)


def test_reference_note_and_key_of_signed_note():
    public = base64.b64decode(NOTE_VERIFIER)[1:]
    text, [(name, short_id, signature)] = split_note(NOTE)
    assert name == "PeterNeumann"
    assert key_id(name, ED25519, public)[:4] == short_id == bytes.fromhex("c74f20a3")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(NOTE_KEY)[1:])
    assert private.sign(text.encode()) == signature


def test_key_id_of_the_signed_note_specification():
    raw = bytes.fromhex("e932791ae6e7a840a46164c904786426d5e7821dd8b29a00d61cae72afdd4da4")
    assert key_id("example.com/foo", ED25519, raw)[:4].hex() == "530d903a"


def test_cosigned_checkpoint_of_the_specification():
    checkpoint, signatures = parse_note(COSIGNED)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.body() == COSIGNED.partition("\n\n")[0] + "\n"
    assert [name for name, _, _ in signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]


def test_key_ids_of_the_public_rekor_logs():
    """Sigstore's own trusted root names the ids; ours must be those, or no stock verifier finds our log's key."""
    store = files("sigstore._store")
    logs = [
        log
        for folder in store.iterdir()
        if folder.is_dir() and folder.joinpath("trusted_root.json").is_file()
        for log in json.loads(folder.joinpath("trusted_root.json").read_text())["tlogs"]
        if log["publicKey"]["keyDetails"] == "PKIX_ED25519"
    ]
    assert logs
    for log in logs:
        key = load_der_public_key(base64.b64decode(log["publicKey"]["rawBytes"]))
        host = log["baseUrl"].removeprefix("https://")
        assert base64.b64encode(key_id(host, ED25519, key.public_bytes_raw())).decode() == log["logId"]["keyId"]
