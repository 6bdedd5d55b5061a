"""The transparency log: an append-only Merkle tree in files that anyone can copy, serve and check.

    entries ──leaf hash──▶ tiles ──root──▶ checkpoint (signed note) ──proof──▶ in every bundle

| module | what it knows |
|---|---|
| `hashing` | leaf and node hashes, folding (RFC 6962) |
| `tiles` | where tiles and entry bundles lie, how entries are framed (C2SP tlog-tiles) |
| `checkpoint` | signed notes and checkpoints (C2SP signed-note, tlog-checkpoint) |
| `proofs` | making and verifying inclusion and consistency proofs |
| `writer` | the one process that appends; `log`, `journal`, `recovery` and the rest are its parts |

Verifiers need the first four, which read nothing but what they are given. Specifications:
https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-tiles, RFC 6962 section 2.
"""
